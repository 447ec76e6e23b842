"""Covariances by their Cholesky factors L, lower triangular with a positive diagonal, `(..., D,
D)`.
"""

import torch
from torch import Tensor

from jensen.base.unlikely import presumes, unlikely
from jensen.family.moments import like

_FEW = 4
_MANY = 512
"""Rows of a factor, and factors, from which on LAPACK, which is called for each, takes longer than
rows of all of them: up to five times.
"""


def factor(matrix: Tensor) -> Tensor:
    """L of a covariance; raises torch's LinAlgError where that is not positive definite."""
    scale_tril: Tensor
    if not presumes():
        scale_tril = torch.linalg.cholesky(matrix)
        return scale_tril
    scale_tril, failed = torch.linalg.cholesky_ex(matrix)
    unlikely(failed.any())
    return scale_tril


def solve_columns(scale_tril: Tensor, x: Tensor) -> Tensor:
    """L^-1 x for `x` `(..., D, C)`."""
    if scale_tril.shape[-1] <= _FEW and scale_tril.shape[:-2].numel() >= _MANY:
        return _substituted(scale_tril, x)
    solution: Tensor = torch.linalg.solve_triangular(scale_tril, x, upper=False)
    return solution


def _substituted(scale_tril: Tensor, x: Tensor) -> Tensor:
    """The same, row by row of all of them."""
    rows: list[Tensor] = []
    for i in range(scale_tril.shape[-1]):
        row = x[..., i, :]
        for j, before in enumerate(rows):
            row = row - scale_tril[..., i, j, None] * before
        rows.append(row / scale_tril[..., i, i, None])
    return torch.stack(rows, -2)


def solve(scale_tril: Tensor, x: Tensor) -> Tensor:
    """L^-1 x for `x` `(..., D)`."""
    return solve_columns(scale_tril, x.unsqueeze(-1)).squeeze(-1)


def log_det(scale_tril: Tensor) -> Tensor:
    """log |LL'|, `(...)`."""
    return 2 * scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def log_variances(scale_tril: Tensor) -> Tensor:
    """The logarithm of LL's diagonal, `(..., D)`."""
    return scale_tril.square().sum(-1).log()


def precision(scale_tril: Tensor) -> Tensor:
    """(LL')^-1 in float64."""
    eye = torch.eye(scale_tril.shape[-1], dtype=torch.float64, device=scale_tril.device)
    inverse = solve_columns(scale_tril.double(), eye)
    return inverse.mT @ inverse  # five times faster than torch.cholesky_inverse on small matrices


def floored(cov: Tensor, floor: Tensor | float) -> Tensor:
    """L of the covariance nearest in likelihood to `cov` `(..., D, D)` that is at least
    diag(floor).

    Maximising -log|C| - tr(C^-1 S) over C >= diag(floor) clamps the eigenvalues of S, taken in
    units of the floor, at 1.
    """
    if not isinstance(floor, Tensor) and floor == 0:
        return factor(cov)
    least = like(cov, floor).expand(cov.shape[:-1])
    below = torch.linalg.cholesky_ex(cov - least.diag_embed())[1] != 0
    if unlikely(below.any()):
        unit = least.sqrt().unsqueeze(-1) * least.sqrt().unsqueeze(-2)
        values, vectors = torch.linalg.eigh(cov / unit)
        # Slightly above 1, so that rounding does not leave a component below its floor for good.
        clamped = unit * ((vectors * values.clamp(min=1 + 1e-9).unsqueeze(-2)) @ vectors.mT)
        cov = torch.where(below.unsqueeze(-1).unsqueeze(-1), clamped, cov)
    scale_tril: Tensor = torch.linalg.cholesky_ex(cov)[0]
    return scale_tril


def free(scale_tril: Tensor, about: Tensor) -> Tensor:
    """Coordinates `(..., D(D+1)/2)` of L in units of the factor `about`, without constraints:
    about^-1 L, its diagonal as logarithms."""
    relative = solve_columns(about, scale_tril.tril())
    logs = relative.tril(-1) + relative.diagonal(dim1=-2, dim2=-1).log().diag_embed()
    row, column = _lower(about)
    entries: Tensor = logs[..., row, column]
    return entries


def of_free(entries: Tensor, about: Tensor) -> Tensor:
    """The factor with the coordinates that `free` gives."""
    row, column = _lower(about)
    relative = entries.new_zeros(*entries.shape[:-1], *about.shape[-2:])
    relative[..., row, column] = torch.where(row == column, entries.exp(), entries)
    return about @ relative


def _lower(scale_tril: Tensor) -> Tensor:
    dim = scale_tril.shape[-1]
    indices: Tensor = torch.tril_indices(dim, dim, device=scale_tril.device)
    return indices
