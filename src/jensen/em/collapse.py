"""Components that are none: on the floor of their variance, since their points are copies of one
another or lie in a plane; or the twin of another.
"""

import math

import torch
from torch import Tensor

from jensen.family.cholesky import log_det
from jensen.family.family import are_gaussians, gaussians
from jensen.family.floor import Rounding
from jensen.family.full import FullGaussian, full
from jensen.family.mixture import Mixture
from jensen.family.moments import like
from jensen.family.spherical import SphericalGaussian
from jensen.family.tied import TiedGaussian

_ALIKE = 0.05
"""Deviations, of mean and of covariance, below which two components are one: to tell them apart
takes 1 / 0.05^4 points.
"""


def on_floor(p: Mixture, floor: Tensor | float | Rounding) -> Tensor:
    """The components with at most twice the least variance in some direction, `(..., K)` bool; none
    at a floor of 0.
    """
    if not are_gaussians(p.components):
        return torch.zeros_like(p.log_weight, dtype=torch.bool)
    components = gaussians(p.components)
    least = _least(p, floor)
    if not isinstance(components, TiedGaussian | FullGaussian):
        return (components.marginals().log_var.exp() <= 2 * least).any(-1)
    # In units of the floor, so that columns of unlike size do not hide one another.
    factor = components.cholesky() / least.sqrt().unsqueeze(-1).clamp(min=1e-300)
    # The determinant is at most the narrowest times the others, each at most the whole's norm: where
    # that leaves more than the floor, which is nearly always, no singular values are needed.
    others = (factor.shape[-1] - 1) * factor.square().sum((-2, -1)).log()
    if bool((log_det(factor) - others > math.log(2)).all()):
        return torch.zeros_like(p.log_weight, dtype=torch.bool)
    narrowest: Tensor = torch.linalg.svdvals(factor.nan_to_num())[..., -1]
    return narrowest.square() <= 2


def _least(p: Mixture, floor: Tensor | float | Rounding) -> Tensor:
    """The floor of each component, `(..., K, D)`, as the M-step has it (`Components.maximise`)."""
    components = gaussians(p.components)
    mean = components.mean
    if not isinstance(floor, Rounding):
        least = like(mean, floor).expand(mean.shape)
        return least.amax(-1, keepdim=True) if isinstance(components, SphericalGaussian) else least
    matrix = isinstance(components, TiedGaussian | FullGaussian)
    second = components.marginals().log_var.exp() + (mean.square() if floor.shared else 0)
    least = floor.summed(floor.stored(mean), second, mean.shape[-1] if matrix else 1)
    if isinstance(components, SphericalGaussian):
        return least.mean(-1, keepdim=True)
    if isinstance(components, TiedGaussian):
        least = p.log_weight.exp().unsqueeze(-2) @ least
    return least


def twins(p: Mixture) -> list[tuple[int, int]]:
    """The pairs `(i, j)`, i < j, of components of `p` `(K,)` with the same mean and covariance,
    whatever their units.

    They are a mixture of fewer, which no likelihood can tell from that of as many.
    """
    if not are_gaussians(p.components):
        return []
    mean, factor = full(gaussians(p.components))
    pairs = []
    for first in range(len(mean) - 1):
        moved = _whitened(factor[first], (mean[first + 1 :] - mean[first]).mT).norm(dim=0)
        for place in (moved < _ALIKE).nonzero().flatten().tolist():
            second = first + 1 + place
            shape = _whitened(factor[first], factor[second])
            if float((shape @ shape.mT - torch.eye(len(shape)).to(shape)).norm()) < _ALIKE:
                pairs.append((first, second))
    return pairs


def _whitened(factor: Tensor, columns: Tensor) -> Tensor:
    solved: Tensor = torch.linalg.solve_triangular(factor, columns, upper=False)
    return solved
