"""Mixtures of Gaussians with missing values: each point counts by its marginal over the coordinates it has.

EM with the missing coordinates as further hidden variables (Ghahramani & Jordan 1994): they enter the moments by their
conditional mean and covariance under each component, so it is exact where values are missing at random. Points are taken
pattern by pattern, in float64; missing values are NaN.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from jensen.core.gaussian import LOG_2PI
from jensen.core.mixture import Mixture, logsumexp
from jensen.core.stream import Chunks, Statistics


def _patterns(x: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The rows, the observed and the missing columns of each pattern of NaN in `x` `(N, D)`."""
    patterns, which = torch.unique(x.isnan(), dim=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        yield (which == number).nonzero().squeeze(1), (~pattern).nonzero().squeeze(1), pattern.nonzero().squeeze(1)


def _whiten(x: Tensor, p: Mixture, observed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of rows with the same pattern: log N of what is observed `(..., n, K)`, and what their conditionals need.

    That is the covariances `(..., K, D, D)`, the Cholesky factors of their observed part and the whitened deviations.
    """
    full = p.components.full()
    scale_tril = full.scale_tril.double()
    cov = scale_tril @ scale_tril.mT
    factor = torch.linalg.cholesky(cov[..., observed, :][..., observed])
    deviations = x[:, observed].double().unsqueeze(-3) - full.mean[..., observed].double().unsqueeze(-2)  # (..., K, n, o)
    whitened = torch.linalg.solve_triangular(factor, deviations.mT, upper=False)
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
    density = -0.5 * (whitened.square().sum(-2) + log_det + len(observed) * LOG_2PI)
    return density.mT, cov, factor, whitened


def log_density(x: Tensor, p: Mixture) -> Tensor:
    """log N of the observed coordinates, `(N, D)` with NaN to `(..., N, K)` float64; 0 for a point that has none."""
    parts = [(rows, _whiten(x[rows], p, observed)[0]) for rows, observed, _ in _patterns(x)]
    order = torch.cat([rows for rows, _ in parts]).argsort()
    return torch.cat([density for _, density in parts], -2)[..., order, :]


def expect(chunks: Chunks, origin: Tensor, p: Mixture, beta: float = 1.0, size: int = 4096) -> Statistics:
    """`core.stream.Stream` for points with NaN: the E-step over the components and the missing values."""
    mean = p.components.mean
    total = mean.new_zeros(mean.shape[:-2])
    count, first = mean.new_zeros(mean.shape[:-1]), torch.zeros_like(mean)
    second = mean.new_zeros(*mean.shape, mean.shape[-1])
    for raw, weight in chunks(size):
        points = raw.double() - origin.double()
        for rows, observed, missing in _patterns(points):
            x, w = points[rows], 1.0 if weight is None else weight[rows].double()
            density, cov, factor, whitened = _whiten(x, p, observed)
            joint = p.log_weight_of_points() + density / beta
            total = total + beta * (logsumexp(joint, -1) * w).sum(-1)
            r = joint.softmax(-1).mT * w  # (..., K, n)

            across = torch.linalg.solve_triangular(factor, cov[..., observed, :][..., missing], upper=False)
            filled = x.expand(*mean.shape[:-1], *x.shape).clone()
            filled[..., missing] = mean[..., missing].unsqueeze(-2) + whitened.mT @ across
            weighted = r.unsqueeze(-1) * filled
            count, first = count + r.sum(-1), first + weighted.sum(-2)
            second += weighted.mT @ filled
            left = cov[..., missing, :][..., missing] - across.mT @ across
            place = missing.unsqueeze(-1), missing
            second[..., place[0], place[1]] += r.sum(-1)[..., None, None] * left
    return Statistics(total, p.components.pack(count, first, second), second.sum(-3))
