"""Normal-gamma distributions: of a Gaussian's mean and of its one precision."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from jensen.family import stirling
from jensen.family.gamma import Gamma
from jensen.family.gaussian import LOG_2PI


class NormalGamma(NamedTuple):
    """The distribution of a precision ~ Gamma(shape, rate), and of a mean ~ N(mean, I / (mean_count precision)) given it.

    `mean` is `(..., D)`, the others `(...)`; events are `(..., 1 + D)`, the precision first.
    """

    mean: Tensor
    mean_count: Tensor
    shape: Tensor
    rate: Tensor

    def natural(self) -> Tensor:
        first = self.shape - 1 + 0.5 * self.mean.shape[-1]
        second = -self.rate - 0.5 * self.mean_count * self.mean.square().sum(-1)
        linear = self.mean_count.unsqueeze(-1) * self.mean
        return torch.cat([torch.stack([first, second, -0.5 * self.mean_count], -1), linear], -1)

    @classmethod
    def of_natural(cls, eta: Tensor) -> "NormalGamma":
        first, second, half = eta[..., :3].unbind(-1)
        linear = eta[..., 3:]
        count = -2 * half
        mean = linear / count.unsqueeze(-1)
        shape = first + 1 - 0.5 * linear.shape[-1]
        return cls(mean, count, shape, -second - 0.5 * (linear * mean).sum(-1))

    def mean_parameters(self) -> Tensor:
        """E log precision, E precision, E precision |mean|^2 and E precision mean."""
        logs, precision = Gamma(self.shape, self.rate).mean_parameters().unbind(-1)
        linear = precision.unsqueeze(-1) * self.mean
        square = self.mean.shape[-1] / self.mean_count + (linear * self.mean).sum(-1)
        return torch.cat([torch.stack([logs, precision, square], -1), linear], -1)

    @classmethod
    def of_mean(cls, m: Tensor) -> "NormalGamma":
        precision = Gamma.of_mean(m[..., :2])
        mean = m[..., 3:] / m[..., 1:2]
        rest = m[..., 2] - (m[..., 3:] * mean).sum(-1)
        return cls(mean, mean.shape[-1] / rest, *precision)

    def log_normaliser(self) -> Tensor:
        dim = self.mean.shape[-1]
        precision = Gamma(self.shape, self.rate).log_normaliser()
        return precision + 0.5 * dim * (LOG_2PI - self.mean_count.log())

    def entropy(self) -> Tensor:
        """Entropy of the precision, and of the mean given it."""
        precision = Gamma(self.shape, self.rate)
        logs = precision.mean_parameters()[..., 0] + self.mean_count.log()
        return precision.entropy() + 0.5 * self.mean.shape[-1] * (1 + LOG_2PI - logs)

    def kl_to(self, p: "NormalGamma") -> Tensor:
        own = Gamma(self.shape, self.rate).kl_to(Gamma(p.shape, p.rate))
        width = self.mean.shape[-1] * stirling.excess(p.mean_count / self.mean_count)
        moved = (self.mean - p.mean).square().sum(-1)
        return own + 0.5 * (width + p.mean_count * self.shape / self.rate * moved)

    def expected_log_base(self) -> Tensor:
        return torch.zeros_like(self.mean_count)

    @classmethod
    def statistics(cls, x: Tensor) -> Tensor:
        precision = x[..., 0]
        mean = x[..., 1:]
        firsts = [precision.log(), precision, precision * mean.square().sum(-1)]
        return torch.cat([torch.stack(firsts, -1), precision.unsqueeze(-1) * mean], -1)

    @classmethod
    def log_base(cls, x: Tensor) -> Tensor:
        return torch.zeros_like(x[..., 0])

    # ---- as the conjugate prior of a spherical Gaussian -----------------------------------------

    def updated(self, statistics: Tensor, count: Tensor) -> "NormalGamma":
        """`statistics` `(..., D + 1)`: sum x and sum |x|^2."""
        total = self.mean_count + count
        dim = self.mean.shape[-1]
        linear = self.mean_count.unsqueeze(-1) * self.mean + statistics[..., :-1]
        mean = linear / total.unsqueeze(-1)
        before = self.mean_count * self.mean.square().sum(-1) + statistics[..., -1]
        rate = self.rate + 0.5 * (before - (linear * mean).sum(-1))
        return NormalGamma(mean, total, self.shape + 0.5 * dim * count, rate)

    def predictive(self, x: Tensor) -> Tensor:
        """The log density of a Student t with 2 shape degrees of freedom."""
        dim = self.mean.shape[-1]
        width = 2 * self.rate * (1 + 1 / self.mean_count)
        distance = (x - self.mean).square().sum(-1) / width
        return student(distance, 2 * self.shape, dim * (0.5 * width).log(), dim)


def student(distance: Tensor, shift: Tensor, log_det: Tensor, dim: int) -> Tensor:
    """log of a density proportional to (1 + distance)^(-(n + D) / 2), `(...)`, for n = `shift`;
    `log_det` is that of twice the matrix that distances are squares in units of, less D log 2.
    """
    top = 0.5 * (shift + dim)
    gammas = torch.lgamma(top) - torch.lgamma(0.5 * shift)
    constant = 0.5 * (log_det + dim * math.log(2 * math.pi))
    return gammas - constant - top * torch.log1p(distance)
