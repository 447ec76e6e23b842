"""Starts of EM: centres among the points, and the mixtures that k-means cells about them make."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from jensen.base.errors import InputError
from jensen.base.tree import tree_map
from jensen.em.local import gathered
from jensen.em.steps import m_step
from jensen.family.family import Components, GaussianComponents
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture, log_prob, own
from jensen.family.moments import Moments, PseudoCounts, add

PSEUDO_COUNTS = PseudoCounts(weight=1.0, covariance=2.0)
"""For the moments of a cell, which may hold one point."""

NARROW = 0.01
"""A cell's part of a column's variance, below which the column says nothing of the width of
clusters.
"""

CANDIDATES = 5
"""Mixtures of k-means for each start. Beside one, single fits reach the best known optimum half as
often again.
"""

ROUNDS = 10
"""The most rounds of k-means."""

_SAME = 1e-10
"""Part of a log-likelihood that is rounding."""

_LIMIT = 1 << 20
"""Elements of a temporary `(..., K, n, D)`: 8 MiB of float64."""

_FEW = 64
"""Points of a part, below which their features are too many."""

Index = Tensor | int
"""One place along an axis, or `(n,)` of them."""


class Sample(NamedTuple):
    """Points to start among: `x` `(M, D)` without NaN, their `weights` `(M,)`, and the data's
    `mean` and `var` `(D,)`.
    """

    x: Tensor
    weights: Tensor
    mean: Tensor
    var: Tensor

    def standardised(self) -> Tensor:
        return (self.x - self.mean) / self.var.sqrt()


def kmeans_plus_plus(
    x: Tensor, weights: Tensor, count: int, starts: int, generator: torch.Generator
) -> Tensor:
    """`starts` times `count` centres among points `(M, D)`, `(starts, count, D)`, each far from
    those before it.

    Of 2 + log `count` candidates, drawn in proportion to their weight times their squared distance
    from the nearest centre, the one is kept that leaves the least sum of those: greedy k-means++
    (Arthur & Vassilvitskii 2007, section 5; analysed by Grunau, Ozudogru, Rozhon & Tetek 2023,
    arXiv 2207.13949).
    """
    candidates = 2 + int(math.log(count))
    nearest = torch.ones(starts, len(x)).to(x)
    centres: list[Tensor] = []
    for _ in range(count):
        odds = (nearest * weights).cumsum(-1)
        if bool((odds[:, -1] <= 0).any()):
            _check_distinct(len(centres), count)
        number = candidates if centres else 1
        draw = (
            torch.rand(starts, number, generator=generator, dtype=torch.float64).to(x)
            * odds[:, -1:]
        )
        candidate = x[torch.searchsorted(odds, draw, right=True).clamp(max=len(x) - 1)]
        # Not by products: the distance of a point from its copies is 0.
        left = torch.cdist(candidate, x, compute_mode="donot_use_mm_for_euclid_dist").square_()
        if centres:
            left = torch.minimum(left, nearest.unsqueeze(1))
        best = (left @ weights).argmin(1)
        row = torch.arange(starts, device=x.device)
        nearest = left[row, best]
        centres.append(candidate[row, best])
    return torch.stack(centres, 1)


def kmeans(
    structure: type[GaussianComponents],
    sample: Sample,
    count: int,
    starts: int,
    generator: torch.Generator,
) -> Mixture:
    """Starts `(starts, count)`, of which each is the most probable of `CANDIDATES` mixtures of
    k-means cells.
    """
    at_a_time = max(1, _LIMIT // (CANDIDATES * count * len(sample.x)))
    parts = []
    for done in range(0, starts, at_a_time):
        several = min(at_a_time, starts - done)
        p = _of_cells(structure, sample, count, several * CANDIDATES, generator)
        value = log_prob(sample.x, p) @ sample.weights
        best = likeliest(value.reshape(several, CANDIDATES))
        chosen = best + CANDIDATES * torch.arange(several, device=best.device)
        parts.append(tree_map(lambda part: part[chosen], p))  # noqa: B023
    return tree_map(lambda *each: torch.cat(each), *parts)


def likeliest(value: Tensor) -> Tensor:
    """The first of the candidates `(R, C)` with the highest value, `(R,)`: of those that are equal
    but for rounding, since they often are the same cells in another order.
    """
    top = value.amax(1, keepdim=True)
    return (value >= top - _SAME * top.abs()).byte().argmax(1)


def _of_cells(
    structure: type[GaussianComponents],
    sample: Sample,
    count: int,
    starts: int,
    generator: torch.Generator,
) -> Mixture:
    """Mixtures `(starts, count)` of the cells of k-means, from greedy k-means++ centres of
    standardised points.

    The moments of the cells give weights and covariances, with a few pseudo-counts.
    """
    x = sample.standardised()
    centre = centres(x, sample.weights, count, starts, generator)
    mean = sample.mean + centre * sample.var.sqrt()
    p = Mixture(centre[..., 0], structure.at(mean, sample.var))
    prior = PSEUDO_COUNTS._replace(variance=variance_of_cells(sample, mean))
    return m_step(p, moments_of_cells(p.components, sample, nearest(x, centre)), prior)


def centres(
    x: Tensor, weights: Tensor, count: int, starts: int, generator: torch.Generator
) -> Tensor:
    """The centres of k-means from greedy k-means++ ones, of points `(M, F)`, `(starts, count, F)`."""
    centre = kmeans_plus_plus(x, weights, count, starts, generator)
    for _ in range(ROUNDS):
        last = centre
        r = cells(x, centre) * weights.unsqueeze(-1)
        total = r.sum(-2).unsqueeze(-1)
        centre = torch.where(total > 0, r.mT @ x / total.clamp(min=1e-300), centre)
        if torch.equal(centre, last):
            break
    return centre


def variance_of_cells(sample: Sample, mean: Tensor) -> Tensor:
    """The variances to start from at means `(R, K, D)`, `(D,)`: the data's, unless a far outlier or
    far clusters make those.

    Components much wider than the clusters are all alike, and stay so. So where the variance of the
    cells, of which each point is in that of its nearest mean, is less than a hundredth of a
    column's, it is that of the start with the least.
    """
    near = nearest(sample.standardised(), (mean - sample.mean) / sample.var.sqrt())
    m = moments_of_cells(Gaussian.at(mean, sample.var), sample, near)
    count = m.total.unsqueeze(-1)
    squares = (m.second - m.first.square() / count.clamp(min=1e-300)).sum(-2)
    within = (squares / count.sum(-2)).amin(0)
    return torch.where((within < NARROW * sample.var) & (within > 0), within, sample.var)


def moments_about(components: Components, x: Tensor, r: Tensor) -> Moments:
    """The moments of points `(M, D)` about the means, under `r` `(..., M, K)`, in parts."""
    size = max(1, _LIMIT // components.mean.numel())
    parts = zip(torch.split(x, size), torch.split(r, size, -2), strict=True)
    return add(
        [gathered(components, own.mT, part - components.mean.unsqueeze(-2)) for part, own in parts]
    )


def moments_of_cells(components: Components, sample: Sample, near: Tensor) -> Moments:
    """The same where each point belongs to one of the means, `near` `(R, M)` int64: of its deviation
    from that alone, as long as its features are fewer than a part holds.
    """
    mean = components.mean
    starts, count, dim = mean.shape
    r = one_hot(near, count).to(mean) * sample.weights.unsqueeze(-1)
    layout = components.layout(dim)
    size = _LIMIT // (starts * layout.width)
    if size < _FEW:
        return moments_about(components, sample.x, r)
    parts = []
    for x, mine, label in zip(
        torch.split(sample.x, size),
        torch.split(r, size, -2),
        torch.split(near, size, -1),
        strict=True,
    ):
        deviation = x - mean.take_along_dim(label.unsqueeze(-1), 1)
        features = mean.new_ones(layout.width, starts * len(x))
        points = features[1 : 1 + dim]
        points.copy_(deviation.flatten(0, 1).T)
        layout.fill(points, features)
        each = features.view(layout.width, starts, -1).transpose(0, 1)
        weights = mine.sum(-1)
        shared = [layout.shared(*one) for one in zip(each, weights, strict=True)]
        whole = None if shared[0] is None else torch.stack([s for s in shared if s is not None])
        parts.append(layout.collect((each @ mine).mT, whole)._replace(origin=mean))
    return add(parts)


def nearest(x: Tensor, centre: Tensor) -> Tensor:
    """Each point's nearest of the centres `(..., K, F)`, `(..., M)` int64."""
    return torch.cdist(x, centre).argmin(-1)


