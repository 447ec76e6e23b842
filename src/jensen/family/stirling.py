"""Divergences of the log-gamma function without the difference of large numbers: of concentrations of
1e10 its values are 2e11, of which float64 keeps five digits behind the point.

    log Gamma(a) = a log a - a + rest(a),   rest(a) ~ log(2 pi / a) / 2

The first part has divergences in closed form, and the second is small.
"""

import math

import torch
from torch import Tensor

_FEW = 10.0
"""From here on five terms of Stirling's series leave 2e-14."""

_SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)


def rest_divergence(p: Tensor, q: Tensor) -> Tensor:
    """rest(p) - rest(q) - rest'(q) (p - q), `(...)`: the part of a Bregman divergence."""
    return _rest(p) - _rest(q) - _slope(q) * (p - q)


def rest_entropy(a: Tensor, count: int) -> Tensor:
    """log Gamma(a) - (a - count) digamma(a) + a, `(...)`."""
    return count * a.log() + _rest(a) - (a - count) * _slope(a)


def excess(ratio: Tensor) -> Tensor:
    """ratio - 1 - log ratio, `(...)`, at least 0."""
    return ratio - 1 - ratio.log()


def _rest(a: Tensor) -> Tensor:
    """log Gamma(a) - a log a + a."""
    few = a.clamp(max=_FEW)
    many = a.clamp(min=_FEW)
    series = torch.zeros_like(a)
    for coefficient in reversed(_SERIES):
        series = coefficient + series / many.square()
    far = 0.5 * (math.log(2 * math.pi) - many.log()) + series / many
    return torch.where(a > _FEW, far, torch.lgamma(few) - few * few.log() + few)


def _slope(a: Tensor) -> Tensor:
    """Its derivative, digamma(a) - log a."""
    few = a.clamp(max=_FEW)
    many = a.clamp(min=_FEW)
    series = torch.zeros_like(a)
    for order, coefficient in reversed([*enumerate(_SERIES)]):
        series = (2 * order + 1) * coefficient + series / many.square()
    far = -0.5 / many - series / many.square()
    return torch.where(a > _FEW, far, torch.digamma(few) - few.log())
