"""A step that is run before it counts and leaves nothing: all state put back, an optimiser that
counts on the device, and the reasons why a step cannot be captured.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from jensen.algorithm import hooks
from jensen.algorithm.alike import HOLDERS, PLAIN, attributes, compared, kept
from jensen.algorithm.chunk import Chunk
from jensen.algorithm.origin import methods, read
from jensen.algorithm.streams import Streams
from jensen.base.replay import first_said

if TYPE_CHECKING:
    from jensen.algorithm.gradient import Gradient


class Replaced:
    """Buffers of modules, and other tensors that they keep, of which a step may put another in their
    place.

    Args:
        roots: modules, by a name for each.
    """

    def __init__(self, **roots: nn.Module) -> None:
        parts = _parts(roots)
        self._buffers = [
            (f"{name}.{key}", part._buffers, key, value)
            for name, part in parts
            for key, value in part._buffers.items()
        ]
        self._others = [
            (vars(part), key, value, value.detach().clone())
            for _, part in parts
            for key, value in kept(part)
            if isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta
        ]

    def changed(self) -> str:
        """Say which buffer is another now; empty if none is."""
        for name, held, key, value in self._buffers:
            if held.get(key) is not value:
                return f"{name} is replaced in a step, not changed in place"
        return ""

    @torch.no_grad()
    def put_back(self) -> None:
        """Put the tensors back; the values of buffers are others' to put back."""
        for _, held, key, value in self._buffers:
            held[key] = value
        for held, key, value, before in self._others:
            held[key] = value
            if not torch.equal(value, before):  # one that is expanded cannot be written
                value.copy_(before)


class State:
    """All that a step may change, and copies of what it was: tensors, which keep their place, what an
    optimiser keeps beside them, plain values of modules, and generators.
    """

    def __init__(self, algorithm: "Gradient", optimiser: Optimizer) -> None:
        self.tensors = [
            *algorithm.parameters(),
            *algorithm.buffers(),
            *algorithm.finite.memory,
            *_tensors(optimiser),
        ]
        self.before = [tensor.detach().clone() for tensor in self.tensors]
        self.optimiser = optimiser
        self.kept = {parameter: {**state} for parameter, state in optimiser.state.items()}
        roots = {"model": algorithm.model, "objective": algorithm.objective}
        self.numbers = Numbers(**roots)
        self.replaced = Replaced(**roots)
        self.streams = Streams(algorithm.device)

    def changed(self) -> str:
        """Say what a step left that repeating it without Python would not; empty if nothing."""
        return self.numbers.changed() or self.replaced.changed()

    @torch.no_grad()
    def put_back(self) -> None:
        """Copy what they were into them."""
        self.replaced.put_back()
        self.streams.put_back()
        for tensor, value in zip(self.tensors, self.before, strict=True):
            tensor.copy_(value)
        for parameter, state in self.kept.items():
            now = self.optimiser.state[parameter]  # in place: an optimiser amid its step holds it
            now.clear()
            now.update(state)
        self.numbers.put_back()


class Numbers:
    """Plain values that modules keep beside their tensors, or read of Python, and what lies in their
    lists and the like, as they are now.

    Args:
        roots: modules, by a name for each.
    """

    def __init__(self, **roots: nn.Module) -> None:
        parts = _parts(roots)
        found: list[tuple[str, Mapping[str, Any], str]] = [
            (f"{name}.{key}", vars(part), key) for name, part in parts for key, _ in kept(part)
        ]
        found += [
            (f"{key}, which {type(part).__name__} reads,", held, key)
            for _, part in parts
            for held, key in read(part)
        ]
        self._kept = [
            (name, held, key, held[key], compared(held[key]), copy(held[key]))
            for name, held, key in found
            if isinstance(held[key], (*PLAIN, *HOLDERS))
        ]

    def changed(self) -> str:
        """Say which is another now; empty if none is."""
        for name, held, key, _, before, _ in self._kept:
            if compared(held.get(key)) != before:
                return f"{name} changes in a step"
        return ""

    def put_back(self) -> None:
        for _, held, key, value, _, contents in self._kept:
            if isinstance(held, dict):  # not what a class holds
                held[key] = value
            if isinstance(value, HOLDERS):
                _refill(value, contents)


def _parts(roots: dict[str, nn.Module]) -> list[tuple[str, nn.Module]]:
    """All modules of the roots, each once, by name."""
    return [each for name, root in roots.items() for each in root.named_modules(prefix=name)]


def _refill(holder: Any, contents: Any) -> None:
    """Leave in a list, or the like, what lay in it."""
    holder.clear()
    fill = holder.update if isinstance(holder, dict | set) else holder.extend
    fill(contents)


def said(error: BaseException, inside: list[str]) -> str:
    """Name what first went wrong, and in which module, in one line."""
    at = f"in {inside[-1]}, " if inside else ""
    return at + first_said(error)


def part(chunk: Chunk, begin: int, end: int) -> Chunk:
    x, row, noise, step, first = chunk
    return Chunk(x[begin:end], row[begin:end], noise[begin:end], step[begin:end], first + begin)


def _tensors(optimiser: Optimizer) -> list[Tensor]:
    return [
        value
        for state in optimiser.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    ]