def cells(x: Tensor, centre: Tensor) -> Tensor:
    """`(..., M, K)`: 1 where a centre is a point's nearest, else 0."""
    return one_hot(nearest(x, centre), centre.shape[-2]).to(x)


def scattered(
    structure: type[GaussianComponents],
    sample: Sample,
    count: int,
    starts: int,
    generator: torch.Generator,
) -> Mixture:
    """Starts `(starts, count)` at different points, drawn by weight, with `variance_of_cells` and
    equal weights.
    """
    x, copies = torch.unique(sample.x, dim=0, return_inverse=True)
    _check_distinct(len(x), count)
    weights = sample.weights.new_zeros(len(x)).index_add_(0, copies, sample.weights)
    # The first arrivals of Poisson processes with these rates: a draw without replacement
    # (Efraimidis & Spirakis 2006).
    arrival = (
        -torch.rand(starts, len(x), generator=generator, dtype=torch.float64).log().to(x) / weights
    )
    mean = x[arrival.topk(count, largest=False).indices]
    return Mixture(
        mean.new_full(mean.shape[:2], -math.log(count)),
        structure.at(mean, variance_of_cells(sample, mean)),
    )


def settle(p: Mixture, row: Index, component: Index, donor: Index, place: Tensor) -> None:
    """Move components of `p` `(R, K)`, in place, to places `(n, D)`: each takes half its donor's
    weight, and its covariance.
    """
    p.log_weight[row, donor] -= math.log(2)
    p.log_weight[row, component] = p.log_weight[row, donor]
    for part in own(p.components):
        part[row, component] = part[row, donor]
    p.components.mean[row, component] = place


def _check_distinct(found: int, count: int) -> None:
    if found < count:
        raise InputError(
            f"x has only {found} different points: expected at least {count}, one for each"
            " component"
        )
