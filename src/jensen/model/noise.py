"""The error that each point has of its own, as people give it."""

from typing import Any

import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.model.arrays import as_tensor
from jensen.model.points import Points

_SYMMETRIC = 1e-6
"""Part of its size by which a covariance may differ from its transpose, or be negative."""


def covariances(noise: Any, x: Any, points: Points) -> Tensor | None:
    """Covariances `(N, D, D)` float64 of the points, of variances `(N, D)` or covariances.

    Raises:
        InputError: another shape; a negative variance; a matrix that is none; batches.
    """
    if noise is None:
        return None
    if not points.array:
        raise InputError(
            "noise came with batches: expected an array x; give x as one array or memory map"
        )
    found = as_tensor("noise", noise).detach().to(points.device, torch.float64)
    count, dim = (x if hasattr(x, "shape") else as_tensor("x", x)).shape
    if found.shape not in ((count, dim), (count, dim, dim)):
        raise InputError(
            f"noise has the shape {tuple(found.shape)}: expected {(count, dim)}, a variance for"
            f" each number of x, or {(count, dim, dim)}, a covariance for each point"
        )
    if not bool(found.isfinite().all()):
        raise InputError(
            "noise holds NaN or an infinite number: expected finite variances; give missing=True"
            " and NaN in x for numbers that nothing is known of"
        )
    if found.dim() == 2:
        if bool((found < 0).any()):
            raise InputError(
                f"noise holds {float(found.min()):g}: expected variances of at least 0; square"
                " deviations"
            )
        return found.diag_embed()
    size = found.abs().amax((-2, -1), keepdim=True)
    skew = (found - found.mT).abs() > _SYMMETRIC * size
    worst = torch.linalg.eigvalsh(0.5 * (found + found.mT))[:, 0]
    bad = skew.flatten(1).any(1) | (worst < -_SYMMETRIC * size.flatten())
    if bool(bad.any()):
        raise InputError(
            f"noise[{int(bad.nonzero()[0])}] is no covariance: expected a symmetric matrix without"
            " negative eigenvalues"
        )
    return 0.5 * (found + found.mT)
