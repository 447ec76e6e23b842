"""Wishart distributions: of a Gaussian's precision matrix."""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from jensen.family import cholesky, solve


class Wishart(NamedTuple):
    """The distribution of a positive definite X with E X = df V; `df` is `(...)` and above D - 1, V = L L' with L =
    `scale_tril` `(..., D, D)`. Natural parameters and statistics have X's upper triangle.
    """

    df: Tensor
    scale_tril: Tensor

    def natural(self) -> Tensor:
        dim = self.scale_tril.shape[-1]
        inverse = cholesky.precision(self.scale_tril)
        return torch.cat(
            [0.5 * (self.df - dim - 1).unsqueeze(-1), packed_inner(-0.5 * inverse)], -1
        )

    @classmethod
    def of_natural(cls, eta: Tensor) -> "Wishart":
        dim = dim_of(eta.shape[-1] - 1)
        inverse = -2 * unpacked_inner(eta[..., 1:], dim)
        scale = torch.linalg.inv(inverse)
        return cls(2 * eta[..., 0] + dim + 1, cholesky.factor(0.5 * (scale + scale.mT)))

    def mean_parameters(self) -> Tensor:
        """E log|X| and E X."""
        scale = self.scale_tril @ self.scale_tril.mT
        logs = expected_log_det(self.df, cholesky.log_det(self.scale_tril), scale.shape[-1])
        return torch.cat([logs.unsqueeze(-1), packed(self.df[..., None, None] * scale)], -1)

    @classmethod
    def of_mean(cls, m: Tensor) -> "Wishart":
        mean = cholesky.factor(unpacked(m[..., 1:].double(), dim_of(m.shape[-1] - 1)))
        df = solve.of_log_gap(cholesky.log_det(mean) - m[..., 0], mean.shape[-1])
        return cls(df, mean / df.sqrt()[..., None, None])

    def log_normaliser(self) -> Tensor:
        return log_normaliser(self.df, cholesky.log_det(self.scale_tril), self.scale_tril.shape[-1])

    def expected_log_base(self) -> Tensor:
        return torch.zeros_like(self.df)

    @classmethod
    def statistics(cls, x: Tensor) -> Tensor:
        return torch.cat([torch.logdet(x).unsqueeze(-1), packed(x)], -1)

    @classmethod
    def log_base(cls, x: Tensor) -> Tensor:
        return torch.zeros_like(x[..., 0, 0])


def log_normaliser(df: Tensor, log_det: Tensor, dim: int) -> Tensor:
    """Its A from the degrees of freedom and log|V|, `(...)` (Bishop 2006, eq. B.79)."""
    gammas: Tensor = torch.special.multigammaln(0.5 * df, dim)
    return 0.5 * df * (log_det + dim * math.log(2)) + gammas


def expected_log_det(df: Tensor, log_det: Tensor, dim: int) -> Tensor:
    """E log|X|, `(...)` (Bishop 2006, eq. B.81)."""
    halves = 0.5 * (df.unsqueeze(-1) - torch.arange(dim).to(df))
    return torch.digamma(halves).sum(-1) + dim * math.log(2) + log_det


def dim_of(size: int) -> int:
    """D of a triangle of D (D + 1) / 2 entries."""
    return math.isqrt(2 * size)


def packed(matrix: Tensor) -> Tensor:
    """The upper triangle of a symmetric `(..., D, D)`, `(..., D (D + 1) / 2)`."""
    upper = _triangle(matrix.shape[-1], matrix.device).upper
    return matrix.flatten(-2).index_select(-1, upper)


def packed_inner(matrix: Tensor) -> Tensor:
    """The triangle whose product with `packed(x)` is tr(matrix x): entries off the diagonal count
    twice.
    """
    return packed(matrix) * _triangle(matrix.shape[-1], matrix.device).counts.to(matrix)


def unpacked(entries: Tensor, dim: int) -> Tensor:
    """The symmetric matrix with that upper triangle, `(..., D, D)`."""
    place = _triangle(dim, entries.device).place
    return entries.index_select(-1, place).reshape(*entries.shape[:-1], dim, dim)


def unpacked_inner(entries: Tensor, dim: int) -> Tensor:
    """The matrix that `packed_inner` makes `entries` of."""
    return unpacked(entries / _triangle(dim, entries.device).counts.to(entries), dim)


class _Triangle(NamedTuple):
    """A symmetric `(D, D)` matrix by its upper triangle.

    upper: where that is in the flattened matrix. counts: how often the matrix has each entry of it.
    place: where in the triangle each entry of the flattened matrix is.
    """

    upper: Tensor
    counts: Tensor
    place: Tensor


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # they are kept, and must serve gradients too
def _triangle(dim: int, device: torch.device) -> _Triangle:
    row, column = torch.triu_indices(dim, dim, device=device)
    place = torch.empty(dim, dim, dtype=torch.long, device=device)
    place[row, column] = torch.arange(len(row), device=device)
    place[column, row] = place[row, column]
    counts = torch.where(row == column, 1.0, 2.0).double()
    return _Triangle(row * dim + column, counts, place.flatten())
