"""Shares of a quantity's variance: of the objective, of its strength, and of the seed."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jensen.base.errors import InputError

Floats = npt.NDArray[np.float64]


class Shares(NamedTuple):
    """Shares of the sum of squares, which add up to 1, and the part of a run's variance that is of
    its setting.

    outer, inner, rest: between objectives, between the strengths of each, between seeds. Even where
        nothing has any effect, the first two are about as large as they have degrees of freedom.
    setting: the intraclass correlation, for which chance is allowed: var(setting) / (var(setting) +
        var(seed)), at least 0. low, high: its interval, exact for normal effects.
    """

    outer: float
    inner: float
    rest: float
    setting: float
    low: float
    high: float


def shares(
    values: npt.ArrayLike,
    outer: Sequence[Hashable],
    inner: Sequence[Hashable],
    level: float = 0.95,
) -> Shares:
    """Split the variance of N runs by what they were set to (one-way and nested analysis of
    variance; Searle, Casella & McCulloch 1992, sections 3.5 and 3.6).

    Args:
        values: `(N,)`; runs of NaN are left out.
        outer: of each run, its objective. inner: its strength, of that objective.

    Raises:
        InputError: fewer than two settings, or no setting of two seeds.

    >>> found = shares([0, 0, 2, 2, 4, 4], "aabbbb", [0, 0, 0, 0, 1, 1])
    >>> found.rest, found.setting
    (0.0, 1.0)
    """
    from scipy.stats import f as snedecor

    x = np.asarray(values, dtype=np.float64)
    kept = np.isfinite(x)
    x = x[kept]
    top = _numbers([each for each, known in zip(outer, kept, strict=True) if known])
    pairs = zip(outer, inner, strict=True)
    setting = _numbers([each for each, known in zip(pairs, kept, strict=True) if known])
    count = np.bincount(setting) if len(x) else np.zeros(0)
    groups = len(count)
    if groups < 2 or len(x) == groups:
        raise InputError(
            f"{len(x)} runs of {groups} settings: expected two settings at least, and two seeds of"
            " one"
        )
    total = float(((x - x.mean()) ** 2).sum())
    within = float(((x - _means(x, setting)) ** 2).sum())
    below = float(((x - _means(x, top)) ** 2).sum())
    if total == 0:
        return Shares(*[float("nan")] * 6)
    size = (len(x) - (count**2).sum() / len(x)) / (groups - 1)  # runs of a setting, of unequal ones
    mean_within = within / (len(x) - groups)
    mean_between = (total - within) / (groups - 1)
    parts = Shares((total - below) / total, (below - within) / total, within / total, 1.0, 1.0, 1.0)
    if mean_within == 0:
        return parts
    ratio = mean_between / mean_within
    degrees = (groups - 1, len(x) - groups)
    tail = (1 - level) / 2
    most = ratio / float(snedecor.ppf(tail, *degrees))
    least = ratio / float(snedecor.ppf(1 - tail, *degrees))
    correlations = [max(0.0, (each - 1) / (each + size - 1)) for each in (ratio, least, most)]
    return parts._replace(setting=correlations[0], low=correlations[1], high=correlations[2])


def _numbers(labels: Sequence[Hashable]) -> npt.NDArray[np.int64]:
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(label, len(known)) for label in labels], dtype=np.int64)


def _means(x: Floats, group: npt.NDArray[np.int64]) -> Floats:
    """The mean of its group, for each."""
    means: Floats = np.bincount(group, x) / np.bincount(group)
    return means[group]
