"""One optimiser for the tensors of many models, where their numbers are equal; else each model's
own, on its part of them.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import (
    SGD,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
)

from jensen.algorithm.advance import advance
from jensen.algorithm.optimiser import laid_as, lay_state

_ELEMENTWISE = (SGD, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop)
"""Optimisers that treat each element of a parameter by itself, so that of a stack as well."""

_COUNTS = ("step", "mu_product")
"""What these keep of a parameter besides tensors of its shape, which may be `()` too."""

State = dict[str, Any]


class StackedOptimiser:
    """The optimisers of M models whose parameters are parts of stacked ones.

    together: whether one optimiser steps for all. It does where all numbers of all groups are
        equal, and the steps so far; a schedule may part them later.

    Args:
        optimisers: of the models, in the order of the stack.
        stacked: `(M, ...)` parameters, in the order in which each optimiser has them.
    """

    def __init__(self, optimisers: Sequence[Optimizer], stacked: Sequence[Tensor]) -> None:
        self.optimisers = optimisers
        self.stacked = stacked
        self._parts = [
            [each for group in optimiser.param_groups for each in group["params"]]
            for optimiser in optimisers
        ]
        for optimiser in optimisers:  # of a checkpoint, from before its parameters were stacked
            lay_state(optimiser)
        first = optimisers[0]
        self._whole: Optimizer | None = None
        self._shared = False
        alike = all(type(each) is type(first) for each in optimisers)
        if alike and type(first) in _ELEMENTWISE and self._numbers_agree() and self._states_agree():
            self._whole = self._joined()

    @property
    def acting(self) -> Sequence[Optimizer]:
        """Those that step."""
        return self.optimisers if self._whole is None else [self._whole]

    @property
    def together(self) -> bool:
        return self._whole is not None

    def step(self, gradients: Sequence[Tensor | None], left_out: Sequence[int] = ()) -> None:
        """Step by `gradients` `(M, ...)`; of the models that are left out, whatever is done is to
        be undone by the caller.
        """
        if self.is_to_part():
            self.part()
        if self._whole is not None:
            self._step_whole(self._whole, gradients)
            return
        each = [[None] * len(self.optimisers) if g is None else g.unbind() for g in gradients]
        for place, optimiser in enumerate(self.optimisers):
            if place in left_out:
                continue
            for part, gradient in zip(self._parts[place], each, strict=True):
                part.grad = _laid(gradient[place], part)
            advance(optimiser)
            for part in self._parts[place]:
                part.grad = None

    def _step_whole(self, whole: Optimizer, gradients: Sequence[Tensor | None]) -> None:
        for group, own in zip(whole.param_groups, self.optimisers[0].param_groups, strict=True):
            for name, value in own.items():  # which a scheduler may have moved
                if name not in ("params", "capturable") and not isinstance(
                    group.get(name), Tensor
                ):  # a learning rate that a graph reads
                    group[name] = value
        for tensor, gradient in zip(self.stacked, gradients, strict=True):
            tensor.grad = _laid(gradient, tensor)
        advance(whole)
        for tensor in self.stacked:
            tensor.grad = None

    def share(self) -> None:
        """Give each model's own optimiser its part of the state, once there is one: from then on it
        changes in place. Counts of steps, which are no parts, are copied each time.
        """
        if self._whole is None:
            return
        if self._shared:
            self._count(self._whole)
            return
        self._shared = all(self._whole.state.get(tensor) for tensor in self.stacked)
        for index, tensor in enumerate(self.stacked):
            if not (state := self._whole.state.get(tensor)):
                continue
            for place, optimiser in enumerate(self.optimisers):
                optimiser.state[self._parts[place][index]] = {
                    key: value[place] if _is_stacked(value, tensor) else _copied(value)
                    for key, value in state.items()
                }
        for optimiser in self.optimisers:
            optimiser._opt_called = True  # type: ignore[attr-defined]  # or a scheduler would warn

    def _count(self, whole: Optimizer) -> None:
        """Have each model's own optimiser count as far as that of all. Its counts are its own: with one
        for all, optimisers that part would each count for the others too.
        """
        own, new = [], []
        for index, tensor in enumerate(self.stacked):
            counts = [
                (key, value)
                for key, value in whole.state[tensor].items()
                if not _is_stacked(value, tensor)
            ]
            for optimiser, parts in zip(self.optimisers, self._parts, strict=True):
                state = optimiser.state[parts[index]]
                for key, value in counts:
                    here = state.get(key)
                    if isinstance(value, Tensor) and _is_alike(here, value):
                        own.append(here)
                        new.append(value)
                    else:
                        state[key] = _copied(value)
        if own:
            torch._foreach_copy_(own, new)

    def part(self) -> None:
        """From now on each model's own optimiser steps."""
        self._shared = False
        self.share()
        self._whole = None

    def is_to_part(self) -> bool:
        """Tell whether one optimiser stepped for all, and their numbers are equal no more."""
        return self._whole is not None and not self._numbers_agree()

    def bound(self) -> bool:
        """Tell whether the state of each model's own optimiser still is its part of that of all."""
        if self._whole is None or not self._shared:
            return True
        for index, tensor in enumerate(self.stacked):
            for place, (optimiser, parts) in enumerate(
                zip(self.optimisers, self._parts, strict=True)
            ):
                own = optimiser.state.get(parts[index], {})
                for key, value in self._whole.state.get(tensor, {}).items():
                    if _is_stacked(value, tensor) and not _is_part(own.get(key), value, place):
                        return False
        return True

    def _numbers_agree(self) -> bool:
        first, *others = (_numbers(optimiser) for optimiser in self.optimisers)
        return all(numbers == first for numbers in others)

    def _states_agree(self) -> bool:
        """Tell whether what is not of a parameter's own shape, such as a count of steps, is
        equal.
        """
        for index, tensor in enumerate(self.stacked):
            first, *others = (
                _scalars(optimiser.state.get(parts[index], {}), tensor)
                for optimiser, parts in zip(self.optimisers, self._parts, strict=True)
            )
            if any(other != first for other in others):
                return False
        return True

    def _joined(self) -> Optimizer:
        """One optimiser of the stacked parameters, with the state of all."""
        first = self.optimisers[0]
        waiting = iter(self.stacked)
        groups = [
            {**group, "params": [next(waiting) for _ in group["params"]]}
            for group in first.param_groups
        ]
        whole: Optimizer = cast(Any, type(first))(groups)
        for index, tensor in enumerate(self.stacked):
            states: list[State] = [
                optimiser.state.get(parts[index], {})
                for optimiser, parts in zip(self.optimisers, self._parts, strict=True)
            ]
            if states[0]:
                whole.state[tensor] = {key: _join(key, states, tensor) for key in states[0]}
        self._whole = whole
        self.share()
        return whole


