"""EM on many small sets of points at once: a fit of each, all as one batch.

Each fit takes the steps that it takes alone (`em.many_start`, then `em.fit.fit_em` from one
start), with the same draws, so that it ends at the same parameters to rounding; those that have
ended leave the batch. A set with which anything out of the ordinary happens, such as a component
that is lost and seeded anew, leaves it too, and is left to be fitted alone.
"""

import math
from typing import NamedTuple, final

import torch
from torch import Tensor

from jensen.base.tree import tree_map, tree_where
from jensen.em import stream
from jensen.em.collapse import on_floor
from jensen.em.local import SPREAD
from jensen.em.precision import ridge
from jensen.em.sets import Sets, Space, narrowed, responsibilities, shared
from jensen.em.squarem import extrapolate
from jensen.em.steps import m_step
from jensen.em.stream import Statistics, coefficients, expected_log_joint
from jensen.family.floor import Rounding
from jensen.family.full import FullGaussian
from jensen.family.mixture import Mixture
from jensen.family.moments import PseudoCounts
from jensen.family.tied import TiedGaussian

_LOOK = 8
"""Iterations between two looks for components that are lost, as in `em.fit`."""


class Ends(NamedTuple):
    """The fits: mixtures `(M, K)` about the origins, and how each came about.

    alone: `(M,)`, those that have to be fitted alone, of which the rest is nothing.
    history: `(M, 6, I)`: the fields of `em.fit.Step`, NaN after the last of each.
    """

    mixture: Mixture
    log_likelihood: Tensor
    iterations: Tensor
    converged: Tensor
    collapsed: Tensor
    alone: Tensor
    history: Tensor


class _Look(NamedTuple):
    """One E-step's word on the rows of the batch, `(R,)` each, sums over the data: see
    `em.fit._Look`.
    """

    rows: Tensor
    figures: Tensor
    accepted: Tensor
    follows: bool


_OF_ROWS = (
    *("alive", "last", "gain", "limit", "length", "entropy"),
    *("count", "absent", "features", "sums", "shared"),
)
"""The fields of `_Fits` that have a row for each fit."""


