"""Spherical Gaussians: N(mean_k, exp(log_var_k) I)."""

from typing import NamedTuple, final

import torch
from torch import Tensor

from jensen.family.floor import Rounding
from jensen.family.gaussian import LOG_2PI, Gaussian
from jensen.family.moments import (
    FLAT,
    Moments,
    PseudoCounts,
    centred,
    counted,
    like,
    log_var_of,
    moved,
    own_floor,
)


class SphericalGaussian(NamedTuple):
    """N(mean_k, exp(log_var_k) I); `mean` is `(..., K, D)`, `log_var` `(..., K)`."""

    mean: Tensor
    log_var: Tensor

    def marginals(self) -> Gaussian:
        """The same Gaussians as diagonal ones."""
        return Gaussian(self.mean, self.log_var.unsqueeze(-1).expand(self.mean.shape))

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x), `(..., D)` to `(...)`, in nats."""
        return self.marginals().log_prob(x)

    def rsample(self, noise: Tensor) -> Tensor:
        """A draw from standard normal `noise`, `(..., D)`."""
        return self.marginals().rsample(noise)

    def marginal(self, latent: int) -> Gaussian:
        """The distribution of one coordinate, `(..., 1)`."""
        return self.marginals().marginal(latent)

    def cholesky(self) -> Tensor:
        """The factor of each covariance, `(..., K, D, D)`."""
        return self.marginals().cholesky()

    # ---- as components --------------------------------------------------------------------------

    @classmethod
    def at(cls, mean: Tensor, variance: Tensor) -> "SphericalGaussian":
        return cls(mean, variance.mean().log().expand(mean.shape[:-1]))

    def log_density(self, x: Tensor) -> Tensor:
        return self.marginals().log_density(x)

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        about = centred(x, r, self.mean)
        norm = about.x.square().sum(-1, keepdim=True)
        return Moments(about.origin, about.total, about.first, (about.r * norm).sum(-2))

    def maximise(self, m: Moments, prior: PseudoCounts = FLAT) -> "SphericalGaussian":
        count = counted(m)
        mean = m.first / count
        dim = mean.shape[-1]
        own = like(mean, prior.variance)
        credit = prior.covariance * own.expand(*own.shape[:-1], dim).sum(-1)
        scatter = m.second - m.total * mean.square().sum(-1) + credit
        floor = own_floor(prior.floor, m.origin + mean, m.second.unsqueeze(-1) / (dim * count))
        if isinstance(floor, Tensor):
            floor = floor.mean(-1) if isinstance(prior.floor, Rounding) else floor.amax()
        values = dim * (count.squeeze(-1) + prior.covariance)
        log_var = log_var_of(scatter, values, floor, self.log_var, m.total + prior.covariance <= 0)
        return SphericalGaussian(moved(self.mean, m, mean), log_var)

    def log_prior(self, prior: PseudoCounts) -> Tensor:
        return self.marginals().log_prior(prior)

    def natural(self) -> Tensor:
        precision = (-self.log_var).exp().unsqueeze(-1)
        linear = precision * self.mean
        log_det = self.mean.shape[-1] * (self.log_var + LOG_2PI)
        constant = -0.5 * (log_det + (linear * self.mean).sum(-1))
        return torch.cat([constant.unsqueeze(-1), linear, -0.5 * precision], -1)

    def common(self, shared: Tensor) -> None:
        return None

    @staticmethod
    def layout(dim: int) -> "SphericalLayout":
        return SphericalLayout(dim)

    def free(self, about: "SphericalGaussian") -> Tensor:
        deviation = (0.5 * about.log_var).exp().unsqueeze(-1)
        mean = (self.mean - about.mean) / deviation
        return torch.cat([mean.flatten(-2), 0.5 * (self.log_var - about.log_var)], -1)

    def of_free(self, free: Tensor) -> "SphericalGaussian":
        components, dim = self.mean.shape[-2:]
        move, grow = torch.split(free, [components * dim, components], -1)
        deviation = (0.5 * self.log_var).exp().unsqueeze(-1)
        return SphericalGaussian(
            self.mean + move.reshape(self.mean.shape) * deviation, self.log_var + 2 * grow
        )


@final
class SphericalLayout:
    """1, x and the square of its norm: P = 2 + D."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.width = 2 + dim
        self.common = dim

    def fill(self, x: Tensor, out: Tensor) -> None:
        torch.linalg.vecdot(x, x, dim=0, out=out[-1])

    def shared(self, features: Tensor, weight: Tensor | None) -> None:
        return None

    def collect(self, sums: Tensor, shared: Tensor | None) -> Moments:
        return Moments(sums.new_zeros(1, self.dim), sums[..., 0], sums[..., 1:-1], sums[..., -1])

    def pack(self, total: Tensor, first: Tensor, second: Tensor) -> Tensor:
        trace = second.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
        return torch.cat([total.unsqueeze(-1), first, trace], -1)
