"""Which noise levels a diffusion is asked about: gamma as a rising function of t in [0, 1].

The bound depends on the two ends alone (Kingma et al. 2021, arXiv 2107.00630, section 4.1). What lies
between them decides how much it scatters.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Schedule = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""t `(N,)` and both ends `()` to gamma and its slope, `(N,)` each."""

_MIDDLE = -0.5
_WIDTH = 1.5


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
