"""Marginals, conditionals and products of Gaussians with all of their covariance. All values are in
nats.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from jensen.family import cholesky
from jensen.family.full import FullGaussian
from jensen.family.multivariate import Normal


def covariance(p: FullGaussian) -> Tensor:
    """`(..., D, D)`."""
    return p.scale_tril @ p.scale_tril.mT


def entropy(p: FullGaussian) -> Tensor:
    """Differential entropy, `(...)`."""
    return Normal(*p).entropy()


def kl(q: FullGaussian, p: FullGaussian) -> Tensor:
    """KL(q || p), `(...)`, closed form."""
    return Normal(*q).kl_to(Normal(*p))


def marginal(p: FullGaussian, dims: Sequence[int]) -> FullGaussian:
    """The joint of the coordinates `dims`, in that order."""
    keep = list(dims)
    return FullGaussian(p.mean[..., keep], cholesky.factor(covariance(p)[..., keep, :][..., keep]))


def condition(p: FullGaussian, dims: Sequence[int], values: Tensor) -> FullGaussian:
    """The other coordinates, in order, given that `dims` are `values` `(..., len(dims))`.

    With `dims` first, L = [[A, 0], [B, C]]: the mean is B A^-1 (values - mean) away, and C C' is
    the Schur complement (Bishop 2006, eq. 2.81-2.82), which is so found without a difference.
    """
    size = p.mean.shape[-1]
    given = [dim % size for dim in dims]
    rest = [dim for dim in range(size) if dim not in given]
    ordered = marginal(p, [*given, *rest])
    cut = len(given)
    whitened = cholesky.solve(ordered.scale_tril[..., :cut, :cut], values - ordered.mean[..., :cut])
    shift = (ordered.scale_tril[..., cut:, :cut] @ whitened.unsqueeze(-1)).squeeze(-1)
    return FullGaussian(ordered.mean[..., cut:] + shift, ordered.scale_tril[..., cut:, cut:])


def product(experts: FullGaussian) -> tuple[FullGaussian, Tensor]:
    """The normalised product of E densities `(..., E, D)`, and the log of its normaliser, `(...,
    D)` and `(...)`.

    Precisions add (Hinton 2002; Cao & Fleet 2014, eq. 4).
    """
    precision = torch.cholesky_inverse(experts.scale_tril)
    total = cholesky.factor(precision.sum(-3))
    linear = (precision @ experts.mean.unsqueeze(-1)).sum(-3)
    mean = torch.cholesky_solve(linear, total).squeeze(-1)
    fused = FullGaussian(mean, cholesky.factor(torch.cholesky_inverse(total)))
    return fused, experts.log_prob(mean.unsqueeze(-2)).sum(-1) - fused.log_prob(mean)


def mle(x: Tensor, weights: Tensor | None = None) -> FullGaussian:
    """The maximum-likelihood Gaussian of points `(..., N, D)` with `weights` `(..., N)`.

    Raises torch's LinAlgError where the points lie in a plane.
    """
    weights = torch.ones_like(x[..., 0]) if weights is None else weights
    part = (weights / weights.sum(-1, keepdim=True)).unsqueeze(-1)
    mean = (part * x).sum(-2)
    deviations = x - mean.unsqueeze(-2)
    return FullGaussian(mean, cholesky.factor((part * deviations).mT @ deviations))
