"""Rank correlations over runs, and how far other settings would move them."""

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jensen.base.errors import InputError

Floats = npt.NDArray[np.float64]

RESAMPLES = 1000
LEVEL = 0.95


class Interval(NamedTuple):
    """A number with its bootstrap interval, NaN where nothing could be resampled."""

    value: float
    low: float
    high: float

    @property
    def settles_sign(self) -> bool:
        """Tell whether 0 lies outside."""
        return self.low > 0 or self.high < 0


class Ranks(NamedTuple):
    """Spearman's correlations `(Q, Q)`, and the ends of their intervals."""

    value: Floats
    low: Floats
    high: Floats

    def of(self, one: int, other: int) -> Interval:
        return Interval(*(float(part[one, other]) for part in self))


def rank_correlations(
    values: npt.ArrayLike,
    groups: Sequence[Hashable],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Ranks:
    """Spearman's rank correlation of each two of Q quantities over N runs, with bootstrap
    intervals.

    Whole groups are drawn, each with all its runs, since the seeds of a setting are no independent
    witnesses. A run that lacks one of two quantities (NaN) is left out of their correlation; a
    quantity that is constant has none (NaN).

    Args:
        values: `(N, Q)`.
        groups: of each run, its setting.

    Raises:
        InputError: no runs, or as many groups as not.

    >>> value, low, high = rank_correlations([[1, 3], [2, 2], [3, 1], [4, 0]], [0, 0, 1, 2])
    >>> round(float(value[0, 1]), 12)
    -1.0
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not len(table) or len(groups) != len(table):
        raise InputError(
            f"values are of shape {list(table.shape)} and groups {len(groups)}: expected a row a run,"
            " and a group for each"
        )
    drawn = np.stack([correlations(table[rows]) for rows in resampled(groups, resamples, seed)])
    return Ranks(correlations(table), *interval(drawn, level))


def correlations(table: Floats) -> Floats:
    """Spearman's `(Q, Q)` of the columns of `(N, Q)`, each two over the rows that have both."""
    from scipy.stats import rankdata

    kept, kind = np.unique(np.isfinite(table), axis=1, return_inverse=True)
    columns = [np.flatnonzero(kind.ravel() == each) for each in range(kept.shape[1])]
    found = np.full((table.shape[1], table.shape[1]), np.nan)
    for one, ours in enumerate(columns):  # those that lack the same rows, all at once
        for other, theirs in enumerate(columns[: one + 1]):
            rows = kept[:, one] & kept[:, other]
            if rows.sum() < 2:
                continue
            both = np.concatenate([ours, theirs])
            whole = _pearson(rankdata(table[np.ix_(rows, both)], axis=0))
            found[np.ix_(ours, theirs)] = whole[: len(ours), len(ours) :]
            found[np.ix_(theirs, ours)] = found[np.ix_(ours, theirs)].T
    return found


def _pearson(table: Floats) -> Floats:
    centred = table - table.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = centred / np.sqrt((centred**2).sum(0))
    product: Floats = scaled.T @ scaled
    return product.clip(-1, 1)


def resampled(
    groups: Sequence[Hashable], resamples: int, seed: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of each bootstrap sample: as many groups as there are, drawn with replacement, whole."""
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    rows = [np.array(each) for each in members.values()]
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.concatenate([rows[each] for each in generator.integers(0, len(rows), len(rows))])


def interval(drawn: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """The ends of the middle `level` of bootstrap samples `(R, ...)`, NaN left out."""
    tail = (1 - level) / 2
    known = np.isfinite(drawn).any(0)
    ends = np.full((2, *drawn.shape[1:]), np.nan)
    if drawn.size and known.any():
        ends[:, known] = np.nanquantile(drawn[:, known], [tail, 1 - tail], axis=0)
    return ends[0], ends[1]
