"""EM on many small sets of points at once: a fit of each, all as one batch.

Each fit takes the steps that it takes alone (`em.start.kmeans`, then `em.fit.fit_em` from one
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
from jensen.em.squarem import extrapolate
from jensen.em.start import CANDIDATES, NARROW, PSEUDO_COUNTS, ROUNDS, likeliest
from jensen.em.steps import m_step
from jensen.em.stream import Statistics, coefficients, expected_log_joint
from jensen.family.family import Components
from jensen.family.floor import Rounding
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture
from jensen.family.moments import Moments, PseudoCounts
from jensen.family.spherical import SphericalGaussian
from jensen.family.structures import Structure
from jensen.family.tied import TiedGaussian

_LOOK = 8
"""Iterations between two looks for components that are lost, as in `em.fit`."""

_WORKING_SET = 1 << 19
"""Distances of points from possible centres that are held at a time, 4 MB."""

_SAME = 1e-12
"""Deviations between two centres that are rounding."""

_KEYS = 1 << 20
"""Bytes of a chunk of the survey of one set: its draws come chunk by chunk."""


class Sets(NamedTuple):
    """M sets of points, those of each about its own origin, which is its mean as rounded to the
    data's dtype.

    x: `(M, N, D)` float64, 0 where there is no point. weight: `(M, N)`, 1 for a point, else 0.
    order: `(M, N)`, the order in which starts are drawn. uniform: `(M, K, C, T)`, the draws.
    mean, var: `(M, D)`. origin: `(M, D)`, of the data's dtype.
    """

    x: Tensor
    weight: Tensor
    order: Tensor
    uniform: Tensor
    mean: Tensor
    var: Tensor
    origin: Tensor

    @property
    def whole(self) -> bool:
        """Tell whether each set has all N points, once."""
        return bool((self.weight == 1).all())

    @property
    def sizes(self) -> Tensor:
        """Points of each set, `(M,)`."""
        return self.weight.sum(-1)

    def floor(self) -> Rounding:
        """The floor of each set's variances."""
        origin = self.origin.unsqueeze(-2)
        return Rounding.of(origin, self.var.unsqueeze(-2))


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


