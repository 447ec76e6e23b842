"""Losses by which a score s(x), the gradient of a log-density, is learned without that density.

Both are least at the score of the data's density; at it, `hyvarinen` is minus half the Fisher
information.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp, vmap

Score = Callable[[Tensor], Tensor]
"""`(N, D)` to `(N, D)`, each row by itself."""


def hyvarinen(score: Score, x: Tensor) -> Tensor:
    """1/2 |s(x)|^2 + div s(x) at each point, `(N, D)` to `(N,)`: Hyvarinen 2005 (JMLR 6), eq. 4, with
    the exact divergence, a pass a dimension.

    Its mean is 1/2 E |s - s*|^2 - 1/2 E |s*|^2, for the score s* of the points' density.

    >>> hyvarinen(lambda x: -x, torch.tensor([[1.0, 1.0]]))
    tensor([-1.])
    """

    made: Any = vjp(score, x)
    found, pull = made

    def along(direction: Tensor) -> Tensor:
        turned: Tensor = pull(direction.expand_as(x))[0] @ direction
        return turned

    both: Tensor = 0.5 * found.square().sum(-1) + vmap(along)(torch.eye(x.shape[-1]).to(x)).sum(0)
    return both


def denoising(score: Score, x: Tensor, sigma: float | Tensor, noise: Tensor) -> Tensor:
    """1/2 |s(x + sigma noise) + noise / sigma|^2 at each point, `(N, D)` to `(N,)`: Vincent 2011
    (Neural Computation 23), eq. 11. `noise`: standard normal, `(N, D)`.

    Least, on average, at the score of the points' density under that noise.

    >>> denoising(lambda x: -x, torch.zeros(1, 2), 1.0, torch.ones(1, 2))
    tensor([0.])
    """
    return 0.5 * (score(x + sigma * noise) + noise / sigma).square().sum(-1)
