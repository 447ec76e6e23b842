"""Draws of points that share a factor's value: what the interventional scores are estimated from.

The papers fix a factor, draw all others independently and uniformly, and render: that takes the
full grid, or a renderer. Here the points that hold a value are drawn from, with replacement, so any
data set with factors will do, a subset of a grid and held-out combinations included. On a full grid
the two agree. Elsewhere they differ in two ways:

* The other factors follow their distribution among the points that hold the value, so a factor that
goes with the fixed
  one hardly varies either: correlated factors are not told apart, as no score of a fixed data set
  can.
* A value that few points hold gives repeated points, hence variances that are too small, in all
latents alike. A value
  that only one point holds says nothing about variance and is left out.

Values are drawn uniformly, as on a grid, not as often as they occur; so a rare value counts as much
as a common one.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jensen.scores.inputs import Labels, numbered


class Groups(NamedTuple):
    """The points of each value of each factor. Group g is `rows[start[g] : start[g] + size[g]]`."""

    rows: npt.NDArray[np.int64]  # (F N,)
    start: npt.NDArray[np.int64]  # (G,)
    size: npt.NDArray[np.int64]  # (G,) each at least 2
    first: npt.NDArray[np.int64]  # (K,) the first group of each usable factor
    values: npt.NDArray[np.int64]  # (K,) how many groups it has
    factors: npt.NDArray[np.int64]  # (K,) which column it is


def groups(factors: Labels) -> Groups:
    """The groups of `factors` `(N, F)`: of factors with at least two values, the values that at
    least two points hold.
    """
    rows = []
    start = []
    size = []
    first = []
    values = []
    usable = []
    count = 0
    for k, column in enumerate(numbered(factors).T):
        counts = np.bincount(column)
        shared = counts > 1
        rows.append(np.argsort(column, kind="stable"))
        if len(counts) > 1 and shared.any():
            start.append(k * len(column) + (np.cumsum(counts) - counts)[shared])
            size.append(counts[shared])
            first.append(count)
            values.append(int(shared.sum()))
            usable.append(k)
            count += values[-1]
    empty = [np.zeros(0, np.int64)]
    whole = [np.concatenate(parts or empty) for parts in (rows, start, size)]
    return Groups(*whole, *(np.array(part, np.int64) for part in (first, values, usable)))


def draw_groups(
    rng: np.random.Generator, found: Groups, factor: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """A group of each `factor` (a position in `found.factors`; any shape), its values equally
    likely.
    """
    return found.first[factor] + (rng.random(factor.shape) * found.values[factor]).astype(np.int64)


def draw_rows(
    rng: np.random.Generator, found: Groups, group: npt.NDArray[np.int64], count: int
) -> npt.NDArray[np.int64]:
    """`count` rows of each `group` (any shape), with replacement: `(*shape, count)`."""
    place = (rng.random((*group.shape, count)) * found.size[group][..., None]).astype(np.int64)
    return found.rows[found.start[group][..., None] + place]
