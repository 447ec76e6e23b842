"""x ~ N(0, Sigma) with known eigenvalues: linear models have closed-form truth on it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from jensen.base.errors import (
    InputError,
    check_count,
    check_flag,
    check_list,
    check_number,
    check_seed,
)
from jensen.base.random import fold, normal
from jensen.data.examples import Examples, identity


def covariance(variances: Sequence[float], rotate: bool = False, seed: int = 0) -> Tensor:
    """Sigma, `(D, D)` float64: diag(variances), rotated by a random orthogonal matrix if
    `rotate`.
    """
    root = _root(variances, rotate, seed)
    return root @ root.T


def _root(variances: Sequence[float], rotate: bool, seed: int) -> Tensor:
    check_list("variances", variances)
    if not len(variances):
        raise InputError("variances is empty: expected one positive number for each dimension")
    for value in variances:
        check_number("variances", value, low=1e-12)
    check_flag("rotate", rotate)
    check_seed("seed", seed)
    dim = len(variances)
    axes = torch.eye(dim, dtype=torch.float64)
    if rotate:
        axes = torch.linalg.qr(
            normal(fold(seed, "axes"), torch.arange(dim), (dim,), torch.float64)
        ).Q
    return axes * torch.tensor(list(variances), dtype=torch.float64).sqrt()


def gaussian(
    size: int = 10_000,
    variances: Sequence[float] = (4.0, 2.0, 1.0, 0.5, 0.25),
    rotate: bool = False,
    exact: bool = True,
    seed: int = 0,
    split: str = "train",
) -> Examples:
    """`size` points of N(0, Sigma), Sigma as in `covariance`; those of another `split` are others.

    With `exact` the sample's own mean and covariance are 0 and Sigma to rounding, so what a linear
    model can reach is known without sampling error.

    Raises:
        InputError: a variance that is not positive, or fewer points than `exact` needs (one more
            than dimensions).
    """
    check_count("size", size)
    check_flag("exact", exact)
    root = _root(variances, rotate, seed)
    if exact and size <= len(variances):
        raise InputError(
            f"size is {size}: expected more than {len(variances)} points, or exact=false"
        )
    points = normal(
        fold(seed, "points", split), torch.arange(size), (len(variances),), torch.float64
    )
    if exact:
        points = points - points.mean(0)
        scale = torch.linalg.cholesky(points.T @ points / size)
        points = torch.linalg.solve_triangular(scale, points.T, upper=False).T
    return Examples((points @ root.T).float(), identity)
