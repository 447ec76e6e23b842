"""The starts of a fit that still run, a row each, and how the others ended."""

import math
from collections.abc import Collection
from typing import NamedTuple, final

import torch
from torch import Tensor

from jensen.base.device import sent
from jensen.base.replay import Replayed
from jensen.base.tree import tree_map, tree_where
from jensen.em.collapse import on_floor
from jensen.em.coordinates import coordinates, reach
from jensen.em.local import Local, merged, picked
from jensen.em.squarem import extrapolate
from jensen.em.steps import Prior
from jensen.em.stream import Statistics
from jensen.family.mixture import Mixture, reordered

_MET = 0.05
"""Two starts this close in all parameters (`coordinates.reach`) are on their way to one maximum."""

_HOPELESS = 100
"""Steps of the last gain that a start may be behind the best: after more than eight steps few catch
up with more.
"""


class End(NamedTuple):
    """The end of one start.

    upright: no component is on the floor, where its density is as high as the floor is low, and no
        two are one.
    dropped: another start goes on for it.
    """

    mixture: Mixture
    objective: float
    iterations: int
    upright: bool
    converged: bool = False
    dropped: bool = False
    failure: str | None = None

    @property
    def rank(self) -> tuple[bool, bool, bool, float, bool]:
        """The order of ends, the best last. One that was dropped may be about to collapse, or
        higher by rounding alone.
        """
        return self.failure is None, not self.dropped, self.upright, self.objective, self.converged


@final
class Running:
    """The starts that still run, a row each.

    alive: which starts they are.
    p: the parameters to look at next. best, last, seen: the last ones accepted, their objective and
        statistics.
    phase: 2 where `p` was extrapolated, else 0 or 1, EM iterates, which `cycle` collects.
    limit, length: `(R,)`, the most steps to extrapolate by, and those of the last time.
    """

    def __init__(self, p: Mixture) -> None:
        self.alive = list(range(len(p.log_weight)))
        self.p = p
        self.best = p
        self.limit = torch.full_like(p.log_weight[:, 0], 4)
        self.length = self.limit
        self.extrapolate = Replayed("SQUAREM", extrapolate)
        self.begin()

    def begin(self) -> None:
        """Forget what the objective was: the next one is of other components, or of other
        rounding.
        """
        self.last = [-math.inf for _ in self.alive]
        self.gain = [math.inf for _ in self.alive]
        self.seen: Statistics | Local | None = None
        self.phase = 0
        self.cycle: list[Mixture] = []

    @property
    def statistics(self) -> Statistics | Local:
        assert self.seen is not None
        return self.seen

    def accept(self, found: Statistics | Local, objective: list[float]) -> Tensor:
        """Take `p`, but for extrapolated ones that have a lower objective; 1 where it was taken,
        `(R,)`.
        """
        pairs = list(zip(objective, self.last, strict=True))
        if self.phase != 2:
            self.gain = [new - old for new, old in pairs]
        better = [self.phase != 2 or (math.isfinite(new) and new >= old) for new, old in pairs]
        chosen = sent(better, self.limit.device)
        # where steps still grow, on leaving a saddle, long ones fail again and again
        if self.phase == 2:
            longer = torch.where(self.length < self.limit, self.limit, 4 * self.limit)
            self.limit = torch.where(chosen, longer, (self.limit / 4).clamp(min=2))
        if all(better):
            self.best = self.p
            self.last = objective
            self.seen = found
        else:  # where extrapolation failed everything is as before it, and the next iterate the one it was to replace
            self.best = tree_where(chosen, self.p, self.best)
            self.seen = merged(chosen, found, self.statistics, self.p)
            self.last = [new if ok else old for (new, old), ok in zip(pairs, better, strict=True)]
        return chosen.to(self.limit)

    def turn(self, following: Mixture) -> Mixture:
        """The place to look at after the EM iterate `following`: there, or after two of them beyond
        it.
        """
        self.cycle = [*self.cycle, self.p] if self.phase < 2 else []
        self.phase = (self.phase + 1) % 3
        if self.phase == 2:
            first, second = self.cycle
            following, self.length = self.extrapolate(first, second, following, self.limit)
        return following

    def leave(self, rows: Collection[int], following: Mixture | None = None) -> Mixture:
        """Drop `rows`, and return `following`, or `p`, without them."""
        following = self.p if following is None else following
        if not rows:
            return following
        kept = [row for row in range(len(self.alive)) if row not in rows]
        at = torch.tensor(kept, dtype=torch.long, device=self.limit.device)
        self.alive = [self.alive[row] for row in kept]
        self.last = [self.last[row] for row in kept]
        self.gain = [self.gain[row] for row in kept]
        self.p = _rows(self.p, at)
        self.best = _rows(self.best, at)
        self.cycle = [_rows(each, at) for each in self.cycle]
        self.seen = None if self.seen is None else picked(self.seen, at)
        self.limit = self.limit[at]
        self.length = self.length[at]
        return _rows(following, at)


def _rows(p: Mixture, at: Tensor) -> Mixture:
    return tree_map(lambda part: part[at], p)


def upright(p: Mixture, prior: Prior) -> list[bool]:
    """Tell which of the starts `p` `(R, K)` have no component on the floor."""
    if not prior.has_floor:
        return [True] * len(p.log_weight)
    return (~on_floor(p, getattr(prior, "floor", 0.0)).any(-1)).tolist()


def needless(running: Running, ends: list[End], sigma: Tensor, prior: Prior) -> set[int]:
    """The rows that fall too far behind, or are on the way to where a better one, or a start that
    has ended, is already.
    """
    found = _hopeless(running, ends, prior)
    every = [tree_map(lambda part: part[row], running.best) for row in range(len(running.alive))]  # noqa: B023
    every += [each.mixture for each in ends]
    weights = torch.stack([p.log_weight for p in every]).sort(-1).values
    near = ((weights.unsqueeze(1) - weights).abs().amax(-1) < _MET).tolist()
    ahead = list(range(len(running.alive), len(every)))
    for row in sorted(set(range(len(running.alive))) - found, key=lambda row: -running.last[row]):
        if any(near[row][other] and alike(every[row], every[other], sigma) for other in ahead):
            found.add(row)
        else:
            ahead.append(row)
    return found


def _hopeless(running: Running, ends: list[End], prior: Prior) -> set[int]:
    """The rows that are many of their last gains behind the best of those that stand upright, if
    any does.
    """
    standing = list(zip(upright(running.best, prior), running.last, strict=True))
    top = max([*standing, *((each.upright, each.objective) for each in ends)])[1]
    behind = [top - last for last in running.last]
    return {
        row
        for row, gain in enumerate(running.gain)
        if behind[row] > 0 and behind[row] > _HOPELESS * gain
    }


def alike(a: Mixture, b: Mixture, sigma: Tensor) -> bool:
    """Tell whether two mixtures `(K,)` are the same within `_MET`, whatever the order of their
    components.
    """
    match = torch.cdist(a.components.mean / sigma, b.components.mean / sigma).argmin(1)
    if len(set(match.tolist())) < len(match):
        return False
    return bool(reach(coordinates(reordered(b, match), a)) < _MET)