def draws(size: int, dim: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """The order `(size,)` and the draws `(K, C, T)` of the start of one fit to so many points, as
    that fit makes them.
    """
    generator = torch.Generator().manual_seed(seed)
    step = max(256, _KEYS // (8 * dim))
    keys = [
        torch.rand(min(step, size - start), generator=generator, dtype=torch.float64)
        for start in range(0, size, step)
    ]
    number = 2 + int(math.log(count))
    uniform = torch.zeros(count, CANDIDATES, number, dtype=torch.float64)
    uniform[0, :, :1] = torch.rand(CANDIDATES, 1, generator=generator, dtype=torch.float64)
    for place in range(1, count):
        uniform[place] = torch.rand(CANDIDATES, number, generator=generator, dtype=torch.float64)
    return torch.cat(keys).argsort(), uniform


# ---- the start ----------------------------------------------------------------------------------


def start(structure: Structure, sets: Sets, count: int) -> tuple[Mixture, Tensor]:
    """The likeliest mixture of k-means cells of each set, `(M, K)`, and whether it has too few
    different points, `(M,)`.
    """
    mean = sets.mean.unsqueeze(-2)
    deviation = sets.var.sqrt().unsqueeze(-2)
    standard = (sets.x - mean) / deviation
    whole = sets.whole
    if not whole:
        standard = torch.where(sets.weight.unsqueeze(-1) > 0, standard, 0.0)
    size = max(1, _WORKING_SET // (CANDIDATES * sets.uniform.shape[-1] * standard.shape[1]))
    blocks = zip(*(torch.split(part, size) for part in (standard, *sets)), strict=True)
    parts = []
    for x, *block in blocks:
        own = Sets(*block)
        centre, few = _seeds(x, own, whole)
        parts.append((_rounds(x, own.weight, centre), few))
    centre, few = (torch.cat(each) for each in zip(*parts, strict=True))
    place = mean.unsqueeze(1) + centre * deviation.unsqueeze(1)  # (M, C, K, D)
    one = (_alike(centre) == 0).all(1)  # then any candidate is the likeliest
    rows = [each.nonzero().squeeze(1) for each in (one, ~one)]
    chosen = []
    for at, most in zip(rows, (1, CANDIDATES), strict=True):
        if len(at):
            own = Sets(*(part[at] for part in sets))
            r = _cells(standard[at], centre[at][:, :most])
            chosen.append(_likeliest(structure, own, place[at][:, :most], r, whole))
    back = torch.cat(rows).argsort()
    return tree_map(lambda *each: torch.cat(each)[back], *chosen), few


def _likeliest(structure: Structure, sets: Sets, place: Tensor, r: Tensor, whole: bool) -> Mixture:
    """The likeliest mixture of cells `(M, C, K, N)` about `place` `(M, C, K, D)`, `(M, K)`."""
    r = r if whole else r * sets.weight[:, None, None]
    matrix = structure in (FullGaussian, TiedGaussian)
    features = _features(sets, FullGaussian if matrix else Gaussian)
    m = _moments(features, place, r, structure)
    variance = _variance_of_cells(sets, m, r, structure)
    beside = variance if structure is TiedGaussian else variance.unsqueeze(-2)
    prior = PSEUDO_COUNTS._replace(variance=beside.unsqueeze(1))
    about = Mixture(place[..., 0], _at(structure, place, sets.var))
    p = m_step(about, m, prior)
    if place.shape[1] == 1:
        return tree_map(lambda part: part[:, 0], p)
    best = likeliest(
        _log_likelihood(sets, p, features if structure in (FullGaussian, Gaussian) else None)
    )
    rows = torch.arange(len(place), device=place.device)
    return tree_map(lambda part: part[rows, best], p)


def _seeds(standard: Tensor, sets: Sets, whole: bool) -> tuple[Tensor, Tensor]:
    """Centres of greedy k-means++, `(M, C, K, D)`, as `em.start.kmeans_plus_plus` draws them."""
    size, count, several, number = sets.uniform.shape
    dim = standard.shape[-1]
    x = standard.gather(1, sets.order.unsqueeze(-1).expand(-1, -1, dim))
    weight = sets.weight if whole else sets.weight.gather(1, sets.order)
    last = (weight.sum(-1).long() - 1)[:, None, None]
    columns = tuple(x.mT.contiguous().unbind(1))
    points = x.flatten(0, 1)
    first = (x.shape[1] * torch.arange(size, device=x.device))[:, None, None]
    few = torch.zeros(size, dtype=torch.bool, device=x.device)
    nearest: Tensor | None = None
    centres: list[Tensor] = []
    for place in range(count):
        if nearest is None:
            odds = weight.cumsum(-1).unsqueeze(1).expand(-1, several, -1).contiguous()
        else:
            odds = (nearest if whole else nearest * weight.unsqueeze(1)).cumsum(-1)
            few |= (odds[..., -1] <= 0).any(-1)
        draw = sets.uniform[:, place, :, : number if place else 1] * odds[..., -1:]
        index = torch.searchsorted(odds, draw, right=True).minimum(last) + first
        candidate = points.index_select(0, index.flatten()).view(*index.shape, dim)  # (M, C, T, D)
        if count == 1:
            return candidate, few
        left = _square(candidate, columns)
        if nearest is not None:
            left = torch.minimum(left, nearest.unsqueeze(2), out=left)
        total = left.sum(-1) if whole else (left.flatten(1, 2) @ weight.unsqueeze(-1))
        best = total.view(-1, index.shape[-1]).argmin(-1)
        best += index.shape[-1] * torch.arange(len(best), device=best.device)
        nearest = left.flatten(0, 2).index_select(0, best).view(size, several, -1)
        centres.append(candidate.flatten(0, 2).index_select(0, best).view(size, several, dim))
    return torch.stack(centres, 2), few


def _square(candidate: Tensor, columns: tuple[Tensor, ...]) -> Tensor:
    """Squared distances of `(M, C, T, D)` from points, D columns `(M, N)`, `(M, C, T, N)`."""
    total: Tensor | None = None
    for place, column in zip(candidate.unbind(-1), columns, strict=True):
        gap = place.unsqueeze(-1) - column[:, None, None]
        total = gap.square_() if total is None else total.addcmul_(gap, gap)
    assert total is not None
    return total


def _rounds(x: Tensor, weight: Tensor, centre: Tensor) -> Tensor:
    """Those of k-means from the centres `(M, C, K, D)`. A candidate that comes to where another of
    its set is goes no further, and ends where that does.
    """
    size, several, count, dim = centre.shape
    counted = torch.cat([torch.ones_like(x[..., :1]), x], -1) * weight.unsqueeze(-1)
    whole = counted.sum(1)
    counted = counted.mT.contiguous()  # rows that lie as those of `inside` are read twice as fast
    live = every = torch.arange(size * several, device=x.device)
    first = several * torch.arange(size, device=x.device).unsqueeze(1)
    found = centre.flatten(0, 1)
    leader = live  # where each goes, which may be where another does
    group = several
    for _ in range(ROUNDS):
        at = live // several if group == 1 else slice(None)
        now = found[live]
        inside = _nearer(x[at], now.view(-1, group, count, dim)).flatten(1, 2)
        sums = (inside @ counted[at].mT).view(len(live), count - 1, dim + 1)
        rest = whole[live // several].unsqueeze(1) - sums.sum(1, keepdim=True)
        sums = torch.cat([rest, sums], 1)
        total = sums[..., :1]
        following = torch.where(total > 0, sums[..., 1:] / total.clamp(min=1e-300), now)
        moves = ((following - now).abs() > _SAME).flatten(1).any(1)
        found = found.index_copy(0, live, following)[leader]
        leader = (_alike(found.view(centre.shape)) + first).flatten()
        live = live[moves & (leader[live] == live)]
        if not len(live):
            break
        group = 1
        if 2 * len(live) > len(found):  # fewer of them take longer than all side by side
            live, group = every, several
    return found.view(centre.shape)


def _alike(centre: Tensor) -> Tensor:
    """The first candidate of each set with the same centres `(M, C, K, D)` in whatever order,
    `(M, C)`.
    """
    order = centre[..., :1].argsort(2).expand_as(centre)
    key = centre.gather(2, order).flatten(2)
    apart = (key.unsqueeze(1) - key.unsqueeze(2)).abs().amax(-1)
    return (apart <= _SAME).byte().argmax(-1)


def _nearer(x: Tensor, centre: Tensor) -> Tensor:
    """1 where one of the centres `(M, C, K, D)` but the first is a point's nearest, else 0,
    `(M, C, K - 1, N)`; of equally near ones the first is.
    """
    # squared distances less that of the first centre, and by 2
    half = 0.5 * centre.square().sum(-1, keepdim=True)
    beyond = (half[:, :, 1:] - half[:, :, :1]).flatten(1, 2)
    ahead = (centre[:, :, 1:] - centre[:, :, :1]).flatten(1, 2)
    distance = torch.baddbmm(beyond, ahead, x.mT, alpha=-1)
    distance = distance.view(*centre.shape[:2], centre.shape[2] - 1, x.shape[1])
    r = torch.empty_like(distance)  # in doubles, since bools take longer
    least: Tensor | None = None
    for place, each in enumerate(distance.unbind(2)):  # nearer than all before it
        if least is None:
            torch.lt(each, 0.0, out=r[:, :, place])
            least = each.clamp(max=0.0) if distance.shape[2] > 1 else each
        else:
            torch.lt(each, least, out=r[:, :, place])
            least = torch.minimum(least, each)
    for place in range(r.shape[2] - 2, -1, -1):
        r[:, :, place].mul_(1.0 - r[:, :, place + 1 :].sum(2))
    return r


def _cells(x: Tensor, centre: Tensor) -> Tensor:
    """1 where a centre `(M, C, K, D)` is a point's nearest, else 0, `(M, C, K, N)`."""
    r = _nearer(x, centre)
    return torch.cat([1.0 - r.sum(2, keepdim=True), r], 2)


def _moments(features: Tensor, place: Tensor, r: Tensor, structure: Structure) -> Moments:
    """The moments about `place` `(M, C, K, D)` under `r` `(M, C, K, N)`, of the `features` of points
    that are of full Gaussians for matrices, else of diagonal ones.
    """
    dim = place.shape[-1]
    matrix = structure in (FullGaussian, TiedGaussian)
    found = (features @ r.flatten(1, 2).mT).mT.view(*place.shape[:-1], -1)
    total, sums, squares = found.split([1, dim, found.shape[-1] - 1 - dim], -1)  # type: ignore[no-untyped-call]
    first = sums - total * place
    if not matrix:
        second = squares - place * (sums + first)
        second = second.sum(-1) if structure is SphericalGaussian else second
        return Moments(place, total.squeeze(-1), first, second)
    row, column = torch.triu_indices(dim, dim, device=place.device)
    second = squares.new_empty(*squares.shape[:-1], dim, dim)
    second[..., row, column] = second[..., column, row] = squares
    second -= sums.unsqueeze(-1) * place.unsqueeze(-2) + place.unsqueeze(-1) * first.unsqueeze(-2)
    second = second.sum(-3) if structure is TiedGaussian else second
    return Moments(place, total.squeeze(-1), first, second)


def _variance_of_cells(sets: Sets, m: Moments, r: Tensor, structure: Structure) -> Tensor:
    """`em.start.variance_of_cells` of each set, `(M, D)`, of the moments of its cells."""
    if structure is FullGaussian:
        m = m._replace(second=m.second.diagonal(dim1=-2, dim2=-1))
    elif structure is not Gaussian:
        m = _moments(_features(sets, Gaussian), m.origin, r, Gaussian)
    count = m.total.unsqueeze(-1)
    squares = (m.second - m.first.square() / count.clamp(min=1e-300)).sum(-2)
    within = (squares / count.sum(-2)).amin(1)
    return torch.where((within < NARROW * sets.var) & (within > 0), within, sets.var)


def _at(structure: Structure, mean: Tensor, variance: Tensor) -> Components:
    """`structure.at` of each set's own variance, `(M, D)`."""
    own = variance[:, None, None]
    if structure is Gaussian:
        return Gaussian(mean, own.log().expand(mean.shape))
    if structure is SphericalGaussian:
        return SphericalGaussian(mean, own.mean(-1).log().expand(mean.shape[:-1]))
    factor = variance.sqrt().diag_embed()
    if structure is TiedGaussian:
        return TiedGaussian(mean, factor[:, None].expand(*mean.shape[:-2], *factor.shape[-2:]))
    return FullGaussian(mean, factor[:, None, None].expand(*mean.shape, mean.shape[-1]))


def _log_likelihood(sets: Sets, p: Mixture, features: Tensor | None) -> Tensor:
    """The log-likelihood `(M, C)` of mixtures `(M, C, K)`; of `features` where they are there."""
    coefficient = coefficients(p)
    features = _features(sets, type(p.components)) if features is None else features
    joint = coefficient.flatten(1, 2) @ features
    joint = joint.view(*coefficient.shape[:-1], -1)
    top = joint.amax(2, keepdim=True)
    value = joint.sub_(top).clamp_(min=-650.0).exp_().sum(2).log_().add_(top.squeeze(2))
    total = (value @ sets.weight.unsqueeze(-1)).squeeze(-1)
    shared = _shared(sets, type(p.components))
    common = p.components.common(shared.unsqueeze(1))
    return total if common is None else total + common


# ---- EM -----------------------------------------------------------------------------------------


def _features(sets: Sets, structure: type) -> Tensor:
    """The statistics of the points, `(M, P, N)`."""
    x = sets.x.mT
    dim = x.shape[1]
    if structure is not FullGaussian:
        rest = x[:, :0] if structure is TiedGaussian else x.square()
        rest = rest.sum(1, keepdim=True) if structure is SphericalGaussian else rest
        return torch.cat([torch.ones_like(x[:, :1]), x, rest], 1)
    found = x.new_empty(len(x), 1 + dim + dim * (dim + 1) // 2, x.shape[2])
    found[:, 0] = 1
    points = found[:, 1 : 1 + dim]
    points.copy_(x)
    row = 1 + dim
    for i in range(dim):  # a third of the time that an index of pairs takes
        torch.mul(points[:, i:], points[:, i : i + 1], out=found[:, row : row + dim - i])
        row += dim - i
    return found


def _shared(sets: Sets, structure: type) -> Tensor:
    """sum x x', `(M, D, D)`, of which tied covariances alone are made."""
    if structure is not TiedGaussian:
        return sets.x.new_zeros(len(sets.x), *2 * sets.x.shape[-1:])
    return (sets.x * sets.weight.unsqueeze(-1)).mT @ sets.x


class _Look(NamedTuple):
    """One E-step's word on the rows of the batch, `(R,)` each, sums over the data: see
    `em.fit._Look`.
    """

    rows: Tensor
    figures: Tensor
    accepted: Tensor
    follows: bool


@final
class _Fits:
    """The fits under way: row i is the set `alive[i]`."""

    def __init__(self, sets: Sets, p: Mixture, tolerance: float, accelerate: bool) -> None:
        self.tolerance = tolerance
        self.accelerate = accelerate
        self.structure = type(p.components)
        self.count = sets.sizes
        self.features = _features(sets, self.structure)
        self.weight = sets.weight
        self.whole = sets.whole
        self.shared = _shared(sets, self.structure)
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
        """The E-step, as `em.stream.Stream` makes it."""
        joint = coefficient @ self.features
        top = joint.amax(1, keepdim=True)
        r = joint.sub_(top).clamp_(min=-650.0).exp_()
        evidence = r.sum(1, keepdim=True)
        log_prob = evidence.log().add_(top).squeeze(1)
        if self.whole:
            r = r.div_(evidence)
            total = log_prob.sum(-1)
        else:
            r = r.mul_(self.weight.unsqueeze(1) / evidence)
            total = (log_prob * self.weight).sum(-1)
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
        self.ends.collapsed[at] = on_floor(best, self._floor(leaving))
        self.ends.alone[at] = self.odd[leaving]

    def _leave(self, stay: Tensor, following: Mixture) -> Mixture:
        at = stay.nonzero().squeeze(1)

        def kept(part: Tensor) -> Tensor:
            return part.index_select(0, at)

        for name in ("alive", "last", "gain", "limit", "length", "entropy", "count", "features"):
            setattr(self, name, kept(getattr(self, name)))
        self.weight = self.weight if self.whole else kept(self.weight)
        self.shared = kept(self.shared)
        self.floor = self._floor(at)
        self.seen = tree_map(kept, self.statistics)
        self.best = tree_map(kept, self.best)
        self.cycle = [tree_map(kept, each) for each in self.cycle]
        self.p = tree_map(kept, self.p)
        return tree_map(kept, following)

    def _turn(self, following: Mixture) -> Mixture:
        """As `em.running.Running.turn`."""
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


def fit(sets: Sets, p: Mixture, tolerance: float, most: int, accelerate: bool) -> Ends:
    """EM from the mixtures `p` `(M, K)`, each until a step gains less than `tolerance`, or `most`
    M-steps were made.
    """
    fits = _Fits(sets, p, tolerance, accelerate)
    while len(fits.alive):
        fits.move(fits.look(), most)
    return fits.ends._replace(history=fits.history(len(sets.x)))


def _needs_deviations(p: Mixture, coefficient: Tensor) -> Tensor:
    """`em.local.needed` of each row, `(R,)`."""
    found = coefficient[..., 0].amin(-1) < -0.5 * SPREAD
    matrix = isinstance(p.components, TiedGaussian | FullGaussian)
    if not matrix or p.components.mean.shape[-1] == 1:
        return found
    return found | (ridge(p.components).amax(-1) > SPREAD)


def _leaves(p: Mixture) -> list[Tensor]:
    return [p.log_weight, *p.components]
