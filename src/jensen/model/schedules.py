"""Noise levels that a diffusion is asked about: gamma as a rising function of t in [0, 1].

The bound depends on the two ends alone (Kingma et al. 2021, arXiv 2107.00630, section 4.1). What lies
between them decides how much it scatters.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

Schedule = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""t `(N,)` and both ends `()` to gamma and its slope, `(N,)` each."""

_MIDDLE = -0.5
_WIDTH = 1.5
_UNITS = 32
_STEEP = 24.0
"""A unit of the monotone network rises within a sixth of [0, 1] at the start, and those beyond both
ends by a fifth make the sum even.
"""


def linear(t: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Equal steps of gamma.

    >>> linear(torch.tensor([0.25]), torch.tensor(-10.0), torch.tensor(10.0))
    (tensor([-5.]), tensor([20.]))
    """
    rise = high - low
    return low + rise * t, rise.expand_as(t)


def logistic(t: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Quantiles of a logistic distribution between the ends: most noise levels are where signal and
    noise are alike, where a step of gamma tells most and scatters most.
    """
    begin, end = ((low - _MIDDLE) / _WIDTH, (high - _MIDDLE) / _WIDTH)
    below = torch.lerp(begin.sigmoid(), end.sigmoid(), t)
    above = torch.lerp((-begin).sigmoid(), (-end).sigmoid(), t)
    gamma = _MIDDLE + _WIDTH * (below.log() - above.log())
    return gamma, _WIDTH * (end.sigmoid() - begin.sigmoid()) / (below * above)


class Monotone(nn.Module):
    """A monotone network of t (Kingma et al. 2021, appendix H), then `logistic`, which it begins as,
    to 2e-4 of t:

        m(t) = (n(t) - n(0)) / (n(1) - n(0)),   n(t) = t + sum_k height_k sigmoid(steep_k (t - place_k))

    of heights and steepnesses above 0. The bound asks nothing of m, and gives it no gradient. `spread`
    does, for the least variance (appendix I.2).
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_height = nn.Parameter(torch.zeros(_UNITS))
        self.log_steep = nn.Parameter(torch.full((_UNITS,), math.log(_STEEP)))
        self.place = nn.Parameter(torch.linspace(-0.2, 1.2, _UNITS))

    def forward(self, t: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        m, rise = (part.detach() for part in self.warp(t))
        gamma, slope = logistic(m, low, high)
        return gamma, slope * rise

    def warp(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """m(t) and m'(t), `(N,)` each."""
        begin, end = self._rising(torch.zeros_like(t)), self._rising(torch.ones_like(t))
        height, steep, on = self._units(t)
        slope = 1 + (height * steep * on * (1 - on)).sum(-1)
        return (self._rising(t) - begin) / (end - begin), slope / (end - begin)

    def spread(self, t: Tensor, gain: Tensor) -> Tensor:
        """0 at each t, `(N,)`, whose gradient in the network is that of E gain^2, and so of the
        variance of the bound, whose mean is the same under each.

        At a given level `gain` `(N,)` changes as m' there, and in nothing else: E gain^2 is the mean
        over the levels that were drawn of gain^2 m'_new / m'. So the denoiser is not asked again.
        """
        m, slope = self.warp(t)
        moved = t - (m - m.detach()) / slope.detach()  # at the same level, whatever the network
        _, there = self.warp(moved)
        each = gain.detach().square() * there / slope.detach()
        return each - each.detach()

    def _rising(self, t: Tensor) -> Tensor:
        height, _, on = self._units(t)
        return t + (height * on).sum(-1)

    def _units(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        height, steep = self.log_height.to(t).exp(), self.log_steep.to(t).exp()
        return height, steep, (steep * (t[..., None] - self.place.to(t))).sigmoid()
