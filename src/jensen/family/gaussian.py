"""Diagonal Gaussians: N(mean, diag exp(log_var)).

The functions work on the last axis without reducing it, so the joint KL, the KL of each latent and
a product of marginals are one call with different sums. Densities and divergences are in nats.
"""

import math
from typing import NamedTuple, final

import torch
from torch import Tensor
from torch.nn.functional import hardtanh

from jensen.family.moments import (
    FLAT,
    Moments,
    PseudoCounts,
    centred,
    counted,
    log_inverse_wishart,
    log_var_of,
    moved,
    own_floor,
    squares,
)

LOG_2PI = math.log(2 * math.pi)

LOG_VAR_BOUND = 20.0
"""`bounded` keeps log_var in (-20, 20): a standard deviation between 4.5e-5 and 2.2e4."""

MEAN_BOUND = 1e6
"""`bounded` keeps mean in [-1e6, 1e6]: farther out a float32 square of it times any precision loses
all meaning.
"""


class Gaussian(NamedTuple):
    """A diagonal Gaussian; `mean` and `log_var` are `(..., D)` and broadcast against each other.

    As the components of a mixture they are `(..., K, D)`: see `family.Components` for the methods
    that those need.

    >>> Gaussian(torch.zeros(2), torch.zeros(2)).log_prob(torch.zeros(3, 2))
    tensor([-1.8379, -1.8379, -1.8379])
    """

    mean: Tensor
    log_var: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x), `(..., D)` to `(...)`, in nats."""
        return log_density(x, self).sum(-1)

    def rsample(self, noise: Tensor) -> Tensor:
        """A draw from standard normal `noise`, `(..., D)`."""
        return sample(self, noise)

    def marginal(self, latent: int) -> "Gaussian":
        """The distribution of one coordinate, `(..., 1)`."""
        if not self.mean.dim():  # `standard`
            return self
        return Gaussian(self.mean[..., [latent]], self.log_var[..., [latent]])

    def marginals(self) -> "Gaussian":
        """The diagonal Gaussian with the same marginals: itself."""
        return self

    def cholesky(self) -> Tensor:
        """The factor of each covariance, `(..., D, D)`."""
        return (0.5 * self.log_var).exp().expand_as(self.mean).diag_embed()

    # ---- as components --------------------------------------------------------------------------

    @classmethod
    def at(cls, mean: Tensor, variance: Tensor) -> "Gaussian":
        return cls(mean, variance.log().expand(mean.shape))

    def log_density(self, x: Tensor) -> Tensor:
        log_var = self.log_var.double()
        distance = squares(x, self.mean, (-log_var).exp())
        constant = (log_var + LOG_2PI).sum(-1).unsqueeze(-2)
        return (-0.5 * (distance + constant)).to(torch.promote_types(x.dtype, self.mean.dtype))

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        about = centred(x, r, self.mean)
        return Moments(about.origin, about.total, about.first, about.r.mT @ about.x.square())

    def maximise(self, m: Moments, prior: PseudoCounts = FLAT) -> "Gaussian":
        count = counted(m)
        mean = m.first / count
        scatter = m.second - m.first * mean
        credit = prior.covariance
        if credit:
            scatter = scatter + credit * prior.variance
            count = count + credit
        floor = own_floor(prior.floor, m.origin + mean, m.second / count)
        log_var = log_var_of(scatter, count, floor, self.log_var, m.total.unsqueeze(-1) <= -credit)
        return Gaussian(moved(self.mean, m, mean), log_var)

    def log_prior(self, prior: PseudoCounts) -> Tensor:
        return log_inverse_wishart(prior, self.log_var.sum(-1), (-self.log_var).exp()).sum(-1)

    def natural(self) -> Tensor:
        precision = (-self.log_var).exp()
        linear = precision * self.mean
        constant = -0.5 * (self.log_var + LOG_2PI + linear * self.mean).sum(-1, keepdim=True)
        return torch.cat([constant, linear, -0.5 * precision], -1)

    def common(self, shared: Tensor) -> None:
        return None

    @staticmethod
    def layout(dim: int) -> "DiagonalLayout":
        return DiagonalLayout(dim)

    def free(self, about: "Gaussian") -> Tensor:
        deviation = (0.5 * about.log_var).exp()
        mean = (self.mean - about.mean) / deviation
        return torch.cat([mean, 0.5 * (self.log_var - about.log_var)], -1).flatten(-2)

    def of_free(self, free: Tensor) -> "Gaussian":
        move, grow = free.reshape(*self.mean.shape[:-1], 2 * self.mean.shape[-1]).chunk(2, -1)
        return Gaussian(self.mean + move * (0.5 * self.log_var).exp(), self.log_var + 2 * grow)


@final
class DiagonalLayout:
    """1, x and x squared: P = 1 + 2 D."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.width = 1 + 2 * dim
        self.common = dim

    def fill(self, x: Tensor, out: Tensor) -> None:
        torch.mul(x, x, out=out[1 + self.dim :])

    def shared(self, features: Tensor, weight: Tensor | None) -> None:
        return None

    def collect(self, sums: Tensor, shared: Tensor | None) -> Moments:
        first, second = sums[..., 1:].chunk(2, -1)
        return Moments(sums.new_zeros(1, self.dim), sums[..., 0], first, second)

    def pack(self, total: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([total.unsqueeze(-1), first, second.diagonal(dim1=-2, dim2=-1)], -1)


STANDARD = Gaussian(torch.zeros(()), torch.zeros(()))
"""N(0, I) of any dimension: it broadcasts, in the precision and on the device of what it meets."""


def standard(like: Tensor) -> Gaussian:
    """N(0, I) with the dtype and device of `like`; `()`-shaped, it broadcasts over any `(...,
    D)`.
    """
    zero = like.new_zeros(())
    return Gaussian(zero, zero)


def bounded(raw: Gaussian) -> Gaussian:
    """The Gaussian that a network's unbounded output `raw` stands for, `(..., D)` to `(..., D)`.

    log_var becomes `b tanh(raw / b)` with b = LOG_VAR_BOUND: smooth, monotone, the identity to
    within 0.9 % up to |raw| = 3.3 (a standard deviation between 0.2 and 5) and never outside (-b,
    b). The mean is clamped at MEAN_BOUND and is otherwise exact. So every function below is finite,
    with finite gradients, at any output including infinities; a NaN stays a NaN. Half precision is
    widened to float32, in which all densities are computed.
    """
    mean, log_var = (
        part.float() if part.dtype in (torch.float16, torch.bfloat16) else part for part in raw
    )
    return Gaussian(
        hardtanh(mean, -MEAN_BOUND, MEAN_BOUND),  # a clamp with one kernel of gradient, not five
        LOG_VAR_BOUND * torch.tanh(log_var / LOG_VAR_BOUND),
    )


def sample(q: Gaussian, noise: Tensor) -> Tensor:
    """Reparameterised draw `mean + exp(log_var / 2) * noise`, `(..., D)`, for `noise` ~ N(0, I).

    Kingma & Welling 2014 (arXiv 1312.6114), section 2.4.
    """
    return q.mean + (0.5 * q.log_var).exp() * noise


def log_density(x: Tensor, p: Gaussian) -> Tensor:
    """log N(x; p) of each dimension, `(..., D)`, in nats."""
    if p is STANDARD:
        return -0.5 * (x.square() + LOG_2PI)
    # In this order 2 pi is not rounded to the precision of `STANDARD`.
    return -0.5 * ((x - p.mean).square() * (-p.log_var).exp() + p.log_var + LOG_2PI)


def kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) of each dimension, `(..., D)`, in nats, closed form.

    Kingma & Welling 2014, appendix B, for a general p. Written with `expm1`, because `exp(d) - d -
    1` cancels where the two variances nearly agree.
    """
    if p is STANDARD:  # the same numbers, in half the operations
        return 0.5 * (torch.expm1(q.log_var) - q.log_var + q.mean.square())
    difference = q.log_var - p.log_var
    return 0.5 * (
        torch.expm1(difference) - difference + (q.mean - p.mean).square() * (-p.log_var).exp()
    )


def entropy(q: Gaussian) -> Tensor:
    """Differential entropy of each dimension, `(..., D)`, in nats."""
    return 0.5 * (LOG_2PI + 1 + q.log_var)
