"""The distribution function of N(0, 1)."""

import math

import torch
from torch import Tensor


def cdf(z: Tensor) -> Tensor:
    """P(Z <= z), `(...)`: torch's own `ndtr` loses the lower tail."""
    below: Tensor = 0.5 * torch.special.erfc(-z / math.sqrt(2))
    return below
