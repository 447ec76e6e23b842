"""Components that have no more variance than a floor allows: their points are copies of one
another, or lie in a plane.
"""

import torch
from torch import Tensor

from jensen.family.floor import Rounding
from jensen.family.full import FullGaussian
from jensen.family.mixture import Mixture
from jensen.family.moments import like
from jensen.family.spherical import SphericalGaussian
from jensen.family.tied import TiedGaussian


def on_floor(p: Mixture, floor: Tensor | float | Rounding) -> Tensor:
    """The components with at most twice the least variance in some direction, `(..., K)` bool; none
    at a floor of 0.
    """
    components = p.components
    least = _least(p, floor)
    if not isinstance(components, TiedGaussian | FullGaussian):
        return (components.marginals().log_var.exp() <= 2 * least).any(-1)
    # In units of the floor, so that columns of unlike size do not hide one another.
    factor = components.cholesky() / least.sqrt().unsqueeze(-1).clamp(min=1e-300)
    narrowest: Tensor = torch.linalg.svdvals(factor.nan_to_num())[..., -1]
    return narrowest.square() <= 2


def _least(p: Mixture, floor: Tensor | float | Rounding) -> Tensor:
    """The floor of each component, `(..., K, D)`, as the M-step has it (`Components.maximise`)."""
    components = p.components
    mean = p.components.mean
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
