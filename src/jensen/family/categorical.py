"""Categorical distributions by logits."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot


class Categorical(NamedTuple):
    """x = c with probability softmax(logit)_c; `logit` is `(..., C)`, up to a constant, events are
    integers `(...)` of 0..C - 1. The last category is the one that natural parameters are about.
    """

    logit: Tensor

    def natural(self) -> Tensor:
        return self.logit[..., :-1] - self.logit[..., -1:]

    @classmethod
    def of_natural(cls, eta: Tensor) -> "Categorical":
        return cls(torch.cat([eta, torch.zeros_like(eta[..., :1])], -1))

    def mean_parameters(self) -> Tensor:
        return self.logit.softmax(-1)[..., :-1]

    @classmethod
    def of_mean(cls, m: Tensor) -> "Categorical":
        return cls(torch.cat([m, 1 - m.sum(-1, keepdim=True)], -1).log())

    def log_normaliser(self) -> Tensor:
        return self.logit.logsumexp(-1) - self.logit[..., -1]

    def expected_log_base(self) -> Tensor:
        return torch.zeros_like(self.logit[..., 0])

    def statistics(self, x: Tensor) -> Tensor:
        """The indicators of each category but the last, `(..., C - 1)`; it takes the C of `self`."""
        return one_hot(x.long(), self.logit.shape[-1])[..., :-1].to(self.logit)

    @classmethod
    def log_base(cls, x: Tensor) -> Tensor:
        return torch.zeros_like(x, dtype=torch.float64)
