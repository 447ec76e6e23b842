"""Points from a known mixture of spherical Gaussians."""

import torch
from torch import Tensor

from jensen.base.errors import check_count, check_number, check_seed
from jensen.base.random import fold, normal, permutation
from jensen.data.examples import Examples, identity


def centres(components: int, dim: int, spread: float, seed: int = 0) -> Tensor:
    """The mixture's means, `(K, D)` float64, drawn from N(0, spread^2 I)."""
    return spread * normal(fold(seed, "centres"), torch.arange(components), (dim,), torch.float64)


def blobs(
    size: int = 10_000,
    dim: int = 2,
    components: int = 5,
    spread: float = 5.0,
    scale: float = 1.0,
    seed: int = 0,
) -> Examples:
    """`size` points of `dim` dimensions about `centres`, with standard deviation `scale`; the
    factor is the component.

    Every component has the same number of points, give or take one.
    """
    for name, count in (("size", size), ("dim", dim), ("components", components)):
        check_count(name, count)
    check_number("spread", spread, low=0)
    check_number("scale", scale, low=0)
    check_seed("seed", seed)
    component = (torch.arange(size) % components)[permutation(fold(seed, "component"), size)]
    noise = normal(fold(seed, "points"), torch.arange(size), (dim,), torch.float64)
    points = centres(components, dim, spread, seed)[component] + scale * noise
    return Examples(points.float(), identity, component[:, None], ("component",), (components,))
