"""Mixtures of Gaussians of points that have an error of their own, whose covariance is known.

Extreme deconvolution (Bovy, Hogg & Roweis 2011, eq. 14-16): the point without its error is a
further hidden variable, known by x to within N(b, B) under each component, and enters the moments
by those. With values missing as well, x are those that are there. Without error it is plain EM.
"""

import torch
from torch import Tensor

from jensen.em.local import Local
from jensen.em.missing import in_structure, patterns
from jensen.em.stream import Chunks
from jensen.family.full import full
from jensen.family.gaussian import LOG_2PI
from jensen.family.mixture import Mixture, logsumexp

_LIMIT = 1 << 18
"""Elements of a temporary `(..., K, n, D, D)`: 2 MiB of float64."""


def local(chunks: Chunks, noise: Tensor, origin: Tensor, p: Mixture, beta: float = 1.0) -> Local:
    """`em.local.expect` for points with covariances `noise` `(N, D, D)`, in the order of the
    chunks.
    """
    mean, scale_tril = full(p.components)
    wide = scale_tril @ scale_tril.mT
    total = mean.new_zeros(mean.shape[:-2])
    count = mean.new_zeros(mean.shape[:-1])
    first = torch.zeros_like(mean)
    second = torch.zeros_like(wide)
    start = 0
    for raw, weight in chunks(max(1, _LIMIT // wide.numel())):
        points = raw.double() - origin.double()
        errors = noise[start : start + len(raw)]
        start += len(raw)
        for rows, observed, _ in patterns(points):
            w = 1.0 if weight is None else weight[rows].double()
            deviations = points[rows][:, observed] - mean[..., observed].unsqueeze(-2)
            block = errors[rows][:, observed][..., observed]
            density, filled, left = _condition(deviations, block, wide, observed)
            joint = p.log_weight_of_points() + density / beta
            total = total + beta * (logsumexp(joint, -1) * w).sum(-1)
            r = joint.softmax(-1).mT * w  # (..., K, n)
            weighted = r.unsqueeze(-1) * filled
            count = count + r.sum(-1)
            first = first + weighted.sum(-2)
            second = second + weighted.mT @ filled + (r[..., None, None] * left).sum(-3)
    return in_structure(p, total, count, first, second)


def _condition(
    deviations: Tensor, errors: Tensor, wide: Tensor, observed: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """log N of each point `(..., n, K)`, and what is known of it without its error: b - mean `(...,
    K, n, D)` and B `(..., K, n, D, D)`.

    deviations: `(..., K, n, o)`. errors: `(n, o, o)`. wide: the components' `(..., K, D, D)`.
    """
    across = wide[..., observed, :]  # (..., K, o, D)
    both = across[..., observed].unsqueeze(-3) + errors
    factor = torch.linalg.cholesky(both)
    whitened: Tensor = torch.linalg.solve_triangular(factor, deviations.unsqueeze(-1), upper=False)
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    distance = whitened.square().sum((-2, -1))
    density = -0.5 * (distance + log_det + len(observed) * LOG_2PI)
    half = torch.linalg.solve_triangular(
        factor, across.unsqueeze(-3).expand(*factor.shape[:-1], across.shape[-1]), upper=False
    )
    filled = (half.mT @ whitened).squeeze(-1)
    return density.mT, filled, wide.unsqueeze(-3) - half.mT @ half
