"""Rounding as the E-step's products magnify it, and the dtype in which they are good."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor

from jensen.family.columns import Columns
from jensen.family.family import Components
from jensen.family.full import FullGaussian, full
from jensen.family.mixture import Mixture
from jensen.family.tied import TiedGaussian

_ROUNDING = 1e-3
"""float32's epsilon times the greatest `spread` or `ridge` from which on products are float64:
there the log-likelihood errs by 1e-6."""

_ROUGH_ROUNDING = 0.1
_ROUGH_MEAN = 5e-3
"""The same for rough steps, and for the mean over points: there the log-likelihood errs by 1e-4 at
most.
"""


def spread(components: Components) -> Tensor:
    """`(..., K)`: mean' covariance^-1 mean of each component, which magnifies rounding of products
    about the origin; of columns that of the continuous ones.
    """
    if isinstance(components, Columns):
        return components.spread
    whole = full(components)
    whitened = torch.linalg.solve_triangular(
        whole.scale_tril, whole.mean.unsqueeze(-1), upper=False
    )
    squares: Tensor = whitened.square().sum((-2, -1))
    return squares


def ridge(components: Components) -> Tensor:
    """`(..., K or 1)`, at least 1: how much of a column's variance the others make up, which
    magnifies rounding as `spread`.

    A direction of little variance shows in the last of its columns: little is left of that, given
    those before.
    """
    mean = components.mean
    if not isinstance(components, TiedGaussian | FullGaussian) or mean.shape[-1] == 1:
        return torch.ones_like(mean[..., 0])
    factor = components.scale_tril
    variance = factor.square().sum(-1)
    worst: Tensor = (variance / factor.diagonal(dim1=-2, dim2=-1).square()).amax(-1)
    return worst if isinstance(components, FullGaussian) else worst.unsqueeze(-1)


def figures(p: Mixture) -> Tensor:
    """The worst rounding of `p` `(R, K)`, its mean, and the greatest ridge, `(3,)`: what `Precision`
    goes by.
    """
    ridges = ridge(p.components)
    rounding = torch.finfo(torch.float32).eps * (spread(p.components) + ridges - 1)
    mean = (rounding * p.log_weight.exp()).sum(-1).max()
    return torch.stack([rounding.max(), mean, ridges.max()])


@final
class Precision:
    """In which dtype an E-step of float32 data is computed.

    The sums of a float32 step cannot resolve the covariances of a component that shrinks far below
    where it was: where `spread` or `ridge` is growing even rough steps are float64, and so is the
    first from covariances without correlations.
    """

    def __init__(self) -> None:
        self._last: float | None = None

    def __call__(
        self, p: Mixture, exact: bool, worst: float, mean_worst: float, steepest: float
    ) -> torch.dtype:
        """The dtype for `p`, whose `figures` are given."""
        last = self._last
        self._last = worst
        if last is None:
            matrix = isinstance(p.components, TiedGaussian | FullGaussian)
            blind = steepest == 1 and p.components.mean.shape[-1] > 1 and matrix
            return torch.float64 if blind or worst > _ROUNDING else torch.float32
        rough = not exact and worst <= min(_ROUGH_ROUNDING, 2 * last) and mean_worst <= _ROUGH_MEAN
        return torch.float32 if rough or worst <= _ROUNDING else torch.float64


@contextmanager
def exact_products() -> Iterator[None]:
    """float32 products in float32, whatever `torch.set_float32_matmul_precision` says: TF32 and
    bfloat16 lose the moments.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
