"""Starts of EM on many small sets of points at once: those that `em.start.kmeans` makes of each."""

import math

import torch
from torch import Tensor

from jensen.base.tree import tree_map
from jensen.em.sets import Sets, Space, narrowed, responsibilities, shared, structure_of_features
from jensen.em.start import CANDIDATES, NARROW, PSEUDO_COUNTS, ROUNDS, likeliest
from jensen.em.steps import m_step
from jensen.em.stream import coefficients
from jensen.family.family import Components
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture
from jensen.family.moments import Moments
from jensen.family.spherical import SphericalGaussian
from jensen.family.structures import Structure
from jensen.family.tied import TiedGaussian

_WORKING_SET = 1 << 18
"""Distances of points from possible centres that are held at a time, 2 MB."""

_SAME = 1e-12
"""Deviations between two centres that are rounding."""

_KEYS = 1 << 20
"""Bytes of a chunk of the survey of one set: its draws come chunk by chunk."""


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


def start(structure: Structure, sets: Sets, known: Tensor, count: int) -> tuple[Mixture, Tensor]:
    """The likeliest mixture of k-means cells of each set, `(M, K)`, and whether it has too few
    different points, `(M,)`; `known` are the features of `structure_of_features`.
    """
    mean = sets.mean.unsqueeze(-1)
    deviation = sets.var.sqrt().unsqueeze(-1)
    standard = (sets.x - mean) / deviation
    whole = sets.whole
    if not whole:
        standard = torch.where(sets.weight.unsqueeze(1) > 0, standard, 0.0)
    space = Space(standard)
    centre, few = _all_seeds(space, standard, sets, whole)
    centre = _rounds(space, standard, sets.weight, centre)
    place = mean.mT.unsqueeze(1) + centre * deviation.mT.unsqueeze(1)  # (M, C, K, D)
    found = _likeliest(structure, sets, known, place[:, :1], _cells(space, standard, centre[:, :1]))
    several = (_alike(centre) != 0).any(1).nonzero().squeeze(1)  # else any is the likeliest
    if len(several):
        own = Sets(*(part[several] for part in sets))
        r = _cells(space, standard[several], centre[several])
        best = _likeliest(structure, own, known[several], place[several], r)
        found = tree_map(lambda part, new: part.index_copy(0, several, new), found, best)
    return found, few


def _likeliest(
    structure: Structure, sets: Sets, known: Tensor, place: Tensor, r: Tensor
) -> Mixture:
    """The likeliest mixture of cells `(M, C, K, N)` about `place` `(M, C, K, D)`, `(M, K)`."""
    m = _moments(known, place, r, structure)
    variance = _variance_of_cells(sets, known, m, r, structure)
    beside = variance if structure is TiedGaussian else variance.unsqueeze(-2)
    prior = PSEUDO_COUNTS._replace(variance=beside.unsqueeze(1))
    about = Mixture(place[..., 0], _at(structure, place, sets.var))
    p = m_step(about, m, prior)
    if place.shape[1] == 1:
        return tree_map(lambda part: part[:, 0], p)
    best = likeliest(_log_likelihood(Space(known), sets, p, known))
    rows = torch.arange(len(place), device=place.device)
    return tree_map(lambda part: part[rows, best], p)


# ---- k-means ------------------------------------------------------------------------------------


