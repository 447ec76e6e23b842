"""Numbers that depend on the step, as functions of the step: nothing to count, save or restore.

The numbers of a schedule are buffers, so a stack of models holds a stack of them; they are configuration, not state,
and stay out of checkpoints.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from jensen.core.errors import InputError, check_count, check_number


class Schedule(Protocol):
    """A scalar of the step."""

    end_step: int
    """The step from which on the value stays as it is; training must reach it."""

    range: tuple[float, float]
    """The least and the greatest value."""

    def __call__(self, step: Tensor) -> Tensor:
        """`()` integer step of the optimiser to `()` value."""
        ...


def linear(step: Tensor, start: Tensor, end: Tensor, steps: Tensor) -> Tensor:
    """From `start` at step 0 to `end` at step `steps`, in a straight line, then `end`. All `()`."""
    return start + (end - start) * (step / steps).clamp(max=1)


def cyclic(step: Tensor, start: Tensor, end: Tensor, steps: Tensor, cycles: Tensor, ramp: Tensor) -> Tensor:
    """`cycles` equal cycles in `steps`, each rising from `start` to `end` in its first part `ramp`, then `end`. All `()`.

    Fu et al. 2019 (arXiv 1903.10145), eq. 6-7.
    """
    phase = torch.where(step < steps, (step * cycles / steps) % 1, torch.ones_like(ramp))
    return start + (end - start) * (phase / ramp).clamp(max=1)


class _Numbers(nn.Module):
    """Holds named numbers as buffers."""

    def __init__(self, **numbers: float) -> None:
        super().__init__()
        for name, number in numbers.items():
            self.register_buffer(name, torch.tensor(float(number)), persistent=False)


class Constant(_Numbers):
    """The same `value` at every step."""

    value: Tensor

    def __init__(self, value: float) -> None:
        check_number("value", value)
        super().__init__(value=value)
        self.end_step = 0
        self.range = (value, value)

    def forward(self, step: Tensor) -> Tensor:
        return self.value


class Linear(_Numbers):
    """`linear` from `start` to `end` over `steps` optimiser steps."""

    start: Tensor
    end: Tensor
    steps: Tensor

    def __init__(self, start: float, end: float, steps: int) -> None:
        check_number("start", start)
        check_number("end", end)
        check_count("steps", steps)
        super().__init__(start=start, end=end, steps=steps)
        self.end_step = steps
        self.range = (min(start, end), max(start, end))

    def forward(self, step: Tensor) -> Tensor:
        return linear(step, self.start, self.end, self.steps)


class Cyclic(_Numbers):
    """`cyclic` between `start` and `end`: `cycles` cycles in `steps` optimiser steps, rising for the part `ramp` of each."""

    start: Tensor
    end: Tensor
    steps: Tensor
    cycles: Tensor
    ramp: Tensor

    def __init__(self, start: float, end: float, steps: int, cycles: int = 4, ramp: float = 0.5) -> None:
        check_number("start", start)
        check_number("end", end)
        check_count("steps", steps)
        check_count("cycles", cycles)
        check_number("ramp", ramp, low=1e-6, high=1)
        super().__init__(start=start, end=end, steps=steps, cycles=cycles, ramp=ramp)
        self.end_step = steps
        self.range = (min(start, end), max(start, end))

    def forward(self, step: Tensor) -> Tensor:
        return cyclic(step, self.start, self.end, self.steps, self.cycles, self.ramp)


def as_schedule(name: str, value: float | Schedule, low: float = float("-inf")) -> Schedule:
    """`value` itself if it is a schedule, else `Constant(value)`; refused where it falls below `low`."""
    if isinstance(value, nn.Module):
        schedule: Schedule = value
    else:
        check_number(name, value, low)
        schedule = Constant(value)
    if schedule.range[0] < low:
        raise InputError(f"{name} falls to {schedule.range[0]:g} in its schedule: expected numbers of at least {low:g}")
    return schedule
