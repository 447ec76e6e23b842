"""Gamma distributions, conjugate to Poisson ones, and of a Gaussian's precision."""

from typing import NamedTuple

import torch
from torch import Tensor

from jensen.family import solve, stirling


class Gamma(NamedTuple):
    """The distribution of a positive number, x^(shape - 1) exp(-rate x); `shape`, `rate` and events are `(...)`."""

    shape: Tensor
    rate: Tensor

    def natural(self) -> Tensor:
        return torch.stack([self.shape - 1, -self.rate], -1)

    @classmethod
    def of_natural(cls, eta: Tensor) -> "Gamma":
        return cls(eta[..., 0] + 1, -eta[..., 1])

    def mean_parameters(self) -> Tensor:
        """E log x and E x."""
        logs = torch.digamma(self.shape) - self.rate.log()
        return torch.stack([logs, self.shape / self.rate], -1)

    @classmethod
    def of_mean(cls, m: Tensor) -> "Gamma":
        logs, mean = m.unbind(-1)
        shape = 0.5 * solve.of_log_gap(mean.log() - logs)
        return cls(shape, shape / mean)

    def log_normaliser(self) -> Tensor:
        return torch.lgamma(self.shape) - self.shape * self.rate.log()

    def expected_log_base(self) -> Tensor:
        return torch.zeros_like(self.shape)

    @classmethod
    def statistics(cls, x: Tensor) -> Tensor:
        return torch.stack([x.log(), x], -1)

    @classmethod
    def log_base(cls, x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def entropy(self) -> Tensor:
        return stirling.rest_entropy(self.shape, 1) - self.rate.log()

    def kl_to(self, p: "Gamma") -> Tensor:
        """KL, `(...)`: shape (w - 1 - log w) of the ratio w of means, and what log Gamma has beside
        that.
        """
        ratio = self.shape * (p.rate / self.rate / p.shape)
        rest = stirling.rest_divergence(p.shape, self.shape)
        return p.shape * stirling.excess(ratio) + rest

    # ---- as the conjugate prior of a Poisson's rate ---------------------------------------------

    def updated(self, statistics: Tensor, count: Tensor) -> "Gamma":
        return Gamma(self.shape + statistics.squeeze(-1), self.rate + count)

    def predictive(self, x: Tensor) -> Tensor:
        """The log density of a negative binomial."""
        later = self.updated(x.unsqueeze(-1), torch.ones_like(x))
        return later.log_normaliser() - self.log_normaliser() - torch.lgamma(x + 1)