@final
class _Fits:
    """The fits under way: row i is the set `alive[i]`."""

    def __init__(
        self, sets: Sets, known: Tensor, p: Mixture, tolerance: float, accelerate: bool
    ) -> None:
        self.tolerance = tolerance
        self.accelerate = accelerate
        self.structure = type(p.components)
        self.count = sets.sizes
        self.absent = sets.absent
        self.features = narrowed(known, self.structure, sets.x.shape[1])
        self.sums = self.features.sum(-1)
        self.shared = shared(sets, self.structure)
        self.space = Space(self.features)
        self.floor = sets.floor()
        self.alive = torch.arange(len(sets.x), device=sets.x.device)
        self.p = self.best = p
        self.last = torch.full_like(self.count, -math.inf)
        self.gain = torch.full_like(self.count, math.inf)
        self.limit = torch.full_like(self.count, 4)
        self.length = self.limit
        self.seen: Statistics | None = None
        self.entropy = torch.zeros_like(self.count)
        self.phase = 0
        self.cycle: list[Mixture] = []
        self.iteration = 0
        self.looks: list[_Look] = []
        size = len(sets.x)
        none = torch.zeros(size, dtype=torch.bool, device=sets.x.device)
        self.ends = Ends(
            tree_map(torch.clone, p),
            torch.full_like(self.count, math.nan),
            torch.zeros(size, dtype=torch.long, device=sets.x.device),
            none,
            torch.zeros_like(p.log_weight, dtype=torch.bool),
            none.clone(),
            torch.empty(0),
        )

    @property
    def prior(self) -> PseudoCounts:
        return PseudoCounts(floor=self.floor)

    def expect(self, coefficient: Tensor) -> Statistics:
        """The E-step, as `em.stream.Stream` makes it, of log-odds against the first component."""
        first = coefficient[:, :1]
        rows, components, _ = coefficient.shape
        log_odds = self.space("log_odds", rows, components - 1, self.features.shape[2])
        torch.bmm(coefficient[:, 1:] - first, self.features, out=log_odds)
        r, total = responsibilities(self.space, log_odds)
        total = total + torch.linalg.vecdot(first.squeeze(1), self.sums)
        total = total - self.absent * math.log(components)  # each of them has even odds
        common = self.p.components.common(self.shared)
        total = total if common is None else total + common
        return Statistics(total, (self.features @ r.mT).mT, self.shared)

    def look(self) -> Tensor:
        """One E-step; the rows that have converged, `(R,)`."""
        coefficient = coefficients(self.p)
        found = self.expect(coefficient)
        value = found.log_likelihood
        broken = ~value.isfinite() if self.phase != 2 else torch.zeros_like(value, dtype=torch.bool)
        self.odd = broken | _needs_deviations(self.p, coefficient)
        before = found if self.seen is None else self.seen
        q = expected_log_joint(self.p, coefficient, before)
        own = expected_log_joint(self.p, coefficient, found)
        accepted = self._accept(found)
        entropy = torch.where(accepted, value - own, self.entropy)
        figures = torch.stack([q, self.entropy, q + self.entropy, value - q - self.entropy, value])
        self.looks.append(_Look(self.alive, figures / self.count, accepted, len(self.looks) > 0))
        self.entropy = entropy
        if self.phase == 2 or not self.tolerance:
            return torch.zeros_like(accepted)
        return self.gain / self.count < self.tolerance

    def _accept(self, found: Statistics) -> Tensor:
        value = found.log_likelihood
        if self.phase != 2:
            self.gain = value - self.last
            self.best = self.p
            self.last = value
            self.seen = found
            return torch.ones_like(value, dtype=torch.bool)
        better = value.isfinite() & (value >= self.last)
        longer = torch.where(self.length < self.limit, self.limit, 4 * self.limit)
        self.limit = torch.where(better, longer, (self.limit / 4).clamp(min=2))
        self.best = tree_where(better, self.p, self.best)
        self.seen = tree_where(better, found, self.statistics)
        self.last = torch.where(better, value, self.last)
        return better

    @property
    def statistics(self) -> Statistics:
        assert self.seen is not None
        return self.seen

    def move(self, done: Tensor, most: int) -> None:
        """One M-step, after which rows leave: all of them at the last iteration."""
        following = m_step(self.best, stream.moments(self.best, self.statistics), self.prior)
        due = done if self.iteration % _LOOK != _LOOK - 1 else torch.ones_like(done)
        if bool(due.any()):
            self.odd[due] |= self._lost(tree_map(lambda part: part[due], following), due)
        last = self.iteration >= most
        leaving = done | self.odd | last
        if bool(leaving.any()):
            self._end(leaving, done)
            following = self._leave(~leaving, following)
        if not len(self.alive):
            return
        if self.accelerate:
            following = self._turn(following)
        self.p = following
        self.iteration += 1

    def _lost(self, p: Mixture, rows: Tensor) -> Tensor:
        """Tell whether a component of `rows` is to be seeded anew, as `em.reseed.lost` finds
        them.
        """
        empty = self.statistics.sums[rows][..., 0] < 0.5
        if self.structure is TiedGaussian:
            return empty.any(-1)
        flat = on_floor(p, self._floor(rows)) & ~empty
        return (empty | (flat & ~flat.all(-1, keepdim=True))).any(-1)

    def _floor(self, rows: Tensor) -> Rounding:
        return Rounding(self.floor.origin[rows], self.floor.least[rows], self.floor.shared)

    def _end(self, leaving: Tensor, done: Tensor) -> None:
        at = self.alive[leaving]
        best = tree_map(lambda part: part[leaving], self.best)
        for kept, now in zip(_leaves(self.ends.mixture), _leaves(best), strict=True):
            kept[at] = now
        self.ends.log_likelihood[at] = self.last[leaving]
        self.ends.iterations[at] = self.iteration
        self.ends.converged[at] = done[leaving]
        self.ends.alone[at] = self.odd[leaving]

    def _leave(self, stay: Tensor, following: Mixture) -> Mixture:
        at = stay.nonzero().squeeze(1)

        def kept(part: Tensor) -> Tensor:
            return part.index_select(0, at)

        for name in _OF_ROWS:
            setattr(self, name, kept(getattr(self, name)))
        self.floor = self._floor(at)
        self.seen = tree_map(kept, self.statistics)
        self.best = tree_map(kept, self.best)
        self.cycle = [tree_map(kept, each) for each in self.cycle]
        self.p = tree_map(kept, self.p)
        return tree_map(kept, following)

    def _turn(self, following: Mixture) -> Mixture:
        """Do as `em.running.Running.turn`."""
        self.cycle = [*self.cycle, self.p] if self.phase < 2 else []
        self.phase = (self.phase + 1) % 3
        if self.phase == 2:
            first, second = self.cycle
            following, self.length = extrapolate(first, second, following, self.limit)
        return following

    def history(self, size: int) -> Tensor:
        """The figures of the iterates that were accepted, each row's first, `(M, 6, I)`."""
        steps = [look for look in self.looks if look.follows]
        whole = self.count.new_full((size, len(steps), 6), math.nan)
        taken = torch.zeros(size, len(steps), dtype=torch.bool, device=whole.device)
        for place, look in enumerate(steps):
            whole[look.rows, place, :5] = look.figures.mT
            whole[look.rows, place, 5] = 0.0
            taken[look.rows, place] = look.accepted
        order = (~taken).long().argsort(dim=1, stable=True)
        sorted_ = whole.take_along_dim(order.unsqueeze(-1), 1)
        empty = ~taken.take_along_dim(order, 1)
        most = int(taken.sum(1).max()) if len(steps) else 0
        return sorted_.masked_fill(empty.unsqueeze(-1), math.nan)[:, :most].mT


def fit(
    sets: Sets, known: Tensor, p: Mixture, tolerance: float, most: int, accelerate: bool
) -> Ends:
    """EM from the mixtures `p` `(M, K)`, each until a step gains less than `tolerance`, or `most`
    M-steps were made; `known` are the sets' features.
    """
    fits = _Fits(sets, known, p, tolerance, accelerate)
    while len(fits.alive):
        fits.move(fits.look(), most)
    return fits.ends._replace(
        collapsed=on_floor(fits.ends.mixture, sets.floor()), history=fits.history(len(sets.x))
    )


def _needs_deviations(p: Mixture, coefficient: Tensor) -> Tensor:
    """`em.local.needed` of each row, `(R,)`."""
    found = coefficient[..., 0].amin(-1) < -0.5 * SPREAD
    matrix = isinstance(p.components, TiedGaussian | FullGaussian)
    if not matrix or p.components.mean.shape[-1] == 1:
        return found
    return found | (ridge(p.components).amax(-1) > SPREAD)


def _leaves(p: Mixture) -> list[Tensor]:
    return [p.log_weight, *p.components]
