"""The standing, by one criterion, of the run that another chooses."""

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from jensen.reports.ranks import LEVEL, RESAMPLES, Interval, interval, resampled


def beaten(
    criterion: npt.ArrayLike,
    score: npt.ArrayLike,
    groups: Sequence[Hashable],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The share of runs whose score is below that of the run of the largest criterion; ties count
    half, so a criterion that knows nothing beats a half of them on average.

    The interval is that of samples of whole groups, as in `ranks.rank_correlations`. Runs that lack
    either are left out.

    >>> beaten([1, 2, 3, 4], [5, 7, 6, 8], [0, 1, 2, 3]).value
    0.875
    """
    pair = np.stack([np.asarray(criterion, np.float64), np.asarray(score, np.float64)], 1)
    kept = np.isfinite(pair.sum(1))
    if not kept.any():
        return Interval(np.nan, np.nan, np.nan)
    known = pair[kept]
    same = [group for group, has in zip(groups, kept.tolist(), strict=True) if has]
    drawn = np.array([_beaten(known[rows]) for rows in resampled(same, resamples, seed)])
    low, high = interval(drawn[:, None], level)
    return Interval(_beaten(known), float(low[0]), float(high[0]))


def _beaten(pair: npt.NDArray[np.float64]) -> float:
    best = pair[pair[:, 0].argmax(), 1]
    return float(((pair[:, 1] < best) + 0.5 * (pair[:, 1] == best)).mean())
