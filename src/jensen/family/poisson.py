"""Poisson distributions by the logarithm of their rate."""

from typing import NamedTuple

import torch
from torch import Tensor


class Poisson(NamedTuple):
    """Counts x with mean exp(log_rate); `log_rate` is `(...)`, and so are events."""

    log_rate: Tensor

    def natural(self) -> Tensor:
        return self.log_rate.unsqueeze(-1)

    @classmethod
    def of_natural(cls, eta: Tensor) -> "Poisson":
        return cls(eta.squeeze(-1))

    def mean_parameters(self) -> Tensor:
        return self.log_rate.exp().unsqueeze(-1)

    @classmethod
    def of_mean(cls, m: Tensor) -> "Poisson":
        return cls(m.squeeze(-1).log())

    def log_normaliser(self) -> Tensor:
        return self.log_rate.exp()

    def expected_log_base(self) -> Tensor:
        """-E log x!, by its series up to where nothing is left of it: 12 deviations."""
        rate = self.log_rate.exp().unsqueeze(-1)
        most = float(rate.detach().amax()) if rate.numel() else 0.0
        counts = torch.arange(int(most + 12 * most**0.5 + 40)).to(rate)
        factorial = torch.lgamma(counts + 1)
        log_chance = counts * self.log_rate.unsqueeze(-1) - rate - factorial
        return -(log_chance.exp() * factorial).sum(-1)

    @classmethod
    def statistics(cls, x: Tensor) -> Tensor:
        return x.unsqueeze(-1)

    @classmethod
    def log_base(cls, x: Tensor) -> Tensor:
        return -torch.lgamma(x + 1)
