"""Dirichlet distributions, conjugate to categorical ones."""

from typing import NamedTuple

import torch
from torch import Tensor

from jensen.family import solve, stirling


class Dirichlet(NamedTuple):
    """The distribution of probabilities `(..., C)` that add up to 1; `concentration` is `(..., C)`."""

    concentration: Tensor

    def natural(self) -> Tensor:
        return self.concentration - 1

    @classmethod
    def of_natural(cls, eta: Tensor) -> "Dirichlet":
        return cls(eta + 1)

    def mean_parameters(self) -> Tensor:
        """E log p."""
        total = self.concentration.sum(-1, keepdim=True)
        return torch.digamma(self.concentration) - torch.digamma(total)

    @classmethod
    def of_mean(cls, m: Tensor) -> "Dirichlet":
        return cls(solve.of_expected_logs(m))

    def log_normaliser(self) -> Tensor:
        return torch.lgamma(self.concentration).sum(-1) - torch.lgamma(self.concentration.sum(-1))

    def expected_log_base(self) -> Tensor:
        return torch.zeros_like(self.concentration[..., 0])

    @classmethod
    def statistics(cls, x: Tensor) -> Tensor:
        return x.log()

    @classmethod
    def log_base(cls, x: Tensor) -> Tensor:
        return torch.zeros_like(x[..., 0])

    def entropy(self) -> Tensor:
        total = self.concentration.sum(-1)
        count = self.concentration.shape[-1]
        each = stirling.rest_entropy(self.concentration, 1).sum(-1)
        return each - stirling.rest_entropy(total, count)

    def kl_to(self, p: "Dirichlet") -> Tensor:
        """KL, `(...)`: sum_c p_c log of the ratio of shares, and what log Gamma has beside that."""
        ours, theirs = self.concentration, p.concentration
        total, other = ours.sum(-1, keepdim=True), theirs.sum(-1, keepdim=True)
        ratio = ours / total * (other / theirs)
        shares = (theirs * stirling.excess(ratio)).sum(-1)
        own = stirling.rest_divergence(theirs, ours).sum(-1)
        return shares + own - stirling.rest_divergence(other, total).squeeze(-1)

    # ---- as the conjugate prior of a categorical ------------------------------------------------

    def updated(self, statistics: Tensor, count: Tensor) -> "Dirichlet":
        """`statistics` `(..., C - 1)`: the counts of all categories but the last."""
        last = count.unsqueeze(-1) - statistics.sum(-1, keepdim=True)
        return Dirichlet(self.concentration + torch.cat([statistics, last], -1))

    def predictive(self, x: Tensor) -> Tensor:
        share = self.concentration.log() - self.concentration.sum(-1, keepdim=True).log()
        each = share.expand(*x.shape, share.shape[-1])
        return each.gather(-1, x.long().unsqueeze(-1)).squeeze(-1)
