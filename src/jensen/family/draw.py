"""Draws of a distribution by keys: example i gets the same whatever else is drawn, on any device
and rank.
"""

import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.base.random import fold, normal, uniform
from jensen.family import gaussian, mixture
from jensen.family.family import Drawable, Family, Product, gaussians
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture


def draw(
    p: Family, key: int, index: Tensor, dim: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draws `(B, dim)` for examples `index` `(B,)`; see `base.random`.

    Args:
        dtype: of the draws, and of what makes them.

    Raises:
        InputError: a distribution of one's own that has a density alone.
    """
    noise = normal(key, index, (dim,)).to(dtype)
    if isinstance(p, Mixture):
        chance = uniform(fold(key, "component"), index, (1,))[:, 0]
        if not isinstance(p.components, Gaussian):
            return mixture.sample(p, chance, noise).to(noise.dtype)
        return of_mixture(p, chance, noise)
    if isinstance(p, Product):
        chance = uniform(fold(key, "component"), index, (dim,))
        return of_mixture(p.factors, chance.mT, noise.mT.unsqueeze(-1)).squeeze(-1).mT
    if not isinstance(p, Drawable):
        raise InputError(
            f"model.prior gives a {type(p).__name__}, which has no rsample: expected a method that"
            " turns standard normal noise into draws; add one, or leave out diagnostics=[samples]"
        )
    return p.rsample(noise)


def of_mixture(p: Mixture, chance: Tensor, noise: Tensor) -> Tensor:
    """Draws `(..., N, D)` of a mixture of diagonal Gaussians, from draws in [0, 1) `(..., N)` and
    standard normal noise.
    """
    cumulative = p.log_weight.exp().cumsum(-1)
    at = (chance.to(cumulative) * cumulative[..., -1:]).contiguous()
    component = torch.searchsorted(cumulative, at, right=True).clamp(max=cumulative.shape[-1] - 1)
    place = component.unsqueeze(-1).expand(noise.shape)
    mean, log_var = (part.gather(-2, place) for part in gaussians(p.components).marginals())
    return gaussian.sample(Gaussian(mean, log_var), noise.to(mean)).to(noise.dtype)
