"""Mixtures of Gaussians with missing values: each point counts by its marginal over the coordinates
it has.

EM with the missing coordinates as further hidden variables (Ghahramani & Jordan 1994): they enter
the moments by their conditional mean and covariance under each component, so it is exact where
values are missing at random. Points are taken pattern by pattern, in float64; missing values are
NaN.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from jensen.em.local import Local
from jensen.em.stream import Chunks, Statistics
from jensen.family.family import gaussians
from jensen.family.full import FullGaussian, full
from jensen.family.gaussian import LOG_2PI
from jensen.family.mixture import Mixture, logsumexp
from jensen.family.moments import Moments
from jensen.family.spherical import SphericalGaussian
from jensen.family.tied import TiedGaussian


def patterns(x: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The rows, the observed and the missing columns of each pattern of NaN in `x` `(N, D)`."""
    patterns, which = torch.unique(x.isnan(), dim=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        yield (
            (which == number).nonzero().squeeze(1),
            (~pattern).nonzero().squeeze(1),
            pattern.nonzero().squeeze(1),
        )


def _whiten(x: Tensor, p: Mixture, observed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For rows with the same pattern: log N of what is observed `(..., n, K)`, and what their
    conditionals need.

    Those are the deviations from the means `(..., K, n, o)`, the same whitened `(..., K, o, n)`,
    and an orthonormal basis `(..., K, D, o)` of the observed rows of the Cholesky factors.
    """
    whole = full(p.components)
    # L_o' = QR makes R'R = L_o L_o': no covariance is formed that might have lost its rank.
    basis, factor = torch.linalg.qr(whole.scale_tril.double()[..., observed, :].mT)
    deviations = x[:, observed].double().unsqueeze(-3) - whole.mean[
        ..., observed
    ].double().unsqueeze(-2)
    whitened = torch.linalg.solve_triangular(factor.mT, deviations.mT, upper=False)
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1, keepdim=True)
    density = -0.5 * (whitened.square().sum(-2) + log_det + len(observed) * LOG_2PI)
    return density.mT, deviations, whitened, basis


def log_density(x: Tensor, p: Mixture) -> Tensor:
    """log N of the observed coordinates, `(N, D)` with NaN to `(..., N, K)` float64; 0 for a point
    that has none.
    """
    parts = [(rows, _whiten(x[rows], p, observed)[0]) for rows, observed, _ in patterns(x)]
    order = torch.cat([rows for rows, _ in parts]).argsort()
    return torch.cat([density for _, density in parts], -2)[..., order, :]


def local(chunks: Chunks, origin: Tensor, p: Mixture, beta: float = 1.0, size: int = 4096) -> Local:
    """`em.local.expect` for points with NaN: the E-step over the components and the missing
    values.
    """
    return in_structure(p, *_sums(chunks, origin, p, beta, size))


def in_structure(
    p: Mixture, log_likelihood: Tensor, count: Tensor, first: Tensor, second: Tensor
) -> Local:
    """Sums with all of the second moment, `(..., K, D, D)`, as the structure of `p` takes them."""
    if isinstance(p.components, TiedGaussian):
        second = second.sum(-3)
    elif not isinstance(p.components, FullGaussian):
        second = second.diagonal(dim1=-2, dim2=-1)
        second = second.sum(-1) if isinstance(p.components, SphericalGaussian) else second
    moments = Moments(p.components.mean, count, first, second)
    return Local(log_likelihood, moments, torch.zeros_like(log_likelihood))


def expect(
    chunks: Chunks, origin: Tensor, p: Mixture, beta: float = 1.0, size: int = 4096
) -> Statistics:
    """The same as `em.stream.Stream` has it, about the origin."""
    log_likelihood, count, first, second = _sums(chunks, origin, p, beta, size)
    mean = p.components.mean
    across = first.unsqueeze(-1) * mean.unsqueeze(-2)
    first = first + count.unsqueeze(-1) * mean
    second = second + across.mT + first.unsqueeze(-1) * mean.unsqueeze(-2)
    return Statistics(
        log_likelihood,
        gaussians(p.components).layout(mean.shape[-1]).pack(count, first, second),
        second.sum(-3),
    )


def _sums(
    chunks: Chunks, origin: Tensor, p: Mixture, beta: float, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The log-likelihood `(...)`, and about the means the moments with all of the second: `(...,
    K)` to `(..., K, D, D)`.
    """
    mean, scale_tril = full(p.components)
    total = mean.new_zeros(mean.shape[:-2])
    count = mean.new_zeros(mean.shape[:-1])
    first = torch.zeros_like(mean)
    second = mean.new_zeros(*mean.shape, mean.shape[-1])
    for raw, weight in chunks(size):
        points = raw.double() - origin.double()
        for rows, observed, missing in patterns(points):
            x = points[rows]
            w = 1.0 if weight is None else weight[rows].double()
            density, deviations, whitened, basis = _whiten(x, p, observed)
            joint = p.log_weight_of_points() + density / beta
            total = total + beta * (logsumexp(joint, -1) * w).sum(-1)
            r = joint.softmax(-1).mT * w  # (..., K, n)

            rest = scale_tril[..., missing, :]
            across = (rest @ basis).mT
            filled = deviations.new_empty(*mean.shape[:-1], *x.shape)
            filled[..., observed] = deviations
            filled[..., missing] = whitened.mT @ across
            weighted = r.unsqueeze(-1) * filled
            count = count + r.sum(-1)
            first = first + weighted.sum(-2)
            second += weighted.mT @ filled
            left = rest @ rest.mT - across.mT @ across
            place = missing.unsqueeze(-1), missing
            second[..., place[0], place[1]] += r.sum(-1)[..., None, None] * left
    return total, count, first, second