def _all_seeds(space: Space, standard: Tensor, sets: Sets, whole: bool) -> tuple[Tensor, Tensor]:
    """`_seeds` of all sets, in blocks."""
    each = sets.uniform.shape[2] * sets.uniform.shape[3] * standard.shape[2]
    size = max(1, _WORKING_SET // each)
    blocks = (torch.split(part, size) for part in (standard, sets.weight, sets.uniform))
    parts = [
        _seeds(space, x, weight, uniform, whole) for x, weight, uniform in zip(*blocks, strict=True)
    ]
    centre, few = (torch.cat(each) for each in zip(*parts, strict=True))
    return centre, few


def _seeds(
    space: Space, x: Tensor, weight: Tensor, uniform: Tensor, whole: bool
) -> tuple[Tensor, Tensor]:
    """Centres of greedy k-means++ among `(M, D, N)`, `(M, C, K, D)`, as
    `em.start.kmeans_plus_plus` draws them, and where there are too few of them, `(M,)`.
    """
    size, count, several, number = uniform.shape
    dim, points = x.shape[1:]
    last = (weight.sum(-1).long() - 1)[:, None, None]
    few = torch.zeros(size, dtype=torch.bool, device=x.device)
    odds = weight.cumsum(-1).unsqueeze(1)
    draw = uniform[:, 0, :, :1].mT  # of all candidates from the same odds
    index = torch.searchsorted(odds, draw * odds[..., -1:], right=True).minimum(last)
    centre = _picked(x, index.squeeze(1))  # (M, D, C)
    centres = [centre]
    nearest = None if count == 1 else _square(space, centre, x, space("0", size, several, points))
    for place in range(1, count):
        assert nearest is not None
        left = nearest if whole else nearest * weight.unsqueeze(1)
        odds = torch.cumsum(left, -1, out=space("odds", *nearest.shape))
        few |= (odds[..., -1] <= 0).any(-1)
        draw = uniform[:, place] * odds[..., -1:]
        index = torch.searchsorted(odds, draw, right=True).minimum(last)
        candidate = _picked(x, index)  # (M, D, C, T)
        left = space(str(1 + place % 2), size, several, number, points)
        left = _square(space, candidate, x, left)
        torch.minimum(left, nearest.unsqueeze(2), out=left)
        total = left.sum(-1) if whole else (left.flatten(1, 2) @ weight.unsqueeze(-1))
        best = total.view(size, several, number).argmin(-1)
        chosen = best[:, None, :, None].expand(-1, dim, -1, -1)
        centres.append(candidate.gather(3, chosen).squeeze(3))
        if place + 1 < count:
            best = best.flatten()
            best += number * torch.arange(len(best), device=best.device)
            nearest = left.flatten(0, 2).index_select(0, best).view(size, several, points)
    return torch.stack(centres, -1).permute(0, 2, 3, 1).contiguous(), few


def _picked(x: Tensor, index: Tensor) -> Tensor:
    """Those of the points `(M, D, N)` at `index` `(M, ...)`, `(M, D, ...)`."""
    at = index.flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
    return x.gather(2, at).view(*x.shape[:2], *index.shape[1:])


def _square(space: Space, candidate: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """Squared distances of `(M, D, C)` or `(M, D, C, T)` from points `(M, D, N)`, in `out` `(M, C, N)`
    or `(M, C, T, N)`.
    """
    column = x.view(*x.shape[:2], *[1] * (out.dim() - 2), x.shape[2])
    torch.sub(candidate[:, 0].unsqueeze(-1), column[:, 0], out=out).square_()
    for row in range(1, x.shape[1]):
        gap = space("gap", *out.shape)
        torch.sub(candidate[:, row].unsqueeze(-1), column[:, row], out=gap)
        out.addcmul_(gap, gap)
    return out


def _rounds(space: Space, x: Tensor, weight: Tensor, centre: Tensor) -> Tensor:
    """Those of k-means from the centres `(M, C, K, D)`. A candidate that comes to where another of
    its set is, while most still move, goes no further, and ends where that does.
    """
    size, several = centre.shape[:2]
    counted = torch.cat([weight.unsqueeze(1), x], 1)
    whole = counted.sum(-1)
    live = every = torch.arange(size * several, device=x.device)
    first = several * torch.arange(size, device=x.device).unsqueeze(1)
    found = centre.flatten(0, 1)
    leader = every  # where each goes, which may be where another does
    together = True
    for _ in range(ROUNDS):
        at = live // several
        now = found.index_select(0, live)
        if together:
            sums = _sums_of_cells(space, counted, None, now.view(centre.shape)).flatten(0, 1)
        else:
            sums = _sums_of_cells(space, counted, at, now.unsqueeze(1)).squeeze(1)
        rest = whole.index_select(0, at).unsqueeze(1) - sums.sum(1, keepdim=True)
        sums = torch.cat([rest, sums], 1)
        total = sums[..., :1]
        following = torch.where(total > 0, sums[..., 1:] / total.clamp(min=1e-300), now)
        found = found.index_copy(0, live, following)
        going = ((following - now).abs() > _SAME).flatten(1).any(1)
        if together:
            leader = (_alike(found.view(centre.shape)) + first).flatten()
            going &= leader == every
        live = live[going]
        if not len(live):
            break
        together &= 2 * len(live) > len(found)  # fewer of them take longer than all side by side
        live = every if together else live
    return found[leader].view(centre.shape)


def _sums_of_cells(space: Space, counted: Tensor, at: Tensor | None, centre: Tensor) -> Tensor:
    """Number and sum of the points in each cell but the first of the centres `(R, C, K, D)`,
    `(R, C, K - 1, 1 + D)`, of points `counted` `(M, 1 + D, N)`, whose first row is 1: each set's
    own, or those that are `at` `(R,)`.
    """
    size, several, count, dim = centre.shape
    found = centre.new_empty(size, several * (count - 1), 1 + dim)
    width = several * max(1, count - 1) + (0 if at is None else 1 + dim)
    block = max(1, _WORKING_SET // (width * counted.shape[2]))
    for start in range(0, size, block):
        part = slice(start, start + block)
        points = counted[part] if at is None else counted.index_select(0, at[part])
        inside = _nearer(space, points[:, 1:], centre[part])
        torch.bmm(inside.flatten(1, 2), points.mT, out=found[part])
    return found.view(size, several, count - 1, 1 + dim)


def _alike(centre: Tensor) -> Tensor:
    """The first candidate of each set with the same centres `(M, C, K, D)` in whatever order,
    `(M, C)`.
    """
    order = centre[..., :1].argsort(2).expand_as(centre)
    key = centre.gather(2, order).flatten(2).permute(2, 0, 1).contiguous()
    apart = (key.unsqueeze(2) - key.unsqueeze(3)).abs_().amax(0)
    return (apart <= _SAME).byte().argmax(-1)


def _nearer(space: Space, x: Tensor, centre: Tensor) -> Tensor:
    """1 where one of the centres `(M, C, K, D)` but the first is the nearest of the points
    `(M, D, N)`, else 0, `(M, C, K - 1, N)`; of equally near ones the first is.
    """
    size, several, count, _ = centre.shape
    shape = size, several, count - 1, x.shape[2]
    # squared distances less that of the first centre, and by 2
    half = 0.5 * centre.square().sum(-1, keepdim=True)
    beyond = (half[:, :, 1:] - half[:, :, :1]).flatten(1, 2)
    ahead = (centre[:, :, 1:] - centre[:, :, :1]).flatten(1, 2)
    distance = space("distance", *shape)
    torch.baddbmm(beyond, ahead, x, alpha=-1, out=distance.flatten(1, 2))
    if count == 2:
        return distance.lt_(0.0)  # in doubles, since bools take longer
    r = space("nearer", *shape)
    least: Tensor | None = None
    for place, each in enumerate(distance.unbind(2)):  # nearer than all before it
        if least is None:
            torch.lt(each, 0.0, out=r[:, :, place])
            least = each.clamp(max=0.0)
        else:
            torch.lt(each, least, out=r[:, :, place])
            least = torch.minimum(least, each)
    for place in range(count - 3, -1, -1):
        r[:, :, place].mul_(1.0 - r[:, :, place + 1 :].sum(2))
    return r


def _cells(space: Space, x: Tensor, centre: Tensor) -> Tensor:
    """1 where a centre `(M, C, K, D)` is the nearest of the points `(M, D, N)`, else 0,
    `(M, C, K, N)`.
    """
    later = _nearer(space, x, centre)
    r = space("cells", *centre.shape[:3], x.shape[2])
    r[:, :, 1:] = later
    torch.sub(1.0, later.sum(2), out=r[:, :, 0])
    return r


# ---- mixtures of the cells ----------------------------------------------------------------------


def _moments(known: Tensor, place: Tensor, r: Tensor, structure: Structure) -> Moments:
    """The moments about `place` `(M, C, K, D)` under `r` `(M, C, K, N)`, of the features that are
    `known`, of full Gaussians for matrices, else of diagonal ones.
    """
    dim = place.shape[-1]
    matrix = structure in (FullGaussian, TiedGaussian)
    found = (known @ r.flatten(1, 2).mT).mT.view(*place.shape[:-1], -1)
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


def _variance_of_cells(
    sets: Sets, known: Tensor, m: Moments, r: Tensor, structure: Structure
) -> Tensor:
    """`em.start.variance_of_cells` of each set, `(M, D)`, of the moments of its cells."""
    own = structure_of_features(structure)
    m = m if own is structure else _moments(known, m.origin, r, own)
    if own is FullGaussian:
        m = m._replace(second=m.second.diagonal(dim1=-2, dim2=-1))
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


def _log_likelihood(space: Space, sets: Sets, p: Mixture, known: Tensor) -> Tensor:
    """The log-likelihood `(M, C)` of mixtures `(M, C, K)`."""
    structure = type(p.components)
    own = narrowed(known, structure, sets.x.shape[1])
    coefficient = coefficients(p)
    first = coefficient[:, :, :1]
    others = coefficient[:, :, 1:] - first
    log_odds = (others.flatten(1, 2) @ own).view(*others.shape[:-1], -1)
    _, value = responsibilities(space, log_odds)
    value = value + (first.squeeze(2) @ own.sum(-1).unsqueeze(-1)).squeeze(-1)
    value = value - (sets.absent * math.log(coefficient.shape[2])).unsqueeze(1)
    common = p.components.common(shared(sets, structure).unsqueeze(1))
    return value if common is None else value + common
