"""One Gaussian in natural and mean parameters: what `exponential` has of any family, of a Gaussian."""

from typing import NamedTuple

import torch
from torch import Tensor

from jensen.family import cholesky
from jensen.family.gaussian import LOG_2PI
from jensen.family.wishart import packed, packed_inner, unpacked, unpacked_inner


class Normal(NamedTuple):
    """N(mean, L L'), `mean` `(..., D)`, L = `scale_tril` `(..., D, D)`, as an exponential family.

    Statistics are x and the upper triangle of x x'; `FullGaussian`, K of which are a mixture's
    components, has the same fields, and its coefficients are these natural parameters.

    >>> from jensen.family.exponential import fisher
    >>> p = Normal(torch.ones(1).double(), torch.full((1, 1), 2.0).double().sqrt())
    >>> fisher(p).round(decimals=9).tolist()
    [[2.0, 4.0], [4.0, 16.0]]
    """

    mean: Tensor
    scale_tril: Tensor

    def natural(self) -> Tensor:
        precision = cholesky.precision(self.scale_tril).to(self.mean)
        linear = (precision @ self.mean.unsqueeze(-1)).squeeze(-1)
        return torch.cat([linear, packed_inner(-0.5 * precision)], -1)

    @classmethod
    def of_natural(cls, eta: Tensor) -> "Normal":
        dim = _dim_of(eta.shape[-1])
        cov = torch.linalg.inv(-2 * unpacked_inner(eta[..., dim:], dim))
        cov = 0.5 * (cov + cov.mT)
        return cls((cov @ eta[..., :dim].unsqueeze(-1)).squeeze(-1), cholesky.factor(cov))

    def mean_parameters(self) -> Tensor:
        """E x and E x x'."""
        square = self.mean.unsqueeze(-1) * self.mean.unsqueeze(-2)
        return torch.cat([self.mean, packed(self.scale_tril @ self.scale_tril.mT + square)], -1)

    @classmethod
    def of_mean(cls, m: Tensor) -> "Normal":
        dim = _dim_of(m.shape[-1])
        mean = m[..., :dim]
        cov = unpacked(m[..., dim:], dim) - mean.unsqueeze(-1) * mean.unsqueeze(-2)
        return cls(mean, cholesky.factor(cov))

    def log_normaliser(self) -> Tensor:
        whitened = cholesky.solve(self.scale_tril, self.mean)
        constant = cholesky.log_det(self.scale_tril) + self.mean.shape[-1] * LOG_2PI
        return 0.5 * (whitened.square().sum(-1) + constant)

    def entropy(self) -> Tensor:
        dim = self.mean.shape[-1]
        return 0.5 * (dim * (1 + LOG_2PI) + cholesky.log_det(self.scale_tril))

    def kl_to(self, p: "Normal") -> Tensor:
        ratio = cholesky.solve_columns(p.scale_tril, self.scale_tril)
        move = cholesky.solve(p.scale_tril, self.mean - p.mean)
        log_ratio = cholesky.log_det(p.scale_tril) - cholesky.log_det(self.scale_tril)
        squares = ratio.square().sum((-2, -1)) - move.shape[-1] + move.square().sum(-1)
        return 0.5 * (squares + log_ratio)

    def expected_log_base(self) -> Tensor:
        return torch.zeros_like(self.mean[..., 0])

    @classmethod
    def statistics(cls, x: Tensor) -> Tensor:
        return torch.cat([x, packed(x.unsqueeze(-1) * x.unsqueeze(-2))], -1)

    @classmethod
    def log_base(cls, x: Tensor) -> Tensor:
        return torch.zeros_like(x[..., 0])


def _dim_of(size: int) -> int:
    """D of D + D (D + 1) / 2 numbers."""
    dim = 1
    while dim * (dim + 3) // 2 < size:
        dim += 1
    return dim
