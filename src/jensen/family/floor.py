"""The least variance that numbers of a finite precision can tell from none."""

from typing import NamedTuple

import torch
from torch import Tensor

_EPS = torch.finfo(torch.float64).eps

_SUMMED = 16.0
"""Roundings that a sum of squares may be wrong by; in a matrix each of D columns adds its own."""


class Rounding(NamedTuple):
    """A floor of covariances that follows from rounding about each component's own place, not from
    the data's spread.

    Below it a variance says how the numbers were rounded: points that lie that near are copies of
    one another. A column's own variance would be no such measure: of two clusters it is their
    distance, and of one far outlier the outlier's.

    origin: `(D,)`, what the mixtures are about, in the dtype of the points as stored.
    least: `(D,)`, what is left even to points which all are exactly 0.
    shared: sums are always about the origin, rather than about each component's mean where those
        lie far from it.
    """

    origin: Tensor
    least: Tensor
    shared: bool = False

    @classmethod
    def of(cls, origin: Tensor, variance: Tensor, shared: bool = False) -> "Rounding":
        """For data whose columns have `variance` `(D,)`."""
        return cls(origin, _EPS**2 * (variance + origin.double().square() / 24), shared)

    def stored(self, mean: Tensor) -> Tensor:
        """The variance of the rounding of numbers near `mean` `(..., K, D)`, which is about the
        origin.
        """
        gap = (mean + self.origin) * (
            torch.finfo(self.origin.dtype).eps / 48**0.5
        )  # at most, and at least half of that
        return torch.addcmul(self.least, gap, gap)

    def summed(self, stored: Tensor, second: Tensor, columns: int = 1) -> Tensor:
        """With what rounding leaves of a covariance of so many `columns`, from a mean square about
        the sums' origin.
        """
        return torch.add(stored, second, alpha=_SUMMED * columns * _EPS)
