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

    def log_density(self, x: Tensor) -> Tensor:
        layout = self.layout(x.shape[-1])
        points = x.double().mT
        features = points.new_empty(*points.shape[:-2], layout.width, points.shape[-1])
        features[..., 0, :] = 1
        features[..., 1 : 1 + layout.dim, :] = points
        layout.fill(features[..., 1 : 1 + layout.dim, :], features)
        density = (self.natural() @ features).mT
        if (base := layout.log_base(features)) is not None:
            density = density + base.unsqueeze(-1)
        return density.to(torch.promote_types(x.dtype, self.gaps.dtype))

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        layout = self.layout(x.shape[-1])
        points = x.double().mT
        features = points.new_ones(layout.width, points.shape[-1])
        features[1 : 1 + layout.dim] = points
        layout.fill(features[1 : 1 + layout.dim], features)
        return layout.collect((features @ r.double()).mT, None)

    def maximise(self, m: Moments, prior: PseudoCounts = FLAT) -> "Columns":
        """Each column's maximum; `prior.values` are points credited to each: spread evenly over a
        column's categories, half of them 1, or counts of `prior.mean`.
        """
        layout = self.layout(m.second.shape[-1])
        given = zip(self.groups, layout.sums(m), layout.priors(prior), strict=True)
        groups = tuple(group.maximise(sums, own) for group, sums, own in given)
        return self._replace(groups=groups)

    def log_prior(self, prior: PseudoCounts) -> Tensor:
        priors = self.layout(self.gaps.shape[-1]).priors(prior)
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
        """The components of points moved by `offset` `(D,)`, which only continuous ones can be."""
        places = self.layout(len(offset)).places
        moved = [
            group.shifted(offset[place]) if group.continuous else group
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

    def fill(self, x: Tensor, out: Tensor) -> None:
        there = ~x.isnan() if self.gaps else None
        for group, place, more in zip(self.groups, self.places, self.more, strict=True):
            group.statistics(x[..., place, :], out[..., more, :])
        if there is not None:
            out[..., 1 + self.dim : 1 + 2 * self.dim, :] = there
            x.nan_to_num_(0.0)
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

    def priors(self, prior: PseudoCounts) -> list[PseudoCounts]:
        """The prior of each group, from that of all columns."""
        return [
            prior._replace(
                variance=_at(prior.variance, place),
                floor=_at(prior.floor, place),
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
        return Rounding(value.origin[place], value.least[place], value.shared)
    if isinstance(value, Tensor) and value.dim():
        return value[place]
    return value