def fixed(algorithm: "Gradient", scheduled: bool) -> list[object]:
    """All that a captured step has for good, and that somebody may change amid a training: modules
    with their code, what they keep and read of Python, hooks, tensors and their places, which of them learn, the
    optimiser with its groups' numbers, and how gradients are clipped. A learning rate that is
    `scheduled` is none of that.
    """
    trainer = algorithm.trainer
    optimiser = trainer.optimizers[0]
    found: list[object] = [trainer.gradient_clip_val, str(trainer.gradient_clip_algorithm)]
    found += [algorithm.encoder_steps, hooks.of_all_modules()]
    for module in (*algorithm.model.modules(), *algorithm.objective.modules()):
        found += [id(module), attributes(module), hooks.of_module(module)]
        found += [compared(held.get(name)) for held, name in read(module)]
        found += methods(module)
        tensors = (*module._parameters.values(), *module._buffers.values())
        found += [_place(each) for each in tensors if each is not None]
    found += [id(optimiser), vars(optimiser).get("step"), hooks.of_optimiser(optimiser)]
    found += numbers_of(optimiser, scheduled)
    found += [id(each) for group in optimiser.param_groups for each in group["params"]]
    return found


class Changes:
    """Changes of what captured steps have for good, by which they were of use for one call alone."""

    def __init__(self) -> None:
        self._calls = 0
        self._in_vain = 0

    def used(self) -> None:
        self._calls += 1

    def changed(self) -> str:
        """The reason to capture no more, if this is the third time in a row; else empty."""
        self._in_vain = self._in_vain + 1 if self._calls <= 1 else 0
        self._calls = 0
        return "what they are captured with changes again and again" if self._in_vain == 3 else ""


def numbers_of(optimiser: Optimizer, scheduled: bool) -> list[object]:
    """The numbers of an optimiser's groups that a captured step has for good."""
    left = {"params", "capturable", *(["lr"] if scheduled else [])}
    return [
        (name, value)
        for group in optimiser.param_groups
        for name, value in group.items()
        if name not in left
    ]


def _place(tensor: Tensor) -> tuple[object, ...]:
    return id(tensor), tensor.data_ptr(), tensor.requires_grad, hooks.of_gradient(tensor)


def steps_differ(algorithm: "Gradient") -> str:
    """The reason why no step can be repeated for another; empty if each can."""
    if algorithm.encoder_steps == 1:
        return ""
    return f"algorithm.encoder_steps={algorithm.encoder_steps} leaves the decoder out of most steps"


def on_host(optimiser: Optimizer) -> list[object]:
    """Copies of what an optimiser keeps on the host of a model that is elsewhere."""
    found: list[object] = []
    for parameter, state in optimiser.state.items():
        for value in state.values():
            if not isinstance(value, Tensor):
                found.append(value)
            elif value.device.type != parameter.device.type:
                found.append(value.tolist())
    return found


def count_on_device(optimiser: Optimizer) -> None:
    """Move the counts of steps to where the parameters are, of optimisers that can count there."""
    if "capturable" not in optimiser.defaults:
        return
    for parameter, state in optimiser.state.items():
        if isinstance(step := state.get("step"), Tensor):
            state["step"] = step.to(parameter.device)


@contextmanager
def capturable(optimiser: Optimizer, rates: list[Tensor]) -> Iterator[None]:
    """Have the optimiser count on the device, and read its learning rates from tensors."""
    before = [dict(group) for group in optimiser.param_groups]
    for place, group in enumerate(optimiser.param_groups):
        if "capturable" in group:
            group["capturable"] = group["params"][0].is_cuda
        if rates:
            group["lr"] = rates[place]
    try:
        yield
    finally:
        for group, old in zip(optimiser.param_groups, before, strict=True):
            group.update({name: old[name] for name in ("capturable", "lr") if name in old})


@contextmanager
def entered(model: nn.Module, inside: list[str]) -> Iterator[None]:
    """Keep the names of the modules that a forward pass is in."""

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: inside.append(name)

    registered = []
    for name, module in model.named_modules():
        if name:
            registered.append(module.register_forward_pre_hook(enter(f"model.{name}")))
            registered.append(module.register_forward_hook(lambda *_: inside.pop() and None))
    try:
        yield
    finally:
        for hook in registered:
            hook.remove()


@torch.no_grad()
def drawing(model: nn.Module, x: Tensor, noise: Tensor) -> str:
    """Name the first module that draws from a generator that all draw from."""
    found: list[str] = []
    before: dict[str, Streams] = {}

    def remember(name: str) -> Callable[..., None]:
        return lambda *_: before.__setitem__(name, Streams(x.device))

    def compare(name: str) -> Callable[..., None]:
        def look(*_: object) -> None:
            if before[name].moved():
                found.append(name)

        return look

    registered = []
    for name, module in model.named_modules():
        if name:
            registered.append(module.register_forward_pre_hook(remember(name)))
            registered.append(module.register_forward_hook(compare(name)))
    try:
        model(x, noise)
    finally:
        for hook in registered:
            hook.remove()
    return f"model.{found[0]}" if found else "the objective"
