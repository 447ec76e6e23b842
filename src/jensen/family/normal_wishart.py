"""Normal-Wishart distributions: of a Gaussian's mean and of its precision matrix."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from jensen.family import cholesky, solve, wishart
from jensen.family.gaussian import LOG_2PI
from jensen.family.normal_gamma import student
from jensen.family.wishart import packed, packed_inner, unpacked, unpacked_inner


class NormalWishart(NamedTuple):
    """The distribution of a precision matrix ~ Wishart(df, V), and of a mean ~ N(mean, (mean_count precision)^-1) given it.

    `mean` is `(..., D)`, `mean_count` and `df` `(...)`; V^-1 = L L' with L = `scatter_tril` `(..., D, D)`,
    in units of points times a covariance. Events are `(..., D, 1 + D)`: the precision, then the mean.
    """

    mean: Tensor
    mean_count: Tensor
    df: Tensor
    scatter_tril: Tensor

    def natural(self) -> Tensor:
        dim = self.mean.shape[-1]
        linear = self.mean_count.unsqueeze(-1) * self.mean
        inverse = self.scatter_tril @ self.scatter_tril.mT
        inverse = inverse + linear.unsqueeze(-1) * self.mean.unsqueeze(-2)
        firsts = torch.stack([0.5 * (self.df - dim), -0.5 * self.mean_count], -1)
        return torch.cat([firsts, linear, packed_inner(-0.5 * inverse)], -1)

    @classmethod
    def of_natural(cls, eta: Tensor) -> "NormalWishart":
        dim = _dim_of(eta.shape[-1])
        half_df, half = eta[..., :2].unbind(-1)
        linear = eta[..., 2 : 2 + dim]
        count = -2 * half
        mean = linear / count.unsqueeze(-1)
        inverse = -2 * unpacked_inner(eta[..., 2 + dim :], dim)
        scatter = inverse - linear.unsqueeze(-1) * mean.unsqueeze(-2)
        return cls(mean, count, 2 * half_df + dim, cholesky.factor(scatter))

    def mean_parameters(self) -> Tensor:
        """E log|precision|, E mean' precision mean, E precision mean and E precision."""
        dim = self.mean.shape[-1]
        logs = wishart.expected_log_det(self.df, -cholesky.log_det(self.scatter_tril), dim)
        precision = self.df[..., None, None] * cholesky.precision(self.scatter_tril)
        linear = (precision @ self.mean.unsqueeze(-1)).squeeze(-1)
        square = dim / self.mean_count + (linear * self.mean).sum(-1)
        return torch.cat([torch.stack([logs, square], -1), linear, packed(precision)], -1)

    @classmethod
    def of_mean(cls, m: Tensor) -> "NormalWishart":
        dim = _dim_of(m.shape[-1])
        m = m.double()
        precision = cholesky.factor(unpacked(m[..., 2 + dim :], dim))
        linear = m[..., 2 : 2 + dim]
        mean = torch.cholesky_solve(linear.unsqueeze(-1), precision).squeeze(-1)
        count = dim / (m[..., 1] - (linear * mean).sum(-1))
        df = solve.of_log_gap(cholesky.log_det(precision) - m[..., 0], dim)
        inverse = df[..., None, None] * torch.cholesky_inverse(precision)
        return cls(mean, count, df, cholesky.factor(inverse))

    def log_normaliser(self) -> Tensor:
        dim = self.mean.shape[-1]
        precision = wishart.log_normaliser(self.df, -cholesky.log_det(self.scatter_tril), dim)
        return precision + 0.5 * dim * (LOG_2PI - self.mean_count.log())

    def expected_log_base(self) -> Tensor:
        return torch.zeros_like(self.mean_count)

    @classmethod
    def statistics(cls, x: Tensor) -> Tensor:
        precision = x[..., :-1]
        mean = x[..., -1]
        linear = (precision @ mean.unsqueeze(-1)).squeeze(-1)
        square = (linear * mean).sum(-1)
        firsts = torch.stack([torch.logdet(precision), square], -1)
        return torch.cat([firsts, linear, packed(precision)], -1)

    @classmethod
    def log_base(cls, x: Tensor) -> Tensor:
        return torch.zeros_like(x[..., 0, 0])

    # ---- as the conjugate prior of a Gaussian ---------------------------------------------------

    def updated(self, statistics: Tensor, count: Tensor) -> "NormalWishart":
        """`statistics` `(..., D + D (D + 1) / 2)`: sum x and the upper triangle of sum x x'."""
        dim = self.mean.shape[-1]
        total = self.mean_count + count
        linear = self.mean_count.unsqueeze(-1) * self.mean
        after = linear + statistics[..., :dim]
        mean = after / total.unsqueeze(-1)
        scatter = self.scatter_tril @ self.scatter_tril.mT + unpacked(statistics[..., dim:], dim)
        scatter = scatter + linear.unsqueeze(-1) * self.mean.unsqueeze(-2)
        scatter = scatter - after.unsqueeze(-1) * mean.unsqueeze(-2)
        return NormalWishart(mean, total, self.df + count, cholesky.factor(scatter))

    def predictive(self, x: Tensor) -> Tensor:
        """The log density of a Student t with df - D + 1 degrees of freedom (Bishop 2006, eq. 10.81-10.82)."""
        dim = self.mean.shape[-1]
        widening = 1 + 1 / self.mean_count
        deviations = cholesky.solve(self.scatter_tril, x - self.mean)
        distance = deviations.square().sum(-1) / widening
        log_det = cholesky.log_det(self.scatter_tril) + dim * (0.5 * widening).log()
        return student(distance, self.df - dim + 1, log_det, dim)


def _dim_of(size: int) -> int:
    """D of 2 + D + D (D + 1) / 2 statistics."""
    return (math.isqrt(9 + 8 * (size - 2)) - 3) // 2
