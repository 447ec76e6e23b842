"""Numbers that depend on the step, as functions of the step: nothing to count, save or restore.

The numbers of a schedule are buffers, so a stack of models holds a stack of them; they are
configuration, not state, and stay out of checkpoints.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from jensen.base.errors import InputError, check_count, check_float32, check_number


def linear(step: Tensor, start: Tensor, end: Tensor, steps: Tensor) -> Tensor:
    """From `start` at step 0 to `end` at step `steps`, in a straight line, then `end`. All `()`."""
    return start + (end - start) * (step / steps).clamp(max=1)


def geometric(step: Tensor, start: Tensor, end: Tensor, steps: Tensor) -> Tensor:
    """From `start` at step 0 to `end` at step `steps` by equal factors, then `end`; start, end > 0.
    All `()`.
    """
    return start * (end / start) ** (step / steps).clamp(max=1)


def cyclic(
    step: Tensor, start: Tensor, end: Tensor, steps: Tensor, cycles: Tensor, ramp: Tensor
) -> Tensor:
    """`cycles` equal cycles in `steps`, each rising from `start` to `end` in its first part `ramp`,
    then `end`. All `()`.

    Fu et al. 2019 (arXiv 1903.10145), eq. 6-7.
    """
    phase = torch.where(step < steps, (step * cycles / steps) % 1, torch.ones_like(ramp))
    return start + (end - start) * (phase / ramp).clamp(max=1)


class Schedule(nn.Module, ABC):
    """A scalar of the step, abstract. Its `numbers` become buffers, of float32 until a module is
    converted.

    In float64 they are the numbers that were given, not those rounded to float32 on the way.

    end_step: the step from which on the value stays as it is; training must reach it.
    bounds: the least and the greatest value.
    """

    told_by_buffers = ("end_step", "bounds", "_given")

    def __init__(self, end_step: int, bounds: tuple[float, float], **numbers: float) -> None:
        super().__init__()
        self.end_step = end_step
        self.bounds = bounds
        self._given: dict[str, float] = {}
        self._hold(**numbers)

    def _hold(self, **numbers: float) -> None:
        for name, number in numbers.items():
            self._given[name] = float(number)
            self.register_buffer(name, torch.tensor(float(number)), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert as usual; the digits that a float32 buffer lacks come from the numbers
        themselves.
        """
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, number in self._given.items():
            buffer = getattr(self, name)
            if buffer.dtype == torch.float64:
                rounded = torch.tensor(number, dtype=torch.float32, device=buffer.device)
                buffer.copy_(
                    torch.where(buffer.float() == rounded, number, buffer)
                )  # or what someone has put there
        return self

    @abstractmethod
    def forward(self, step: Tensor) -> Tensor:
        """`()` integer step of the optimiser to `()` value."""


class Constant(Schedule):
    """The same `value` at every step."""

    value: Tensor

    def __init__(self, value: float) -> None:
        check_float32("value", value)
        super().__init__(end_step=0, bounds=(value, value), value=value)

    def forward(self, step: Tensor) -> Tensor:
        return self.value


class _Between(Schedule):
    """A schedule from `start` to `end`, each at least `least`, which it reaches after `steps`
    optimiser steps. Abstract.
    """

    start: Tensor
    end: Tensor
    steps: Tensor
    least = float("-inf")

    def __init__(self, start: float, end: float, steps: int) -> None:
        check_float32("start", start, low=self.least)
        check_float32("end", end, low=self.least)
        check_count("steps", steps)
        bounds = (min(start, end), max(start, end))
        super().__init__(steps, bounds, start=start, end=end, steps=steps)


class Linear(_Between):
    """`linear` from `start` to `end` over `steps` optimiser steps."""

    def forward(self, step: Tensor) -> Tensor:
        return linear(step, self.start, self.end, self.steps)


class Geometric(_Between):
    """`geometric` from `start` to `end` over `steps` optimiser steps."""

    least = 1e-30

    def forward(self, step: Tensor) -> Tensor:
        return geometric(step, self.start, self.end, self.steps)


class Cyclic(_Between):
    """`cyclic` between `start` and `end`: `cycles` cycles in `steps` optimiser steps, rising for
    the part `ramp` of each.
    """

    cycles: Tensor
    ramp: Tensor

    def __init__(
        self, start: float, end: float, steps: int, cycles: int = 4, ramp: float = 0.5
    ) -> None:
        check_count("cycles", cycles)
        check_number("ramp", ramp, low=1e-6, high=1)
        super().__init__(start, end, steps)
        self._hold(cycles=cycles, ramp=ramp)

    def forward(self, step: Tensor) -> Tensor:
        return cyclic(step, self.start, self.end, self.steps, self.cycles, self.ramp)


def as_schedule(name: str, value: float | Schedule, low: float = float("-inf")) -> Schedule:
    """`value` itself if it is a schedule, else `Constant(value)`; refused where it falls below
    `low`.
    """
    if not isinstance(value, Schedule):
        check_float32(name, value, low)
    schedule = value if isinstance(value, Schedule) else Constant(value)
    if schedule.bounds[0] < low:
        raise InputError(
            f"{name} falls to {schedule.bounds[0]:g} in its schedule: expected numbers of at least"
            f" {low:g}"
        )
    return schedule
