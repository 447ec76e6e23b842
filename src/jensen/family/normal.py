"""Multivariate normals N(mean, L L') by their Cholesky factor. All values are in nats."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from jensen.family.gaussian import LOG_2PI, Gaussian


class Normal(NamedTuple):
    """`mean` is `(..., D)`, `scale_tril` the lower triangular L with positive diagonal, `(..., D, D)`."""

    mean: Tensor
    scale_tril: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x), `(..., D)` to `(...)`, in nats."""
        return log_density(x, self)

    def rsample(self, noise: Tensor) -> Tensor:
        """A draw from standard normal `noise`, `(..., D)`."""
        return sample(self, noise)

    def entropy(self) -> Tensor:
        """Differential entropy, `(...)`, in nats."""
        return entropy(self)

    def marginal(self, latent: int) -> Gaussian:
        """The distribution of one coordinate, `(..., 1)`."""
        return self.diagonal().marginal(latent)

    def diagonal(self) -> Gaussian:
        """The diagonal Gaussian with the same marginals, `(..., D)`."""
        return Gaussian(self.mean, self.scale_tril.square().sum(-1).log())


def _solve(scale_tril: Tensor, x: Tensor) -> Tensor:
    """L^-1 x for `x` `(..., D)`."""
    solution: Tensor = torch.linalg.solve_triangular(scale_tril, x.unsqueeze(-1), upper=False)
    return solution.squeeze(-1)


def _cholesky(matrix: Tensor) -> Tensor:
    scale_tril: Tensor = torch.linalg.cholesky(matrix)
    return scale_tril


def _half_log_det(scale_tril: Tensor) -> Tensor:
    return scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def covariance(p: Normal) -> Tensor:
    """`(..., D, D)`."""
    return p.scale_tril @ p.scale_tril.mT


def sample(p: Normal, noise: Tensor) -> Tensor:
    """mean + L noise, `(..., D)` for `noise` ~ N(0, I)."""
    return p.mean + (p.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)


def log_density(x: Tensor, p: Normal) -> Tensor:
    """log N(x; p), `(..., D)` to `(...)`."""
    squares = _solve(p.scale_tril, x - p.mean).square().sum(-1)
    return -0.5 * (squares + x.shape[-1] * LOG_2PI) - _half_log_det(p.scale_tril)


def entropy(p: Normal) -> Tensor:
    """Differential entropy, `(...)`."""
    return 0.5 * p.mean.shape[-1] * (1 + LOG_2PI) + _half_log_det(p.scale_tril)


def kl(q: Normal, p: Normal) -> Tensor:
    """KL(q || p), `(...)`, closed form."""
    ratio: Tensor = torch.linalg.solve_triangular(p.scale_tril, q.scale_tril, upper=False)
    distance = _solve(p.scale_tril, q.mean - p.mean).square().sum(-1)
    traces = ratio.square().sum((-2, -1)) - q.mean.shape[-1]
    return 0.5 * (traces + distance) + _half_log_det(p.scale_tril) - _half_log_det(q.scale_tril)


def marginal(p: Normal, dims: Sequence[int]) -> Normal:
    """The joint of the coordinates `dims`, in that order."""
    keep = list(dims)
    return Normal(p.mean[..., keep], _cholesky(covariance(p)[..., keep, :][..., keep]))


def condition(p: Normal, dims: Sequence[int], values: Tensor) -> Normal:
    """The other coordinates, in order, given that `dims` are `values` `(..., len(dims))`.

    With `dims` first, L = [[A, 0], [B, C]]: the mean is B A^-1 (values - mean) away, and C C' is the Schur complement (Bishop
    2006, eq. 2.81-2.82), which is so found without a difference.
    """
    given = [dim % p.mean.shape[-1] for dim in dims]
    rest = [dim for dim in range(p.mean.shape[-1]) if dim not in given]
    ordered = marginal(p, [*given, *rest])
    cut = len(given)
    whitened = _solve(ordered.scale_tril[..., :cut, :cut], values - ordered.mean[..., :cut])
    shift = (ordered.scale_tril[..., cut:, :cut] @ whitened.unsqueeze(-1)).squeeze(-1)
    return Normal(ordered.mean[..., cut:] + shift, ordered.scale_tril[..., cut:, cut:])


def product(experts: Normal) -> tuple[Normal, Tensor]:
    """The normalised product of E densities `(..., E, D)`, and the log of its normaliser, `(..., D)` and `(...)`.

    Precisions add (Hinton 2002; Cao & Fleet 2014, eq. 4).
    """
    precision = torch.cholesky_inverse(experts.scale_tril)
    total = _cholesky(precision.sum(-3))
    linear = (precision @ experts.mean.unsqueeze(-1)).sum(-3)
    mean = torch.cholesky_solve(linear, total).squeeze(-1)
    fused = Normal(mean, _cholesky(torch.cholesky_inverse(total)))
    return fused, log_density(mean.unsqueeze(-2), experts).sum(-1) - log_density(mean, fused)


def mle(x: Tensor, weights: Tensor | None = None) -> Normal:
    """The maximum-likelihood normal of points `(..., N, D)` with `weights` `(..., N)`.

    Raises torch's LinAlgError where the points lie in a plane.
    """
    weights = torch.ones_like(x[..., 0]) if weights is None else weights
    part = (weights / weights.sum(-1, keepdim=True)).unsqueeze(-1)
    mean = (part * x).sum(-2)
    deviations = x - mean.unsqueeze(-2)
    return Normal(mean, _cholesky((part * deviations).mT @ deviations))
