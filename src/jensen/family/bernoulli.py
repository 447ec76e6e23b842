"""Bernoulli distributions by their logits."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus


class Bernoulli(NamedTuple):
    """x is 1 with probability sigmoid(logit), else 0; `logit` is `(...)`, and so are events."""

    logit: Tensor

    def natural(self) -> Tensor:
        return self.logit.unsqueeze(-1)

    @classmethod
    def of_natural(cls, eta: Tensor) -> "Bernoulli":
        return cls(eta.squeeze(-1))

    def mean_parameters(self) -> Tensor:
        return self.logit.sigmoid().unsqueeze(-1)

    @classmethod
    def of_mean(cls, m: Tensor) -> "Bernoulli":
        return cls(m.squeeze(-1).logit())

    def log_normaliser(self) -> Tensor:
        return softplus(self.logit, threshold=40)  # of 20 it would leave 2e-9 out

    def expected_log_base(self) -> Tensor:
        return torch.zeros_like(self.logit)

    @classmethod
    def statistics(cls, x: Tensor) -> Tensor:
        return x.unsqueeze(-1)

    @classmethod
    def log_base(cls, x: Tensor) -> Tensor:
        return torch.zeros_like(x)
