"""Curves of a sweep read at one level, so that objectives are compared where they are equal."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Against(NamedTuple):
    """A difference between two curves: its mean over seeds, and the ends of its interval, NaN with
    one seed. seeds: how many have both.
    """

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def settled(self) -> bool:
        return self.low > 0 or self.high < 0


def read_at(x: npt.ArrayLike, y: npt.ArrayLike, level: float) -> float:
    """y where the curve through the points, in the order of x, has x = `level`: linear between two
    of them, NaN outside.

    >>> read_at([1, 3, 2], [10, 30, 20], 2.5)
    25.0
    """
    across = np.asarray(x, dtype=np.float64)
    order = np.argsort(across, kind="stable")
    known = np.asarray(y, dtype=np.float64)[order]
    return float(np.interp(level, across[order], known, left=np.nan, right=np.nan))


def levels(curves: Sequence[npt.ArrayLike], count: int = 3) -> list[float]:
    """Levels of x that the most curves reach, `count` of them, evenly spread over the widest such
    span; none where no two curves overlap.
    """
    ends = [
        (float(np.min(each)), float(np.max(each))) for each in map(np.asarray, curves) if len(each)
    ]
    edges = sorted({end for pair in ends for end in pair})
    spans = [
        (sum(low <= a and b <= high for low, high in ends), b - a, a, b) for a, b in pairwise(edges)
    ]
    if not spans or (best := max(spans))[0] < 2:
        return []
    _, _, a, b = best
    return np.linspace(a, b, count + 2)[1:-1].tolist()


def difference(one: npt.ArrayLike, other: npt.ArrayLike, level: float = 0.95) -> Against:
    """The mean of one - other over seeds, `(S,)` each, NaN where a curve does not reach; a Student
    t interval of the paired differences.
    """
    from scipy.stats import t

    gaps = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    gaps = gaps[np.isfinite(gaps)]
    if not len(gaps):
        return Against(np.nan, np.nan, np.nan, 0)
    mean = float(gaps.mean())
    if len(gaps) == 1:
        return Against(mean, np.nan, np.nan, 1)
    half = float(t.ppf((1 + level) / 2, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps)))
    return Against(mean, mean - half, mean + half, len(gaps))


def table_at(
    curves: Mapping[str, Mapping[int, tuple[npt.ArrayLike, npt.ArrayLike]]], level: float
) -> dict[str, Floats]:
    """y of each curve at the level: of each name, one a seed, in the order of all seeds."""
    seeds = sorted({seed for each in curves.values() for seed in each})
    return {
        name: np.array([read_at(*each[seed], level) if seed in each else np.nan for seed in seeds])
        for name, each in curves.items()
    }
