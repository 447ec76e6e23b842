"""Distributions that a user might bring: a prior of which only the density is known, posteriors
with a covariance.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jensen.family.full import FullGaussian
from jensen.family.gaussian import LOG_2PI, Gaussian, bounded
from jensen.model.mlp import MLPEncoder

NOISE = 0.25


class Banana(NamedTuple):
    """z1 ~ N(0, 1), z2 ~ N(z1^2, NOISE), the rest N(0, 1): a flow, whose marginals have no closed
    form.
    """

    def log_prob(self, z: Tensor) -> Tensor:
        first = z[..., 0]
        second = z[..., 1]
        rest = z[..., 2:]
        squares = (
            first.square() + (second - first.square()).square() / NOISE + rest.square().sum(-1)
        )
        return -0.5 * (squares + z.shape[-1] * LOG_2PI + math.log(NOISE))

    def rsample(self, noise: Tensor) -> Tensor:
        second = noise[:, 0].square() + math.sqrt(NOISE) * noise[:, 1]
        return torch.cat([noise[:, :1], second.unsqueeze(1), noise[:, 2:]], 1)

    def marginal(self, latent: int) -> None:
        return None


def banana_rate(q: Gaussian) -> Tensor:
    """KL(q || banana), `(N,)`, by the moments of a Gaussian."""
    mean = q.mean
    variance = q.log_var.exp()
    second = mean.square() + variance
    fourth = (
        mean[:, 0] ** 4 + 6 * mean[:, 0].square() * variance[:, 0] + 3 * variance[:, 0].square()
    )
    bend = (second[:, 1] - 2 * mean[:, 1] * second[:, 0] + fourth) / NOISE
    cross = 0.5 * (
        second[:, 0] + bend + second[:, 2:].sum(1) + mean.shape[1] * LOG_2PI + math.log(NOISE)
    )
    return cross - 0.5 * (1 + LOG_2PI + q.log_var).sum(1)


class BananaPrior(nn.Module):
    """As a prior of one's own would be written."""

    rate_is_bound = False
    warmup = 0

    def update(self, posterior, step):
        pass

    def distribution(self):
        return Banana()


class AsNormal(MLPEncoder):
    """The MLP's diagonal Gaussian, told as one with a covariance matrix, whose correlations are
    `tilt`.
    """

    tilt = 0.0

    def forward(self, x: Tensor) -> FullGaussian:
        mean, log_var = bounded(super().forward(x))
        scales = torch.diag_embed((0.5 * log_var).exp())
        return FullGaussian(mean, scales + self.tilt * torch.tril(torch.ones_like(scales), -1))


class Correlated(AsNormal):
    tilt = 0.3


class Pair(MLPEncoder):
    """Two tensors that do not say what they are."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(super().forward(x))
