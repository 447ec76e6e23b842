"""Components of independent columns, each of a family of its own: real numbers, zeros and ones,
counts, categories.
"""

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor
from torch.nn.functional import softplus

from jensen.family.bernoulli import Bernoulli
from jensen.family.categorical import Categorical
from jensen.family.gaussian import LOG_2PI, Gaussian
from jensen.family.moments import FLAT, TINY, Moments, PseudoCounts, like, log_var_of, own_floor
from jensen.family.poisson import Poisson

CERTAIN = 1e-12
"""A probability is never closer to 0 or 1 than this, nor a rate to 0, so that its logarithm is
finite.
"""


class Columns(NamedTuple):
    """K products of D columns, in this order; of columns that there are none of, tensors of width 0.

    normal: `(..., K, Dn)` means and log-variances. bernoulli: `(..., K, Db)`. poisson: `(..., K,
        Dp)`.
    categorical: one for each of its columns, `(..., K, C)`, normalised; codes are 0..C - 1.
    gaps: `(..., K, 1)` where values may be missing, which NaN stands for, else `(..., K, 0)`: a tuple of
        tensors alone can be stacked, mapped and saved.
    """

    normal: Gaussian
    bernoulli: Bernoulli
    poisson: Poisson
    categorical: tuple[Categorical, ...]
    gaps: Tensor

    @property
    def mean(self) -> Tensor:
        """`(..., K, D)`, of categories the mean code."""
        codes = [
            (each.logit.softmax(-1) @ torch.arange(each.logit.shape[-1]).to(each.logit)).unsqueeze(
                -1
            )
            for each in self.categorical
        ]
        numbers = [self.normal.mean, self.bernoulli.logit.sigmoid(), self.poisson.log_rate.exp()]
        return torch.cat([*numbers, *codes], -1)

    def log_density(self, x: Tensor) -> Tensor:
        layout = self.layout(x.shape[-1])
        points = x.double().mT
        features = points.new_empty(*points.shape[:-2], layout.width, points.shape[-1])
        features[..., 0, :] = 1
        features[..., 1 : 1 + layout.dim, :] = points
        layout.fill(features[..., 1 : 1 + layout.dim, :], features)
        density = (self.natural() @ features).mT + layout.log_base(features).unsqueeze(-1)
        return density.to(torch.promote_types(x.dtype, self.normal.mean.dtype))

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
        parts = self.layout(m.second.shape[-1]).split(m.first)
        seen = self.layout(m.second.shape[-1]).split(m.second)
        credit = prior.values
        ones = (parts.bernoulli + 0.5 * credit) / (seen.bernoulli + credit).clamp(min=TINY)
        counts = parts.poisson + credit * like(ones, prior.mean)
        rate = (counts / (seen.poisson + credit).clamp(min=TINY)).clamp(min=CERTAIN)
        shares = [
            (part + credit / part.shape[-1]) / (total + credit).unsqueeze(-1).clamp(min=TINY)
            for part, total in zip(parts.categorical, seen.categorical, strict=True)
        ]
        return Columns(
            self._normal(parts.normal, parts.squares, seen.normal, prior),
            Bernoulli(
                _kept(
                    ones.clamp(CERTAIN, 1 - CERTAIN).logit(),
                    seen.bernoulli + credit,
                    self.bernoulli.logit,
                )
            ),
            Poisson(_kept(rate.log(), seen.poisson + credit, self.poisson.log_rate)),
            tuple(
                Categorical(
                    _kept(
                        share.clamp(min=CERTAIN).log().log_softmax(-1),
                        (total + credit).unsqueeze(-1),
                        old.logit,
                    )
                )
                for share, total, old in zip(
                    shares, seen.categorical, self.categorical, strict=True
                )
            ),
            self.gaps,
        )

    def _normal(self, first: Tensor, second: Tensor, seen: Tensor, prior: PseudoCounts) -> Gaussian:
        count = seen.clamp(min=TINY)
        mean = first / count
        scatter = second - first * mean + prior.covariance * like(mean, prior.variance)
        floor = own_floor(prior.floor, mean, second / count)
        log_var = log_var_of(
            scatter, count + prior.covariance, floor, self.normal.log_var, seen <= -prior.covariance
        )
        return Gaussian(_kept(mean, seen, self.normal.mean), log_var)

    def log_prior(self, prior: PseudoCounts) -> Tensor:
        found = torch.zeros_like(self.gaps[..., 0, :].sum(-1))
        if prior.covariance and self.normal.mean.shape[-1]:
            found = found + self.normal.log_prior(prior)
        if not prior.values:
            return found
        logit = self.bernoulli.logit
        certainty = -0.5 * (softplus(logit) + softplus(-logit)).sum((-2, -1))
        rates = (prior.mean * self.poisson.log_rate - self.poisson.log_rate.exp()).sum((-2, -1))
        shares = [each.logit.log_softmax(-1).mean(-1).sum(-1) for each in self.categorical]
        return found + prior.values * torch.stack([certainty, rates, *shares]).sum(0)

    def natural(self) -> Tensor:
        mean, log_var = self.normal
        logit = self.bernoulli.logit
        precision = (-log_var).exp()
        rate = self.poisson.log_rate.exp()
        codes = rate.new_zeros(*rate.shape[:-1], len(self.categorical))
        own = -0.5 * (log_var + LOG_2PI + precision * mean.square())
        constants = torch.cat([own, -softplus(logit), -rate, codes], -1)
        linear = [precision * mean, logit, self.poisson.log_rate, codes]
        gaps = self.gaps.shape[-1] > 0
        first = torch.zeros_like(constants[..., :1]) if gaps else constants.sum(-1, keepdim=True)
        shares = [each.logit.log_softmax(-1) for each in self.categorical]
        seen = [constants] if gaps else []
        return torch.cat([first, *linear, *seen, -0.5 * precision, *shares], -1)

    def common(self, shared: Tensor) -> Tensor | None:
        """-sum log x! of counts."""
        return shared[..., 0, 0] if self.poisson.log_rate.shape[-1] else None

    def layout(self, dim: int) -> "ColumnsLayout":
        sizes = [each.logit.shape[-1] for each in self.categorical]
        normal = self.normal.mean.shape[-1]
        bernoulli = self.bernoulli.logit.shape[-1]
        poisson = dim - normal - bernoulli - len(sizes)
        return ColumnsLayout(normal, bernoulli, poisson, sizes, self.gaps.shape[-1] > 0)

    def shifted(self, offset: Tensor) -> "Columns":
        """The components of points moved by `offset` `(D,)`, which only real numbers can be."""
        mean = self.normal.mean + offset[: self.normal.mean.shape[-1]]
        return self._replace(normal=self.normal._replace(mean=mean))

    def free(self, about: "Columns") -> Tensor:
        ours, theirs = (
            [each.bernoulli.logit, each.poisson.log_rate, *(c.logit for c in each.categorical)]
            for each in (self, about)
        )
        moved = [(a - b).flatten(-2) for a, b in zip(ours, theirs, strict=True)]
        return torch.cat([self.normal.free(about.normal), *moved], -1)

    def of_free(self, free: Tensor) -> "Columns":
        mine = [self.bernoulli.logit, self.poisson.log_rate, *(c.logit for c in self.categorical)]
        sizes = [part.shape[-2:].numel() for part in (self.normal.mean, *mine)]
        normal, *rest = torch.split(free, [2 * sizes[0], *sizes[1:]], -1)
        logit, log_rate, *shares = (
            part + move.reshape(part.shape) for part, move in zip(mine, rest, strict=True)
        )
        return Columns(
            self.normal.of_free(normal),
            Bernoulli(logit),
            Poisson(log_rate),
            tuple(Categorical(each.log_softmax(-1)) for each in shares),
            self.gaps,
        )


