"""Gaussians with all of their covariance: N(mean, L L') by the Cholesky factor L."""

from typing import NamedTuple, Protocol, final, runtime_checkable

import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.family import cholesky
from jensen.family.gaussian import LOG_2PI, Gaussian
from jensen.family.moments import (
    FLAT,
    Moments,
    PseudoCounts,
    counted,
    like,
    log_inverse_wishart,
    moved,
    own_floor,
)
from jensen.family.multivariate import Normal
from jensen.family.wishart import packed, unpacked


class FullGaussian(NamedTuple):
    """`mean` is `(..., D)`, `scale_tril` the lower triangular L with positive diagonal, `(..., D,
    D)`.

    As the components of a mixture they are `(..., K, D)` and `(..., K, D, D)`.
    """

    mean: Tensor
    scale_tril: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x), `(..., D)` to `(...)`, in nats."""
        distance = cholesky.solve(self.scale_tril, x - self.mean).square().sum(-1)
        return -0.5 * (distance + x.shape[-1] * LOG_2PI + cholesky.log_det(self.scale_tril))

    def rsample(self, noise: Tensor) -> Tensor:
        """mean + L noise, `(..., D)` for `noise` ~ N(0, I)."""
        return self.mean + (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)

    def marginal(self, latent: int) -> Gaussian:
        """The distribution of one coordinate, `(..., 1)`."""
        return self.marginals().marginal(latent)

    def marginals(self) -> Gaussian:
        """The diagonal Gaussian with the same marginals, `(..., D)`."""
        return Gaussian(self.mean, cholesky.log_variances(self.scale_tril))

    def cholesky(self) -> Tensor:
        """The factor of each covariance, `(..., D, D)`."""
        return self.scale_tril

    # ---- as components --------------------------------------------------------------------------

    @classmethod
    def at(cls, mean: Tensor, variance: Tensor) -> "FullGaussian":
        return cls(mean, variance.sqrt().diag().expand(*mean.shape, len(variance)))

    def log_density(self, x: Tensor) -> Tensor:
        scale_tril = self.scale_tril.double()
        whitened = torch.linalg.solve_triangular(
            scale_tril, _deviations(x, self.mean).mT, upper=False
        )
        constant = (cholesky.log_det(scale_tril) + x.shape[-1] * LOG_2PI).unsqueeze(-1)
        density: Tensor = -0.5 * (whitened.square().sum(-2) + constant)
        return density.mT.to(torch.promote_types(x.dtype, self.mean.dtype))

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        deviations = _deviations(x, self.mean)
        weights = r.double()
        weighted = weights.mT.unsqueeze(-1) * deviations
        return Moments(
            self.mean.double(), weights.sum(-2), weighted.sum(-2), weighted.mT @ deviations
        )

    def maximise(self, m: Moments, prior: PseudoCounts = FLAT) -> "FullGaussian":
        count = counted(m)
        mean = m.first / count
        dim = mean.shape[-1]
        scatter = m.second - (count * mean).unsqueeze(-1) * mean.unsqueeze(-2)
        if prior.covariance:
            own = like(mean, prior.variance)
            credit = own.expand(*own.shape[:-1], dim).diag_embed()
            scatter = scatter + prior.covariance * credit
            cov = scatter / (count.unsqueeze(-1) + prior.covariance)
        else:
            old = self.scale_tril.double()
            some = (m.total > 0).unsqueeze(-1).unsqueeze(-1)
            cov = torch.where(some, scatter / count.unsqueeze(-1), old @ old.mT)
        square = m.second.diagonal(dim1=-2, dim2=-1) / count
        floor = own_floor(prior.floor, m.origin + mean, square, dim)
        scale_tril = cholesky.floored(cov, floor).to(self.scale_tril.dtype)
        return FullGaussian(moved(self.mean, m, mean), scale_tril)

    def log_prior(self, prior: PseudoCounts) -> Tensor:
        precision = cholesky.precision(self.scale_tril).diagonal(dim1=-2, dim2=-1)
        return log_inverse_wishart(prior, cholesky.log_det(self.scale_tril), precision).sum(-1)

    def natural(self) -> Tensor:
        eta = Normal(*self).natural()
        dim = self.mean.shape[-1]
        inner = (eta[..., :dim] * self.mean).sum(-1)  # less than its log_normaliser, which solves
        constant = -0.5 * (inner + cholesky.log_det(self.scale_tril) + dim * LOG_2PI)
        return torch.cat([constant.unsqueeze(-1), eta], -1)

    def common(self, shared: Tensor) -> None:
        return None

    @staticmethod
    def layout(dim: int) -> "FullLayout":
        return FullLayout(dim)

    def free(self, about: "FullGaussian") -> Tensor:
        move = cholesky.solve(about.scale_tril, self.mean - about.mean)
        return torch.cat([move, cholesky.free(self.scale_tril, about.scale_tril)], -1).flatten(-2)

    def of_free(self, free: Tensor) -> "FullGaussian":
        dim = self.mean.shape[-1]
        each = free.reshape(*self.mean.shape[:-1], FullLayout(dim).width - 1)
        moved_to = FullGaussian(self.mean, self.scale_tril).rsample(each[..., :dim])
        return FullGaussian(moved_to, cholesky.of_free(each[..., dim:], self.scale_tril))


def _deviations(x: Tensor, mean: Tensor) -> Tensor:
    """x - mean_k, `(..., K, N, D)`: exact however far apart the components are."""
    return x.double().unsqueeze(-3) - mean.double().unsqueeze(-2)


@runtime_checkable
class Factored(Protocol):
    """Gaussians that know the Cholesky factor of each covariance."""

    @property
    def mean(self) -> Tensor: ...

    def cholesky(self) -> Tensor: ...


def full(p: object) -> FullGaussian:
    """The same Gaussians with a covariance matrix each.

    Raises:
        InputError: they are of another family, which has no covariances.
    """
    if isinstance(p, FullGaussian):
        return p
    if isinstance(p, Factored):
        return FullGaussian(p.mean, p.cholesky())
    raise InputError(
        f"the components are {type(p).__name__}, which have no covariances: expected Gaussians, as"
        " of a jensen.GMM"
    )


@final
class FullLayout:
    """1, x and the upper triangle of x x': P = 1 + D + D (D + 1) / 2."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.width = 1 + dim + dim * (dim + 1) // 2
        self.common = dim

    def fill(self, x: Tensor, out: Tensor) -> None:
        row = 1 + self.dim
        # to launch D products takes longer there than to read the points twice
        if x.device.type != "cpu":
            i, j = torch.triu_indices(self.dim, self.dim, device=x.device)
            torch.index_select(x, 0, i, out=out[row:]).mul_(x.index_select(0, j))
            return
        for i in range(self.dim):
            torch.mul(x[i:], x[i], out=out[row : row + self.dim - i])
            row += self.dim - i

    def shared(self, features: Tensor, weight: Tensor | None) -> None:
        return None

    def collect(self, sums: Tensor, shared: Tensor | None) -> Moments:
        second = unpacked(sums[..., 1 + self.dim :], self.dim)
        return Moments(
            sums.new_zeros(1, self.dim), sums[..., 0], sums[..., 1 : 1 + self.dim], second
        )

    def pack(self, total: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([total.unsqueeze(-1), first, packed(second)], -1)
