"""Diagonal Gaussians: N(mean, diag exp(log_var)).

Every function works on the last axis without reducing it, so the joint KL, the KL of each latent and a product of
marginals are one call with different sums. Densities and divergences are in nats.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)

LOG_VAR_BOUND = 20.0
"""`bounded` keeps log_var in (-20, 20): a standard deviation between 4.5e-5 and 2.2e4."""

MEAN_BOUND = 1e6
"""`bounded` keeps mean in [-1e6, 1e6]: farther out a float32 square of it times any precision loses all meaning."""


class Gaussian(NamedTuple):
    """A diagonal Gaussian; `mean` and `log_var` are `(..., D)` and broadcast against each other."""

    mean: Tensor
    log_var: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x), `(..., D)` to `(...)`, in nats."""
        return log_density(x, self).sum(-1)

    def rsample(self, noise: Tensor) -> Tensor:
        """A draw from standard normal `noise`, `(..., D)`."""
        return sample(self, noise)

    def entropy(self) -> Tensor:
        """Differential entropy, `(...)`, in nats."""
        return entropy(self).sum(-1)

    def marginal(self, latent: int) -> "Gaussian":
        """The distribution of one coordinate, `(..., 1)`."""
        if not self.mean.dim():  # `standard`
            return self
        return Gaussian(self.mean[..., [latent]], self.log_var[..., [latent]])

    def diagonal(self) -> "Gaussian":
        """The diagonal Gaussian with the same marginals: itself."""
        return self


STANDARD = Gaussian(torch.zeros(()), torch.zeros(()))
"""N(0, I) of any dimension: it broadcasts, in the precision and on the device of what it meets."""


def standard(like: Tensor) -> Gaussian:
    """N(0, I) with the dtype and device of `like`; `()`-shaped, it broadcasts over any `(..., D)`."""
    zero = like.new_zeros(())
    return Gaussian(zero, zero)


def bounded(raw: Gaussian) -> Gaussian:
    """The Gaussian that a network's unbounded output `raw` stands for, `(..., D)` to `(..., D)`.

    log_var becomes `b tanh(raw / b)` with b = LOG_VAR_BOUND: smooth, monotone, the identity to within 0.9 % up to
    |raw| = 3.3 (a standard deviation between 0.2 and 5) and never outside (-b, b). The mean is clamped at MEAN_BOUND and is
    otherwise exact. So every function below is finite, with finite gradients, at any output including infinities; a
    NaN stays a NaN. Half precision is widened to float32, in which all densities are computed.
    """
    mean, log_var = (part.float() if part.dtype in (torch.float16, torch.bfloat16) else part for part in raw)
    return Gaussian(
        mean.clamp(-MEAN_BOUND, MEAN_BOUND),
        LOG_VAR_BOUND * torch.tanh(log_var / LOG_VAR_BOUND),
    )


def sample(q: Gaussian, noise: Tensor) -> Tensor:
    """Reparameterised draw `mean + exp(log_var / 2) * noise`, `(..., D)`, for `noise` ~ N(0, I).

    Kingma & Welling 2014 (arXiv 1312.6114), section 2.4.
    """
    return q.mean + (0.5 * q.log_var).exp() * noise


def log_density(x: Tensor, p: Gaussian) -> Tensor:
    """log N(x; p) of each dimension, `(..., D)`, in nats."""
    return -0.5 * (LOG_2PI + p.log_var + (x - p.mean).square() * (-p.log_var).exp())


def kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) of each dimension, `(..., D)`, in nats, closed form.

    Kingma & Welling 2014, appendix B, for a general p. Written with `expm1`, because `exp(d) - d - 1` cancels where
    the two variances nearly agree.
    """
    difference = q.log_var - p.log_var
    return 0.5 * (torch.expm1(difference) - difference + (q.mean - p.mean).square() * (-p.log_var).exp())


def entropy(q: Gaussian) -> Tensor:
    """Differential entropy of each dimension, `(..., D)`, in nats."""
    return 0.5 * (LOG_2PI + 1 + q.log_var)
