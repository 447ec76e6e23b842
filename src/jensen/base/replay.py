"""A function of tensors as a CUDA graph: the device is asked once for all of its kernels.

An iteration of EM is a hundred kernels of a few microseconds, and the host needs longer to ask for
them than the device to run them.
"""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, final

import torch
from torch import Tensor

from jensen.base.tree import tree_leaves, tree_map
from jensen.base.unlikely import presuming

T = TypeVar("T")

Run = Callable[[], None]
Capture = Callable[[Run], Run]
"""Takes a program on tensors that keep their place; gives one that repeats it."""

logger = logging.getLogger("jensen")

DEVICE = "CUDA error"
"""The first words where a library sets something up at the first capture of a process, which fails."""

_SOME = 4
"""Calls with arguments of one make after which they are replayed: a capture and its trial are six more."""

_TRIED = 2
"""Replays that are computed without the graph too, before it is trusted."""

_KEPT = 2
"""Graphs of a function that are kept: of the make of now, and the one before."""

_WARM = 3
"""Calls before a capture, in which libraries set up what they need."""


def captured(run: Run) -> Run:
    """The replay of `run`, a CUDA graph. What other threads ask of the device meanwhile, a loader's
    pinned memory say, does not matter.
    """
    program = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with uncollected(), torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        program.capture_begin(capture_error_mode="thread_local")
        try:
            run()
        finally:
            program.capture_end()
    replay: Run = program.replay
    return replay


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing is freed by a collection of garbage meanwhile, which no capture stands. To collect
    before it takes a third of a second, longer than a fit.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def aside(device: torch.device) -> Iterator[None]:
    """Another stream, as work before a capture must be on."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        yield
    torch.cuda.synchronize(device)


CAPTURES: dict[str, Capture] = {"cuda": captured}
"""Captures, by the kind of device; on others functions are called as they are."""


def is_replayed(tensor: Tensor) -> bool:
    """Tell whether functions of such tensors are."""
    return tensor.device.type in CAPTURES


@final
class Replayed(Generic[T]):
    """`function`, of trees of tensors to such a tree, by replay where there is a GPU.

    It is a function of its arguments and of tensors that it holds, and asks the device nothing but
    what is `unlikely`: where the answer is yes, it is called as it is. So it is, with a line that
    says why, where it cannot be captured, or where a replay does not give what it gives.

    name: of the function, for that line. why: the reason, if it is not replayed.
    """

    def __init__(self, name: str, function: Callable[..., T]) -> None:
        self.name = name
        self.function = function
        self.why = ""
        self._seen: dict[Any, int] = {}
        self._programs: dict[Any, _Program[T]] = {}

    def __call__(self, *trees: Any) -> T:
        first = trees
        while isinstance(first, tuple):
            first = first[0]
        capture = CAPTURES.get(first.device.type)
        if capture is None or self.why:
            return self.function(*trees)
        tensors = tree_leaves(trees)
        make = tuple((each.shape, each.dtype) for each in tensors)
        self._seen[make] = self._seen.get(make, 0) + 1
        if self._seen[make] <= _SOME:
            return self.function(*trees)
        if make not in self._programs and not self._capture(make, trees, capture):
            return self.function(*trees)
        program = self._programs[make]
        found = program(tensors)
        if found is None:
            return self.function(*trees)
        if program.tried < _TRIED:
            return self._compared(program, trees, found)
        return found

    def _capture(self, make: Any, trees: Any, capture: Capture) -> bool:
        """Tell whether there is a graph for arguments of that make now."""
        try:
            program = self._program(trees, capture)
        except Exception as error:  # whatever a library may raise
            return self._give_up(first_said(error))
        while len(self._programs) >= _KEPT:
            del self._programs[next(iter(self._programs))]
        self._programs[make] = program
        return True

    def _program(self, trees: Any, capture: Capture) -> "_Program[T]":
        try:
            return _Program(self.function, trees, capture)
        except Exception as error:
            if not first_said(error).startswith(DEVICE):
                raise
        return _Program(self.function, trees, capture)  # that was of a library's first capture

    def _compared(self, program: "_Program[T]", trees: Any, found: T) -> T:
        """The result of a call, beside which the replay is no longer trusted if it differs."""
        program.tried += 1
        expected = self.function(*trees)
        pairs = zip(tree_leaves(expected), tree_leaves(found), strict=True)
        if not bool(torch.stack([_same(one, other) for one, other in pairs]).all()):
            self._give_up("a replay gives other numbers than a call")
        return expected

    def _give_up(self, why: str) -> bool:
        self.why = why
        self._programs.clear()
        logger.warning("%s is computed without a CUDA graph (%s)", self.name, why)
        return False


@final
class _Program(Generic[T]):
    """The replay of a function on arguments of one make. tried: how often it was compared."""

    def __init__(self, function: Callable[..., T], trees: Any, capture: Capture) -> None:
        held = tree_map(lambda part: part.clone(memory_format=torch.contiguous_format), trees)
        self._inputs = tree_leaves(held)
        self._outputs: T | None = None
        self._flat: list[Tensor] = []
        self._doubt: Tensor | None = None
        self.tried = 0
        with aside(self._inputs[0].device), presuming():
            for _ in range(_WARM):
                function(*held)

        def run() -> None:
            with presuming() as flags:
                self._outputs = function(*held)
            self._flat = _flattened(self._outputs)
            self._doubt = torch.stack(flags).any() if flags else None

        self._replay = capture(run)

    def __call__(self, tensors: list[Tensor]) -> T | None:
        """The function's result for the arguments' tensors; None where it has to be called."""
        torch._foreach_copy_(self._inputs, tensors)
        self._replay()
        if self._doubt is not None and bool(self._doubt):
            return None
        assert self._outputs is not None
        return _parts([each.clone() for each in self._flat], self._outputs)


def _flattened(tree: Any) -> list[Tensor]:
    """The numbers of a tree in one tensor a dtype, by order of appearance."""
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for each in tree_leaves(tree):
        kinds.setdefault(each.dtype, []).append(each.reshape(-1))
    return [torch.cat(parts) for parts in kinds.values()]


def _parts(flat: list[Tensor], tree: T) -> T:
    """The tree like `tree` whose `_flattened` is `flat`."""
    rest = {each.dtype: each for each in flat}

    def taken(part: Tensor) -> Tensor:
        mine, rest[part.dtype] = rest[part.dtype].tensor_split([part.numel()])
        return mine.view(part.shape)

    return tree_map(taken, tree)


def _same(expected: Tensor, found: Tensor) -> Tensor:
    """Tell whether two results differ by no more than kernels that add in another order may, `()`; the
    host is not waiting for it.
    """
    equal = (expected == found) | ((expected != expected) & (found != found))  # infinite ones, NaN
    if not expected.is_floating_point() or not expected.numel():
        return equal.all()
    size = expected.abs()
    scale = size.nan_to_num(0.0, 0.0, 0.0).amax()
    near = (expected - found).abs() <= 1e-3 * size + 1e-6 * scale
    return (equal | (near & expected.isfinite())).all()


def first_said(error: BaseException) -> str:
    """The first thing that went wrong, in one line."""
    while error.__context__ is not None:  # the end of a failed capture fails too
        error = error.__context__
    return str(error).splitlines()[0] if str(error) else type(error).__name__