def _kept(new: Tensor, seen: Tensor, old: Tensor) -> Tensor:
    """`new`, but `old` where nothing was seen."""
    return torch.where(seen > 0, new, old.double()).to(old.dtype)


class _Parts(NamedTuple):
    """The parameters of each kind of column, `(..., width)`, and of normal ones the squares."""

    normal: Tensor
    bernoulli: Tensor
    poisson: Tensor
    categorical: list[Tensor]
    squares: Tensor


class _Places(NamedTuple):
    normal: slice
    bernoulli: slice
    poisson: slice
    codes: slice


@final
class ColumnsLayout:
    """1, the points, with gaps which of them are there, the squares of normal columns, and of each
    category whether it is that.
    """

    def __init__(
        self, normal: int, bernoulli: int, poisson: int, sizes: Sequence[int], gaps: bool
    ) -> None:
        ends = [0, normal, normal + bernoulli, normal + bernoulli + poisson]
        self.dim = ends[-1] + len(sizes)
        self.places = _Places(*map(slice, ends, [*ends[1:], self.dim]))
        self.sizes = list(sizes)
        self.gaps = gaps
        self.squares = 1 + self.dim * (2 if gaps else 1)
        self.width = self.squares + normal + sum(sizes)
        self.common = 1

    def fill(self, x: Tensor, out: Tensor) -> None:
        if self.gaps:
            torch.logical_not(x.isnan(), out=(there := torch.empty_like(x, dtype=torch.bool)))
            out[..., 1 + self.dim : 1 + 2 * self.dim, :] = there
        codes = x[..., self.places.codes, :].clone()
        if self.gaps:
            x.nan_to_num_(0.0)
        normal = x[..., self.places.normal, :]
        row = self.squares + normal.shape[-2]
        out[..., self.squares : row, :] = normal.square()
        for column, size in enumerate(self.sizes):
            categories = torch.arange(size, device=x.device).to(x).unsqueeze(-1)
            out[..., row : row + size, :] = codes[..., column : column + 1, :] == categories
            row += size

    def shared(self, features: Tensor, weight: Tensor | None) -> Tensor | None:
        if self.places.poisson.start == self.places.poisson.stop:
            return None
        base = self.log_base(features)
        return (base if weight is None else base * weight).sum().reshape(1, 1)

    def log_base(self, features: Tensor) -> Tensor:
        """-sum log x! of each point's counts, `(..., N)` float64; a missing one is 0, and so is its
        logarithm.
        """
        counts = features[..., 1 : 1 + self.dim, :][..., self.places.poisson, :].double()
        return -torch.lgamma(counts + 1).sum(-2)

    def collect(self, sums: Tensor, shared: Tensor | None) -> Moments:
        """`first`: the sums but the first; `second`: how often each column was seen."""
        total = sums[..., 0]
        there = sums[..., 1 + self.dim : 1 + 2 * self.dim]
        seen = there if self.gaps else total.unsqueeze(-1).expand(*total.shape, self.dim)
        return Moments(sums.new_zeros(1, self.dim), total, sums[..., 1:], seen)

    def split(self, values: Tensor) -> _Parts:
        """The parts of `values`: a number for each column, or the sums of all features but the
        first.
        """
        first, second, third, codes = (values[..., place] for place in self.places)
        if values.shape[-1] == self.dim:
            return _Parts(first, second, third, [*codes.unbind(-1)], first[..., :0])
        rest = values[..., self.squares - 1 :]
        squares, *shares = torch.split(rest, [first.shape[-1], *self.sizes], -1)
        return _Parts(first, second, third, list(shares), squares)
