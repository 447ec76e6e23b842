"""Gaussians of one covariance: N(mean_k, L L')."""

from typing import NamedTuple, final

import torch
from torch import Tensor

from jensen.family import cholesky
from jensen.family.floor import Rounding
from jensen.family.full import full
from jensen.family.gaussian import LOG_2PI, Gaussian
from jensen.family.moments import (
    FLAT,
    TINY,
    Moments,
    PseudoCounts,
    centre,
    centred,
    counted,
    like,
    log_inverse_wishart,
    moved,
    squares,
)


class TiedGaussian(NamedTuple):
    """N(mean_k, L L'), one covariance for all; `mean` is `(..., K, D)`, L = `scale_tril` `(..., D,
    D)`.
    """

    mean: Tensor
    scale_tril: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x), `(..., D)` to `(...)`, in nats."""
        return full(self).log_prob(x)

    def rsample(self, noise: Tensor) -> Tensor:
        """A draw from standard normal `noise`, `(..., D)`."""
        return full(self).rsample(noise)

    def marginal(self, latent: int) -> Gaussian:
        """The distribution of one coordinate, `(..., 1)`."""
        return self.marginals().marginal(latent)

    def marginals(self) -> Gaussian:
        """The diagonal Gaussians with the same marginals, `(..., K, D)`."""
        return Gaussian(
            self.mean, cholesky.log_variances(self.scale_tril).unsqueeze(-2).expand(self.mean.shape)
        )

    def cholesky(self) -> Tensor:
        """The factor of each covariance, `(..., K, D, D)`."""
        return self.scale_tril.unsqueeze(-3).expand(*self.mean.shape, self.mean.shape[-1])

    # ---- as components --------------------------------------------------------------------------

    @classmethod
    def at(cls, mean: Tensor, variance: Tensor) -> "TiedGaussian":
        return cls(mean, variance.sqrt().diag().expand(*mean.shape[:-2], *[len(variance)] * 2))

    def log_density(self, x: Tensor) -> Tensor:
        origin = centre(self.mean)
        scale_tril = self.scale_tril.double()

        def whiten(points: Tensor) -> Tensor:
            whitened: Tensor = torch.linalg.solve_triangular(
                scale_tril.mT, points.double() - origin, upper=True, left=False
            )
            return whitened

        mean = whiten(self.mean)
        distance = squares(whiten(x), mean, torch.ones_like(mean))
        constant = (cholesky.log_det(scale_tril) + x.shape[-1] * LOG_2PI)[..., None, None]
        return (-0.5 * (distance + constant)).to(torch.promote_types(x.dtype, self.mean.dtype))

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        about = centred(x, r, self.mean)
        scatter = (about.x * about.r.sum(-1, keepdim=True)).mT @ about.x
        return Moments(about.origin, about.total, about.first, scatter)

    def maximise(self, m: Moments, prior: PseudoCounts = FLAT) -> "TiedGaussian":
        count = counted(m)
        mean = m.first / count
        dim = mean.shape[-1]
        own = like(mean, prior.variance)
        credit = prior.covariance * own.expand(*own.shape[:-1], dim).diag_embed()
        scatter = m.second - mean.mT @ (count * mean) + credit
        total = m.total.sum(-1)[..., None, None] + prior.covariance
        old = self.scale_tril.double()
        cov = torch.where(total > 0, scatter / total.clamp(min=TINY), old @ old.mT)
        floor: Tensor | float | Rounding = prior.floor
        if isinstance(floor, Rounding):
            share = (count / count.sum(-2, keepdim=True)).mT
            square = m.second.diagonal(dim1=-2, dim2=-1) / total.squeeze(-1).clamp(min=TINY)
            floor = floor.summed((share @ floor.stored(m.origin + mean)).squeeze(-2), square, dim)
        scale_tril = cholesky.floored(cov, floor).to(self.scale_tril.dtype)
        return TiedGaussian(moved(self.mean, m, mean), scale_tril)

    def log_prior(self, prior: PseudoCounts) -> Tensor:
        precision = cholesky.precision(self.scale_tril).diagonal(dim1=-2, dim2=-1)
        return log_inverse_wishart(prior, cholesky.log_det(self.scale_tril), precision)

    def natural(self) -> Tensor:
        linear = self.mean @ cholesky.precision(self.scale_tril)
        log_det = cholesky.log_det(self.scale_tril) + self.mean.shape[-1] * LOG_2PI
        constant = log_det.unsqueeze(-1) + (linear * self.mean).sum(-1)
        return torch.cat([-0.5 * constant.unsqueeze(-1), linear], -1)

    def common(self, shared: Tensor) -> Tensor:
        """-tr(precision * sum x x') / 2."""
        return -0.5 * (cholesky.precision(self.scale_tril) * shared).sum((-2, -1))

    @staticmethod
    def layout(dim: int) -> "TiedLayout":
        return TiedLayout(dim)

    def free(self, about: "TiedGaussian") -> Tensor:
        move = cholesky.solve(about.cholesky(), self.mean - about.mean)
        return torch.cat([move.flatten(-2), cholesky.free(self.scale_tril, about.scale_tril)], -1)

    def of_free(self, free: Tensor) -> "TiedGaussian":
        size = self.mean.shape[-2:].numel()
        move = free[..., :size].reshape(self.mean.shape)
        return TiedGaussian(self.rsample(move), cholesky.of_free(free[..., size:], self.scale_tril))


@final
class TiedLayout:
    """1 and x, since no responsibility depends on the rest: P = 1 + D."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.width = 1 + dim
        self.common = dim

    def fill(self, x: Tensor, out: Tensor) -> None:
        pass

    def shared(self, features: Tensor, weight: Tensor | None) -> Tensor:
        """sum x x'."""
        points = features[1:].double()
        return (points if weight is None else points * weight) @ points.T

    def collect(self, sums: Tensor, shared: Tensor | None) -> Moments:
        assert shared is not None
        second = shared.expand(*sums.shape[:-2], self.dim, self.dim)
        return Moments(sums.new_zeros(1, self.dim), sums[..., 0], sums[..., 1:], second)

    def pack(self, total: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([total.unsqueeze(-1), first], -1)
