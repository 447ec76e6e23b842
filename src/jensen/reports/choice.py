"""The setting that a criterion would choose, and how much of that is the luck of the seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000


class Choice(NamedTuple):
    """best: index of the group of the largest median. share: of resamples that each group wins;
    None with a seed too few.
    """

    best: int
    share: tuple[float, ...] | None
    seeds: int


def choose(values: Sequence[Sequence[float]], resamples: int = RESAMPLES) -> Choice:
    """The group of the largest median, and the share of bootstrap resamples in which each group has
    it.

    values: of each group, one a seed, larger is better; NaN is missing, and a group without a value
        cannot win.
    A resample draws as many seeds as there are from each group, with replacement and group by
    group; groups that tie share the win. `seeds` is the smallest number of a group that could win:
    with one there is nothing to resample.
    """
    known = [np.asarray(group, dtype=float)[np.isfinite(group)] for group in values]
    medians = np.array([np.median(group) if len(group) else -np.inf for group in known])
    seeds = min(len(group) for group in known if len(group))
    if seeds < 2:
        return Choice(int(medians.argmax()), None, seeds)
    generator = np.random.default_rng(0)
    drawn = np.full((resamples, len(known)), -np.inf)
    for column, group in enumerate(known):
        if len(group):
            drawn[:, column] = np.median(generator.choice(group, (resamples, len(group))), axis=1)
    wins = drawn == drawn.max(1, keepdims=True)
    share = (wins / wins.sum(1, keepdims=True)).mean(0)
    return Choice(int(medians.argmax()), tuple(share.tolist()), seeds)
