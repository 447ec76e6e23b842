"""Points of one dimension from a given mixture of two normals, the textbook example of EM."""

import torch

from jensen.base.errors import InputError, check_count, check_list, check_number, check_seed
from jensen.base.random import fold, normal, permutation
from jensen.data.examples import Examples, identity


def normals(
    size: int = 1000,
    alpha: float = 0.3,
    means: tuple[float, float] = (0.0, 5.0),
    sigma: float = 1.0,
    seed: int = 0,
    split: str = "train",
) -> Examples:
    """`size` points `(N, 1)` of alpha N(means[0], sigma^2) + (1 - alpha) N(means[1], sigma^2); the
    factor is the component.

    The share alpha is exact, to the nearest point. Every split is the same points: what is looked
    at is the fit to them.
    """
    check_count("size", size)
    check_number("alpha", alpha, low=0, high=1)
    check_number("sigma", sigma, low=0)
    check_seed("seed", seed)
    check_list("means", means)
    if len(means) != 2:
        raise InputError(f"means is {list(means)}: expected two numbers, one for each normal")
    for mean in means:
        check_number("means", mean)
    component = (torch.arange(size) >= round(alpha * size)).long()[
        permutation(fold(seed, "component"), size)
    ]
    noise = normal(fold(seed, "points"), torch.arange(size), (1,), torch.float64)
    points = torch.tensor(list(means), dtype=torch.float64)[component].unsqueeze(1) + sigma * noise
    return Examples(points, identity, component[:, None], ("component",), (2,))
