"""Many small sets of points, what an E-step reads of them, and arrays that are written over."""

import math
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from jensen.family.floor import Rounding
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import BITS
from jensen.family.spherical import SphericalGaussian
from jensen.family.tied import TiedGaussian


class Sets(NamedTuple):
    """M sets of points, those of each about its own origin, which is its mean as rounded to the
    data's dtype, in the order in which starts are drawn.

    x: `(M, D, N)` float64, 0 where there is no point: those come last. weight: `(M, N)`, 1 for a
    point, else 0. uniform: `(M, K, C, T)`, the draws. mean, var: `(M, D)`. origin: `(M, D)`, of the
    data's dtype.
    """

    x: Tensor
    weight: Tensor
    uniform: Tensor
    mean: Tensor
    var: Tensor
    origin: Tensor

    @property
    def whole(self) -> bool:
        """Tell whether each set has all N points, once."""
        return bool((self.weight == 1).all())

    @property
    def sizes(self) -> Tensor:
        """Points of each set, `(M,)`."""
        return self.weight.sum(-1)

    @property
    def absent(self) -> Tensor:
        """Points that are not there, of each set, `(M,)`."""
        return self.weight.shape[-1] - self.sizes

    def floor(self) -> Rounding:
        """The floor of each set's variances."""
        origin = self.origin.unsqueeze(-2)
        return Rounding.of(origin, self.var.unsqueeze(-2))


def structure_of_features(structure: type) -> type:
    """The components whose features have those of `structure` in them."""
    return FullGaussian if structure in (FullGaussian, TiedGaussian) else Gaussian


def features(sets: Sets, structure: type) -> Tensor:
    """The statistics of the points for `structure_of_features`, `(M, P, N)`, all 0 where there is
    none.
    """
    x = sets.x
    dim = x.shape[1]
    matrix = structure_of_features(structure) is FullGaussian
    width = 1 + dim + (dim * (dim + 1) // 2 if matrix else dim)
    found = x.new_empty(len(x), width, x.shape[2])
    found[:, 0] = sets.weight
    points = found[:, 1 : 1 + dim]
    points.copy_(x)
    rest = found[:, 1 + dim :]
    if not matrix:
        torch.mul(points, points, out=rest)
        return found
    row = 0
    for i in range(dim):  # a third of the time that an index of pairs takes
        torch.mul(points[:, i:], points[:, i : i + 1], out=rest[:, row : row + dim - i])
        row += dim - i
    return found


def narrowed(known: Tensor, structure: type, dim: int) -> Tensor:
    """Those of the features that are `structure`'s own."""
    if structure is TiedGaussian:
        return known[:, : 1 + dim]
    if structure is SphericalGaussian:
        return torch.cat([known[:, : 1 + dim], known[:, 1 + dim :].sum(1, keepdim=True)], 1)
    return known


def shared(sets: Sets, structure: type) -> Tensor:
    """sum x x', `(M, D, D)`, of which tied covariances alone are made."""
    if structure is not TiedGaussian:
        return sets.x.new_zeros(len(sets.x), *2 * sets.x.shape[1:2])
    return sets.x @ sets.x.mT


def responsibilities(space: "Space", log_odds: Tensor) -> tuple[Tensor, Tensor]:
    """Those of log-odds `(..., K - 1, N)` against the first component, `(..., K, N)`, and the sum
    over points of log sum_k of their exponentials, `(...)`.
    """
    *axes, others, points = log_odds.shape
    r = space("r", 1 + others, *axes, points).movedim(0, -2)  # each component's in one piece
    first = r[..., 0, :]
    if others == 1:  # a logistic function: half of the exponentials would be 1
        only = log_odds.squeeze(-2)
        value = torch.clamp(only, min=0.0, out=first).sum(-1)
        second = torch.sigmoid(only, out=r[..., 1, :])
        torch.sub(1.0, second, out=first)
        return r, value - log_of_products(torch.maximum(first, second), 2)
    first.zero_()
    torch.mul(log_odds, BITS, out=r[..., 1:, :])
    top = r.amax(-2, keepdim=True)
    evidence = r.sub_(top).clamp_(min=-937.0).exp2_().sum(-2, keepdim=True)
    value = top.sum((-2, -1)) / BITS + log_of_products(evidence.squeeze(-2), r.shape[-2])
    return r.div_(evidence), value


def log_of_products(value: Tensor, most: float) -> Tensor:
    """The sum of the logarithms of `value` `(..., N)`, each between 1 / most and most, `(...)`.

    A product of numbers that cannot leave float64 takes a tenth of the time of their logarithms.
    """
    size = max(1, int(1000 / max(1.0, math.log2(most))))
    return torch.stack([part.prod(-1) for part in torch.split(value, size, -1)]).log_().sum(0)


@final
class Space:
    """Arrays that are written over by the next of the same name: new ones, which no cache holds
    yet, take twice as long to fill.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._kept: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        size = math.prod(shape)
        kept: Any = self._kept.get(name)
        if kept is None or kept.numel() < size:
            kept = self._kept[name] = self._like.new_empty(size)
        found: Tensor = kept[:size].view(shape)
        return found
