"""Refusals of cues: numbers that are no chance, no spread or no distribution."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from jensen.base.errors import InputError, check_number

_NEAR = 1e-4
"""Distance from 1 at which probabilities in float32 may add up."""


def listed(name: str, values: object) -> list[float]:
    """The spreads of cues, at least one."""
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise InputError(f"{name} is {values!r}: expected a list, with a number for each cue")
    return [*values]


def check_spread(name: str, value: float) -> None:
    """Refuse a variance or standard deviation that is not above 0."""
    check_number(name, value, low=0)
    if value == 0:
        raise InputError(f"{name} is {value}: expected a number above 0")


def check_tensors(cues: Any, maker: str) -> None:
    """Refuse cues of plain numbers, of whole ones, and of other shapes: `common` and whatever is of
    no cue in particular is `()`, the rest one row.
    """
    rows = ("noise_var", "noise_sd", "log_prior")
    for name, value in zip(cues._fields, cues, strict=True):
        if not isinstance(value, Tensor):
            raise InputError(f"{name} is {value!r}: expected a tensor; make cues by {maker}")
        if not value.is_floating_point():
            raise InputError(
                f"{name} is of {value.dtype}: expected float32 or float64, since observations are"
                f" taken in the precision of the cues; make cues by {maker}"
            )
        if value.dim() != (name in rows) or not value.numel():
            expected = "(M,), a number for each" if name in rows else "(), one number"
            raise InputError(
                f"{name} has the shape {list(value.shape)}: expected {expected}; make cues by {maker}"
            )


def check_log_prior(log_prior: Tensor) -> None:
    """Refuse log-probabilities `(C,)` that do not add up to 1."""
    total = log_prior.logsumexp(0).exp().item()
    if not abs(total - 1) < _NEAR:
        raise InputError(
            f"exp of log_prior adds up to {total:g}: expected probabilities, which add up to 1; take"
            " log_softmax of it"
        )
