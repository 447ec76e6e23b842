"""The way a mixture is to be fitted, as it was asked for."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from jensen.base.errors import (
    InputError,
    check_choice,
    check_count,
    check_flag,
    check_number,
    check_seed,
)
from jensen.family.floor import Rounding
from jensen.family.moments import FLAT, PseudoCounts, like
from jensen.family.structures import STRUCTURES, Structure
from jensen.model.arrays import as_tensor


class Recipe(NamedTuple):
    """The arguments of a `GMM`, which says what they mean."""

    components: int
    covariance: str
    seed: int
    init: Any
    restarts: int
    tolerance: float
    max_iter: int
    prior: PseudoCounts | None
    beta: float | Sequence[float]
    missing: bool
    accelerate: bool
    warm_start: bool
    order: str | None

    @property
    def structure(self) -> Structure:
        return STRUCTURES[self.covariance]

    @property
    def betas(self) -> tuple[float, ...]:
        """The temperatures, which are gone through one after another."""
        return tuple(self.beta) if isinstance(self.beta, Sequence) else (self.beta,)

    def check(self) -> None:
        """Refuse what no fit could be made by, in one sentence."""
        check_count("components", self.components)
        check_choice("covariance", self.covariance, list(STRUCTURES))
        check_count("restarts", self.restarts)
        check_count("max_iter", self.max_iter, least=0)
        check_number("tolerance", self.tolerance, low=0)
        check_choice("order", self.order, (None, "mean", "weight"))
        check_seed("seed", self.seed)
        check_flag("missing", self.missing)
        check_flag("accelerate", self.accelerate)
        check_flag("warm_start", self.warm_start)
        for each in self.betas or (None,):
            check_number("beta", each, low=1e-6)
        for name, value in (self.prior or FLAT)._asdict().items():
            _check_pseudo_count(name, value)
        if isinstance(self.init, str):
            check_choice("init", self.init, ("kmeans++", "random"))
        elif self.restarts > 1:
            raise InputError(
                f"restarts is {self.restarts} with a given init: they would all be the same; use"
                " restarts=1"
            )

    def pseudo_counts(self, variance: Tensor, origin: Tensor, shared: bool = False) -> PseudoCounts:
        """The prior, or the default floor, for data whose columns have `variance` `(D,)`; see
        `Rounding` for the others.
        """
        if self.prior is None:
            return PseudoCounts(variance=variance, floor=Rounding.of(origin, variance, shared))
        floor = self.prior.floor
        if isinstance(floor, Tensor) or (isinstance(floor, float | int) and floor > 0):
            floor = like(variance, floor) * variance
        return self.prior._replace(
            variance=like(variance, self.prior.variance) * variance, floor=floor
        )


def _check_pseudo_count(name: str, value: Any) -> None:
    if isinstance(value, Rounding):
        return
    number = as_tensor(f"prior.{name}", value)
    if not bool((number.isfinite() & (number >= 0)).all()):
        raise InputError(
            f"prior.{name} is {value}: expected finite pseudo-counts and variances of at least 0"
        )
