"""Components of independent columns, each of a family of its own: real numbers, zeros and ones,
counts, categories, or what one brings.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from jensen.family.column import Column, Sums
from jensen.family.floor import Rounding
from jensen.family.moments import FLAT, Moments, PseudoCounts


class Columns(NamedTuple):
    """K products of D columns, in this order.

    groups: columns of one family each, `(..., K, W)`; W may be 0.
    gaps: `(..., K, 1)` where values may be missing, which NaN stands for, else `(..., K, 0)`: a tuple of
        tensors alone can be stacked, mapped and saved.
    """

    groups: tuple[Column, ...]
    gaps: Tensor

    @property
    def mean(self) -> Tensor:
        """`(..., K, D)`, of categories the mean code."""
        return torch.cat([group.mean for group in self.groups], -1)

    @property
    def location(self) -> Tensor:
        """The means of continuous columns, and 0 of others, `(..., K, D)`."""
        means = [
            group.mean if group.continuous else torch.zeros_like(group.mean)
            for group in self.groups
        ]
        return torch.cat(means, -1)

    @property
    def spread(self) -> Tensor:
        """The factor by which a mean away from the origin magnifies the rounding of products about it, `(..., K)`:
        of normal columns the sum of mean^2 / variance.
        """
        about_own = self.shifted(-self.location)
        pairs = zip(self.groups, about_own.groups, strict=True)
        losses = [
            (own.natural().constant - group.natural().constant).sum(-1)
            for group, own in pairs
            if group.continuous
        ]
        return 2 * torch.stack([torch.zeros_like(self.mean[..., 0]), *losses]).sum(0)

    def log_density(self, x: Tensor) -> Tensor:
        origin = _centre(self)
        layout = self.layout(x.shape[-1])
        features = layout.features(x.double() - origin)
        density = (self.shifted(-origin).natural() @ features).mT
        if (base := layout.log_base(features)) is not None:
            density = density + base.unsqueeze(-1)
        return density.to(torch.promote_types(x.dtype, self.gaps.dtype))

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        origin = _centre(self)
        layout = self.layout(x.shape[-1])
        features = layout.features(x.double() - origin)
        found = layout.collect((features @ r.double()).mT, None)
        return found._replace(origin=origin.unsqueeze(0))

    def maximise(self, m: Moments, prior: PseudoCounts = FLAT) -> "Columns":
        """Each column's maximum; `prior.values` are points credited to each: spread evenly over a
        column's categories, half of them 1, or counts of `prior.mean`.
        """
        layout = self.layout(m.second.shape[-1])
        about = self.shifted(-m.origin)
        given = zip(about.groups, layout.sums(m), layout.priors(prior, m.origin), strict=True)
        groups = tuple(group.maximise(sums, own) for group, sums, own in given)
        return self._replace(groups=groups).shifted(m.origin)

    def log_prior(self, prior: PseudoCounts) -> Tensor:
        dim = self.mean.shape[-1]
        priors = self.layout(dim).priors(prior, self.gaps.new_zeros(dim))
        parts = [group.log_prior(own) for group, own in zip(self.groups, priors, strict=True)]
        return torch.stack(parts).sum(0)

    def natural(self) -> Tensor:
        constant, linear, more = zip(*(group.natural() for group in self.groups), strict=True)
        constants = torch.cat(constant, -1)
        gaps = self.gaps.shape[-1] > 0
        first = torch.zeros_like(constants[..., :1]) if gaps else constants.sum(-1, keepdim=True)
        seen = [constants] if gaps else []
        return torch.cat([first, *linear, *seen, *more], -1)

    def common(self, shared: Tensor) -> Tensor | None:
        """The part of log p(x) that no parameter enters, such as -sum log x! of counts."""
        return shared[..., 0, 0]

    def layout(self, dim: int) -> "ColumnsLayout":
        return ColumnsLayout(self.groups, self.gaps.shape[-1] > 0)

    def shifted(self, offset: Tensor) -> "Columns":
        """The components of points moved by `offset`, `(D,)` or `(..., K or 1, D)`, which only
        continuous columns can be.
        """
        places = self.layout(offset.shape[-1]).places
        moved = [
            group.shifted(offset[..., place]) if group.continuous else group
            for group, place in zip(self.groups, places, strict=True)
        ]
        return self._replace(groups=tuple(moved))

    def free(self, about: "Columns") -> Tensor:
        pairs = zip(self.groups, about.groups, strict=True)
        return torch.cat([ours.free(theirs) for ours, theirs in pairs], -1)

    def of_free(self, free: Tensor) -> "Columns":
        sizes = [group.free(group).shape[-1] for group in self.groups]
        pairs = zip(self.groups, torch.split(free, sizes, -1), strict=True)
        return self._replace(groups=tuple(group.of_free(part) for group, part in pairs))


@final
class ColumnsLayout:
    """1, the points, with gaps which of them are there, and each group's other statistics."""

    def __init__(self, groups: Sequence[Column], gaps: bool) -> None:
        self.groups = groups
        self.gaps = gaps
        self.places = slices(0, [group.width for group in groups])
        self.dim = sum(group.width for group in groups)
        more = [group.more for group in groups]
        start = 1 + self.dim * (2 if gaps else 1)
        self.more = slices(start, more)
        self.width = start + sum(more)
        self.common = 1

    def features(self, points: Tensor) -> Tensor:
        """Those of `points` `(..., N, D)` float64, `(..., P, N)`."""
        found = points.new_ones(*points.shape[:-2], self.width, points.shape[-2])
        x = found[..., 1 : 1 + self.dim, :]
        x.copy_(points.mT)
        # what a slope is computed of may not be written over
        self.fill(points.mT if points.requires_grad else x, found)
        return found

    def fill(self, x: Tensor, out: Tensor) -> None:
        """Fill in what else than 1 and the points is in `out` `(..., P, N)`.

        x: the points `(..., D, N)`, there or elsewhere.
        """
        there = ~x.isnan() if self.gaps else None
        for group, place, more in zip(self.groups, self.places, self.more, strict=True):
            group.statistics(x[..., place, :], out[..., more, :])
        if there is not None:
            out[..., 1 + self.dim : 1 + 2 * self.dim, :] = there
            out[..., 1 : 1 + self.dim, :].nan_to_num_(0.0)
            start = 1 + 2 * self.dim
            out[..., start:, :].nan_to_num_(0.0)

    def shared(self, features: Tensor, weight: Tensor | None) -> Tensor | None:
        base = self.log_base(features)
        if base is None:
            return None
        return (base if weight is None else base * weight).sum().reshape(1, 1)

    def log_base(self, features: Tensor) -> Tensor | None:
        """The part of log p(x) of each point that no parameter enters, `(..., N)` float64; a missing
        value is 0, and so is its part.
        """
        x = features[..., 1 : 1 + self.dim, :]
        pairs = zip(self.groups, self.places, strict=True)
        found = [group.log_base(x[..., place, :]) for group, place in pairs]
        there = [each for each in found if each is not None]
        return torch.stack(there).sum(0) if there else None

    def collect(self, sums: Tensor, shared: Tensor | None) -> Moments:
        """`first`: the sums but the first; `second`: how often each column was seen."""
        total = sums[..., 0]
        there = sums[..., 1 + self.dim : 1 + 2 * self.dim]
        seen = there if self.gaps else total.unsqueeze(-1).expand(*total.shape, self.dim)
        return Moments(sums.new_zeros(1, self.dim), total, sums[..., 1:], seen)

    def sums(self, m: Moments) -> list[Sums]:
        """Those of each group."""
        return [
            Sums(
                m.first[..., place],
                m.first[..., more.start - 1 : more.stop - 1],
                m.second[..., place],
            )
            for place, more in zip(self.places, self.more, strict=True)
        ]

    def priors(self, prior: PseudoCounts, origin: Tensor) -> list[PseudoCounts]:
        """The prior of each group, from that of all columns; sums are about `origin` `(..., K or 1, D)`."""
        floor = prior.floor
        if isinstance(floor, Rounding):
            place = (floor.origin.double() + origin).to(floor.origin.dtype)
            floor = floor._replace(origin=place)
        return [
            prior._replace(
                variance=_at(prior.variance, place),
                floor=_at(floor, place),
                mean=_at(prior.mean, place),
            )
            for place in self.places
        ]


