"""Beta distributions, conjugate to Bernoulli ones."""

from typing import NamedTuple

import torch
from torch import Tensor

from jensen.family import solve
from jensen.family.dirichlet import Dirichlet


class Beta(NamedTuple):
    """The distribution of a probability, x^(a - 1) (1 - x)^(b - 1); `a`, `b` and events are `(...)`."""

    a: Tensor
    b: Tensor

    def natural(self) -> Tensor:
        return torch.stack([self.a - 1, self.b - 1], -1)

    @classmethod
    def of_natural(cls, eta: Tensor) -> "Beta":
        return cls(*(eta + 1).unbind(-1))

    def mean_parameters(self) -> Tensor:
        """E log x and E log (1 - x)."""
        logs = torch.stack([self.a, self.b], -1)
        return torch.digamma(logs) - torch.digamma(logs.sum(-1, keepdim=True))

    @classmethod
    def of_mean(cls, m: Tensor) -> "Beta":
        return cls(*solve.of_expected_logs(m).unbind(-1))

    def log_normaliser(self) -> Tensor:
        return torch.lgamma(self.a) + torch.lgamma(self.b) - torch.lgamma(self.a + self.b)

    def expected_log_base(self) -> Tensor:
        return torch.zeros_like(self.a)

    @classmethod
    def statistics(cls, x: Tensor) -> Tensor:
        return torch.stack([x.log(), torch.log1p(-x)], -1)

    @classmethod
    def log_base(cls, x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def entropy(self) -> Tensor:
        return _shares(self).entropy()

    def kl_to(self, p: "Beta") -> Tensor:
        return _shares(self).kl_to(_shares(p))

    # ---- as the conjugate prior of a Bernoulli --------------------------------------------------

    def updated(self, statistics: Tensor, count: Tensor) -> "Beta":
        ones = statistics.squeeze(-1)
        return Beta(self.a + ones, self.b + count - ones)

    def predictive(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, self.a, self.b).log() - (self.a + self.b).log()


def _shares(p: Beta) -> Dirichlet:
    """The same of a probability and its complement."""
    return Dirichlet(torch.stack([*p], -1))
