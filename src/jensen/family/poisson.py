"""Poisson distributions by the logarithm of their rate."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

_MANY = 300.0
"""From this rate on there are too many counts to add up, and the series of large ones has all digits."""


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

    def kl_to(self, p: "Poisson") -> Tensor:
        more = p.log_rate - self.log_rate
        return self.log_rate.exp() * (torch.expm1(more) - more)

    def expected_log_base(self) -> Tensor:
        """-E log x!, by its series up to where nothing is left of it: 12 deviations."""
        rate = self.log_rate.exp()
        few = rate.clamp(max=_MANY).unsqueeze(-1)
        most = float(few.detach().amax()) if few.numel() else 0.0
        counts = torch.arange(int(most + 12 * most**0.5 + 40)).to(rate)
        factorial = torch.lgamma(counts + 1)
        chance = (counts * few.log() - factorial).softmax(-1)
        summed = (chance * factorial).sum(-1)
        return -torch.where(rate > _MANY, self._spread() + rate * (self.log_rate - 1), summed)

    def entropy(self) -> Tensor:
        rate = self.log_rate.exp()
        summed = rate * (1 - self.log_rate) - self.expected_log_base()
        return torch.where(rate > _MANY, self._spread(), summed)

    def _spread(self) -> Tensor:
        """The entropy of a large rate, by its series (Evans & Boersma 1988): to 1e-12 at 300."""
        rate = self.log_rate.exp().clamp(min=_MANY)
        series = (1 / 12 + (1 / 24 + (19 / 360 + 9 / 80 / rate) / rate) / rate) / rate
        return 0.5 * (1 + math.log(2 * math.pi) + rate.log()) - series

    @classmethod
    def statistics(cls, x: Tensor) -> Tensor:
        return x.unsqueeze(-1)

    @classmethod
    def log_base(cls, x: Tensor) -> Tensor:
        return -torch.lgamma(x + 1)