def _join(key: str, states: Sequence[State], tensor: Tensor) -> Any:
    """The values of all models under a key: stacked, if they are of the parameter's shape."""
    value = states[0][key]
    if isinstance(value, Tensor) and value.shape == tensor.shape[1:] and key not in _COUNTS:
        return laid_as(torch.stack([state[key] for state in states]), tensor)
    return _copied(value)


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _is_alike(own: Any, value: Tensor) -> bool:
    """Tell whether a count can be copied into another, on the device where both are."""
    return isinstance(own, Tensor) and own.device == value.device and own.dtype == value.dtype


def _laid(gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    return None if gradient is None else laid_as(gradient, parameter)


def _is_stacked(value: Any, tensor: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == tensor.shape


def _is_part(own: Any, whole: Tensor, place: int) -> bool:
    begin = whole.data_ptr() + place * whole.stride(0) * whole.element_size()
    return isinstance(own, Tensor) and own.data_ptr() == begin


def _numbers(optimiser: Optimizer) -> list[State]:
    return [
        {key: value for key, value in group.items() if key not in ("params", "initial_lr")}
        for group in optimiser.param_groups
    ]


def _scalars(state: State, tensor: Tensor) -> dict[str, Any]:
    """The values that all models of a stack are to share, by key."""
    return {
        key: (value.item() if isinstance(value, Tensor) and value.numel() == 1 else None)
        if isinstance(value, Tensor)
        else value
        for key, value in state.items()
        if key in _COUNTS or not isinstance(value, Tensor) or value.shape != tensor.shape[1:]
    }