def slices(start: int, widths: Sequence[int]) -> list[slice]:
    """Places of so many numbers, one after another."""
    return [slice(*ends) for ends in pairwise(accumulate(widths, initial=start))]


def _at(value: Any, place: slice) -> Any:
    """The numbers at `place` of those for each column, `(D,)`; a single one is for all of them."""
    if isinstance(value, Rounding):
        return Rounding(value.origin[..., place], value.least[..., place], value.shared)
    if isinstance(value, Tensor) and value.dim():
        return value[..., place]
    return value


def _centre(c: Columns) -> Tensor:
    """A point near the continuous columns' data, 0 in others, `(D,)` float64; results do not depend on
    it, but for their rounding.
    """
    return c.location.detach().double().flatten(0, -2).mean(0)


# ---- of points by their deviations from each `location`, `(..., K, n, D)` -----------------------


def log_density_of(deviations: Tensor, c: Columns) -> Tensor:
    """log p, `(..., n, K)`."""
    layout = c.layout(deviations.shape[-1])
    features = layout.features(deviations)
    natural = c.shifted(-c.location).natural()
    density = (natural.unsqueeze(-2) @ features).squeeze(-2)
    base = layout.log_base(features)
    return (density if base is None else density + base).mT


def moments_of(deviations: Tensor, r: Tensor, c: Columns) -> Moments:
    """The moments about each `location` from responsibilities `r` `(..., K, n)`."""
    layout = c.layout(deviations.shape[-1])
    features = layout.features(deviations)
    found = layout.collect((features @ r.unsqueeze(-1)).squeeze(-1), None)
    return found._replace(origin=c.location)


def log_base_of(deviations: Tensor, r: Tensor, c: Columns) -> Tensor:
    """The sum of r times the part of log p(x) that no parameter enters, `(...)`."""
    layout = c.layout(deviations.shape[-1])
    base = layout.log_base(layout.features(deviations))
    return r.new_zeros(r.shape[:-2]) if base is None else (r * base).sum((-2, -1))
