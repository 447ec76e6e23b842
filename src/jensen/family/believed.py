"""Beliefs of a mixture's Gaussians: for each covariance structure the conjugate posterior of
means and precisions, as components that EM's E-step takes as they are.

With q(mean, precision) in the place of parameters a coefficient of the E-step is the expected natural
parameter. That of Gaussians is a Gaussian's own, at the mean and the expected precision, but for a
constant: 1/2 (E log|precision| - log|E precision|) - D / (2 mean_count) (Bishop 2006, eq. 10.64-10.65).
So each of these is a Gaussian (`expected`) and that constant to whoever takes densities and moments,
and a belief to whoever takes the M-step (`maximise`, Bishop 2006, eq. 10.60-10.63), which adds the
moments to the prior.

    full        precision_k ~ Wishart(df, V)                     NormalWishart
    tied        one precision ~ Wishart, of all components
    diag        precision_kd ~ Gamma(shape, rate)                NormalGamma of each dimension
    spherical   one precision_k ~ Gamma for all dimensions       NormalGamma

and mean_k ~ N(mean, (mean_count precision)^-1) in each.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from jensen.family import cholesky, exponential
from jensen.family.family import GaussianComponents, Layout
from jensen.family.full import FullGaussian
from jensen.family.gamma import Gamma
from jensen.family.gaussian import Gaussian
from jensen.family.moments import Moments, counted
from jensen.family.normal_gamma import NormalGamma
from jensen.family.normal_wishart import NormalWishart
from jensen.family.spherical import SphericalGaussian
from jensen.family.tied import TiedGaussian

_LEAST = 4 * torch.finfo(torch.float64).eps


class _Centres(NamedTuple):
    """The new places of the means: their counts `(..., K)`, and these themselves `(..., K, D)`; of the
    points' own means the deviations from the moments' origin, and from the prior's means, `(..., K, D)`,
    and what the square of these weighs, `(..., K)`.
    """

    total: Tensor
    mean: Tensor
    own: Tensor
    move: Tensor
    pull: Tensor


def _centred(m: Moments, prior: Any) -> _Centres:
    before = prior.mean - m.origin
    count = prior.mean_count + m.total
    # Of hardly any points the sums may be but the rounding of what they were the difference of.
    some = (m.total > _LEAST * count).unsqueeze(-1)
    own = torch.where(some, m.first / counted(m), 0.0)
    # The scatter is that about the points' own means and one of these about the prior's: as a difference
    # of squares about the origin it would be lost beside a prior worth many points.
    pull = prior.mean_count * m.total / count
    after = (prior.mean_count.unsqueeze(-1) * before + m.first) / count.unsqueeze(-1)
    return _Centres(count, m.origin + after, own, own - before, pull)


def _outer(weight: Tensor, x: Tensor) -> Tensor:
    return (weight.unsqueeze(-1) * x).unsqueeze(-1) * x.unsqueeze(-2)


def _mean_cost(mean: Tensor, count: Tensor, prior: Any, precision_of_move: Tensor) -> Tensor:
    """E KL of the means' Gaussians given the precision, `(..., K)`; the last: move' E precision move."""
    ratio = prior.mean_count / count
    found: Tensor = 0.5 * (
        mean.shape[-1] * (ratio - 1 - ratio.log()) + prior.mean_count * precision_of_move
    )
    return found


class FullBelief(NamedTuple):
    """`mean` `(..., K, D)`, `mean_count` and `df` `(..., K)`; the inverse of the Wishart's scale matrix
    is L L' with L = `scatter_tril` `(..., K, D, D)`, in units of points times a covariance.
    """

    mean: Tensor
    mean_count: Tensor
    df: Tensor
    scatter_tril: Tensor

    def expected(self) -> tuple[GaussianComponents, Tensor]:
        """The Gaussians, and the constant `(..., K)`."""
        scale_tril = self.scatter_tril / self.df.sqrt()[..., None, None]
        return FullGaussian(self.mean, scale_tril), _constant(self.df, self.mean_count, self.mean)

    def maximise(self, m: Moments, prior: Any) -> "FullBelief":
        old: FullBelief = prior.components
        to = _centred(m, old)
        scatter = old.scatter_tril @ old.scatter_tril.mT + m.second
        scatter = scatter + _outer(to.pull, to.move) - _outer(m.total, to.own)
        return FullBelief(to.mean, to.total, old.df + m.total, cholesky.factor(scatter))

    def log_prior(self, prior: Any) -> Tensor:
        """-KL to the prior, `(...)`."""
        old: FullBelief = prior.components
        wishart = _wishart_cost(self.df, self.scatter_tril, old.df, old.scatter_tril)
        move = cholesky.solve(self.scatter_tril, self.mean - old.mean).square().sum(-1)
        return -(wishart + _mean_cost(self.mean, self.mean_count, old, self.df * move)).sum(-1)

    def student(self, x: Tensor) -> Tensor:
        """log p of further points `(N, D)` under each component, `(N, K)`."""
        return NormalWishart(*self).predictive(x.unsqueeze(-2))

    def drawn(self, draws: int, generator: torch.Generator) -> FullGaussian:
        """Gaussians `(draws, K)` from q."""
        factor = _covariance_factor(self.df, self.scatter_tril, draws, generator)
        return FullGaussian(_drawn_means(self, factor, generator), factor)

    def log_density(self, x: Tensor) -> Tensor:
        return _log_density(self, x)

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        return self.expected()[0].moments(x, r)

    def natural(self) -> Tensor:
        return _natural(self)

    def common(self, shared: Tensor) -> Tensor | None:
        return None

    def layout(self, dim: int) -> Layout:
        return FullGaussian.layout(dim)

    def free(self, about: "FullBelief") -> Tensor:
        return _free(self, about)

    def of_free(self, free: Tensor) -> "FullBelief":
        raise NotImplementedError("beliefs are not extrapolated")


class TiedBelief(NamedTuple):
    """`mean` `(..., K, D)`, `mean_count` `(..., K)`; of the one precision `df` `(...)` and
    `scatter_tril` `(..., D, D)`.
    """

    mean: Tensor
    mean_count: Tensor
    df: Tensor
    scatter_tril: Tensor

    def expected(self) -> tuple[GaussianComponents, Tensor]:
        scale_tril = self.scatter_tril / self.df.sqrt()[..., None, None]
        constant = _constant(self.df.unsqueeze(-1), self.mean_count, self.mean)
        return TiedGaussian(self.mean, scale_tril), constant

    def maximise(self, m: Moments, prior: Any) -> "TiedBelief":
        old: TiedBelief = prior.components
        to = _centred(m, old)
        moved = _outer(to.pull, to.move) - _outer(m.total, to.own)
        scatter = old.scatter_tril @ old.scatter_tril.mT + m.second + moved.sum(-3)
        return TiedBelief(to.mean, to.total, old.df + m.total.sum(-1), cholesky.factor(scatter))

    def log_prior(self, prior: Any) -> Tensor:
        old: TiedBelief = prior.components
        wishart = _wishart_cost(self.df, self.scatter_tril, old.df, old.scatter_tril)
        move = cholesky.solve(self.scatter_tril.unsqueeze(-3), self.mean - old.mean)
        squares = self.df.unsqueeze(-1) * move.square().sum(-1)
        return -wishart - _mean_cost(self.mean, self.mean_count, old, squares).sum(-1)

    def student(self, x: Tensor) -> Tensor:
        return NormalWishart(*self).predictive(x.unsqueeze(-2))

    def drawn(self, draws: int, generator: torch.Generator) -> TiedGaussian:
        factor = _covariance_factor(self.df, self.scatter_tril, draws, generator)
        return TiedGaussian(_drawn_means(self, factor.unsqueeze(-3), generator), factor)

    def log_density(self, x: Tensor) -> Tensor:
        return _log_density(self, x)

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        return self.expected()[0].moments(x, r)

    def natural(self) -> Tensor:
        return _natural(self)

    def common(self, shared: Tensor) -> Tensor | None:
        return self.expected()[0].common(shared)

    def layout(self, dim: int) -> Layout:
        return TiedGaussian.layout(dim)

    def free(self, about: "TiedBelief") -> Tensor:
        return _free(self, about)

    def of_free(self, free: Tensor) -> "TiedBelief":
        raise NotImplementedError("beliefs are not extrapolated")


class DiagonalBelief(NamedTuple):
    """`mean` `(..., K, D)`, `mean_count` and `shape` `(..., K)`, `rate` `(..., K, D)`."""

    mean: Tensor
    mean_count: Tensor
    shape: Tensor  # type: ignore[assignment]
    rate: Tensor

    def expected(self) -> tuple[GaussianComponents, Tensor]:
        log_var = self.rate.log() - self.shape.log().unsqueeze(-1)
        return Gaussian(self.mean, log_var), _gamma_constant(self)

    def maximise(self, m: Moments, prior: Any) -> "DiagonalBelief":
        old: DiagonalBelief = prior.components
        to = _centred(m, old)
        own = m.total.unsqueeze(-1) * to.own.square()
        move = to.pull.unsqueeze(-1) * to.move.square()
        rate = old.rate + 0.5 * (m.second - own + move)
        return DiagonalBelief(to.mean, to.total, old.shape + 0.5 * m.total, rate)

    def log_prior(self, prior: Any) -> Tensor:
        old: DiagonalBelief = prior.components
        shape = self.shape.unsqueeze(-1).expand(self.rate.shape)
        before = Gamma(old.shape.unsqueeze(-1).expand(old.rate.shape), old.rate)
        cost = exponential.kl(Gamma(shape, self.rate), before).sum(-1)
        move = (shape / self.rate * (self.mean - old.mean).square()).sum(-1)
        return -(cost + _mean_cost(self.mean, self.mean_count, old, move)).sum(-1)

    def student(self, x: Tensor) -> Tensor:
        count, shape = (
            part.unsqueeze(-1).expand(self.rate.shape) for part in (self.mean_count, self.shape)
        )
        each = NormalGamma(self.mean.unsqueeze(-1), count, shape, self.rate)
        return each.predictive(x.unsqueeze(-2).unsqueeze(-1)).sum(-1)

    def drawn(self, draws: int, generator: torch.Generator) -> Gaussian:
        shape = self.shape.unsqueeze(-1).expand(draws, *self.rate.shape).contiguous()
        variance = self.rate / torch._standard_gamma(shape, generator=generator)
        noise = torch.randn(variance.shape, generator=generator, dtype=torch.float64)
        width = (variance / self.mean_count.unsqueeze(-1)).sqrt()
        return Gaussian(self.mean + noise.to(width) * width, variance.log())

    def log_density(self, x: Tensor) -> Tensor:
        return _log_density(self, x)

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        return self.expected()[0].moments(x, r)

    def natural(self) -> Tensor:
        return _natural(self)

    def common(self, shared: Tensor) -> Tensor | None:
        return None

    def layout(self, dim: int) -> Layout:
        return Gaussian.layout(dim)

    def free(self, about: "DiagonalBelief") -> Tensor:
        return _free(self, about)

    def of_free(self, free: Tensor) -> "DiagonalBelief":
        raise NotImplementedError("beliefs are not extrapolated")


class SphericalBelief(NamedTuple):
    """`mean` `(..., K, D)`, `mean_count`, `shape` and `rate` `(..., K)`."""

    mean: Tensor
    mean_count: Tensor
    shape: Tensor  # type: ignore[assignment]
    rate: Tensor

    def expected(self) -> tuple[GaussianComponents, Tensor]:
        log_var = self.rate.log() - self.shape.log()
        return SphericalGaussian(self.mean, log_var), _gamma_constant(self)

    def maximise(self, m: Moments, prior: Any) -> "SphericalBelief":
        old: SphericalBelief = prior.components
        to = _centred(m, old)
        own = m.total * to.own.square().sum(-1)
        move = to.pull * to.move.square().sum(-1)
        rate = old.rate + 0.5 * (m.second - own + move)
        shape = old.shape + 0.5 * self.mean.shape[-1] * m.total
        return SphericalBelief(to.mean, to.total, shape, rate)

    def log_prior(self, prior: Any) -> Tensor:
        old: SphericalBelief = prior.components
        cost = exponential.kl(Gamma(self.shape, self.rate), Gamma(old.shape, old.rate))
        move = self.shape / self.rate * (self.mean - old.mean).square().sum(-1)
        return -(cost + _mean_cost(self.mean, self.mean_count, old, move)).sum(-1)

    def student(self, x: Tensor) -> Tensor:
        return NormalGamma(*self).predictive(x.unsqueeze(-2))

    def drawn(self, draws: int, generator: torch.Generator) -> SphericalGaussian:
        shape = self.shape.expand(draws, *self.rate.shape).contiguous()
        variance = self.rate / torch._standard_gamma(shape, generator=generator)
        size = (*variance.shape, self.mean.shape[-1])
        noise = torch.randn(size, generator=generator, dtype=torch.float64)
        width = (variance / self.mean_count).sqrt().unsqueeze(-1)
        return SphericalGaussian(self.mean + noise.to(width) * width, variance.log())

    def log_density(self, x: Tensor) -> Tensor:
        return _log_density(self, x)

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        return self.expected()[0].moments(x, r)

    def natural(self) -> Tensor:
        return _natural(self)

    def common(self, shared: Tensor) -> Tensor | None:
        return None

    def layout(self, dim: int) -> Layout:
        return SphericalGaussian.layout(dim)

    def free(self, about: "SphericalBelief") -> Tensor:
        return _free(self, about)

    def of_free(self, free: Tensor) -> "SphericalBelief":
        raise NotImplementedError("beliefs are not extrapolated")


GaussianBelief = FullBelief | TiedBelief | DiagonalBelief | SphericalBelief

BELIEFS: dict[str, Any] = {
    "full": FullBelief,
    "tied": TiedBelief,
    "diag": DiagonalBelief,
    "spherical": SphericalBelief,
}


def _natural(belief: GaussianBelief) -> Tensor:
    components, constant = belief.expected()
    found = components.natural()
    found[..., 0] += constant
    return found


def _log_density(belief: GaussianBelief, x: Tensor) -> Tensor:
    """E log p(x; k), `(..., N, D)` to `(..., N, K)`."""
    components, constant = belief.expected()
    return components.log_density(x) + constant.unsqueeze(-2)


def _free(belief: GaussianBelief, about: Any) -> Tensor:
    found: Tensor = belief.expected()[0].free(about.expected()[0])
    return found


def _constant(df: Tensor, count: Tensor, mean: Tensor) -> Tensor:
    dim = mean.shape[-1]
    halves = 0.5 * (df.unsqueeze(-1) - torch.arange(dim).to(df))
    return (
        0.5 * (torch.digamma(halves) - (0.5 * df).log().unsqueeze(-1)).sum(-1) - 0.5 * dim / count
    )


def _gamma_constant(belief: DiagonalBelief | SphericalBelief) -> Tensor:
    logs = torch.digamma(belief.shape) - belief.shape.log()
    return 0.5 * belief.mean.shape[-1] * (logs - 1 / belief.mean_count)


def _wishart_cost(df: Tensor, tril: Tensor, old_df: Tensor, old_tril: Tensor) -> Tensor:
    """KL of the Wisharts, `(...)`, by the inverses of their scale matrices: without an inverse."""
    dim = tril.shape[-1]
    halves = torch.arange(dim).to(df)
    digammas = torch.digamma(0.5 * (df.unsqueeze(-1) - halves)).sum(-1)
    ratio: Tensor = torch.linalg.solve_triangular(tril, old_tril.expand(tril.shape), upper=False)
    traces = ratio.square().sum((-2, -1)) - dim
    log_ratio = cholesky.log_det(tril) - cholesky.log_det(old_tril)
    gammas = torch.special.multigammaln(0.5 * old_df, dim) - torch.special.multigammaln(
        0.5 * df, dim
    )
    found: Tensor = 0.5 * (old_df * log_ratio + df * traces + (df - old_df) * digammas) + gammas
    return found


def _covariance_factor(
    df: Tensor, scatter_tril: Tensor, draws: int, generator: torch.Generator
) -> Tensor:
    """Factors of covariances `(draws, ..., D, D)` whose inverses are draws of Wisharts (Bartlett
    1933).
    """
    dim = scatter_tril.shape[-1]
    halves = 0.5 * (df.unsqueeze(-1) - torch.arange(dim).to(df))
    shape = halves.expand(draws, *halves.shape).contiguous()
    roots = (2 * torch._standard_gamma(shape, generator=generator)).sqrt()
    noise = torch.randn(*shape.shape, dim, generator=generator, dtype=torch.float64)
    bartlett = noise.to(roots).tril(-1) + roots.diag_embed()
    half = torch.linalg.solve_triangular(
        bartlett, scatter_tril.mT.expand(bartlett.shape), upper=False
    )
    return cholesky.factor(half.mT @ half)


def _drawn_means(
    belief: FullBelief | TiedBelief, factor: Tensor, generator: torch.Generator
) -> Tensor:
    shape = (*factor.shape[:1], *belief.mean.shape)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64).to(belief.mean)
    moves = (factor @ noise.unsqueeze(-1)).squeeze(-1)
    return belief.mean + moves / belief.mean_count.sqrt().unsqueeze(-1)
