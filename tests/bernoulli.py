"""A family of components of one's own: independent Bernoulli coordinates, written against
`family.Components` alone.
"""

from typing import NamedTuple, final

import torch
from torch import Tensor
from torch.nn.functional import softplus

from jensen.family.moments import FLAT, Moments, PseudoCounts

CERTAIN = 1e-12
"""A probability is never closer to 0 or 1 than this, so that its logit is finite."""


class Bernoulli(NamedTuple):
    """K products of D Bernoulli distributions, by their logits `(..., K, D)`."""

    logit: Tensor

    @property
    def mean(self) -> Tensor:
        return self.logit.sigmoid()

    def log_density(self, x: Tensor) -> Tensor:
        logit = self.logit.double()
        found = x.double() @ logit.mT - softplus(logit).sum(-1).unsqueeze(-2)
        return found.to(torch.promote_types(x.dtype, self.logit.dtype))

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        first = r.double().mT @ x.double()
        return Moments(first.new_zeros(1, first.shape[-1]), r.double().sum(-2), first, first)

    def maximise(self, m: Moments, prior: PseudoCounts = FLAT) -> "Bernoulli":
        """The pseudo-counts of a covariance are a symmetric Beta prior: half of them 0, half 1."""
        count = m.total.unsqueeze(-1) + prior.covariance
        mean = (m.first + 0.5 * prior.covariance) / count.clamp(min=1e-280)
        logit = mean.clamp(CERTAIN, 1 - CERTAIN).logit()
        return Bernoulli(
            torch.where(m.total.unsqueeze(-1) > 0, logit, self.logit.double()).to(self.logit.dtype)
        )

    def log_prior(self, prior: PseudoCounts) -> Tensor:
        certainty = softplus(self.logit) + softplus(-self.logit)
        return -0.5 * prior.covariance * certainty.sum((-2, -1))

    def natural(self) -> Tensor:
        return torch.cat([-softplus(self.logit).sum(-1, keepdim=True), self.logit], -1)

    def common(self, shared: Tensor) -> None:
        return None

    @staticmethod
    def layout(dim: int) -> "BernoulliLayout":
        return BernoulliLayout(dim)

    def free(self, about: "Bernoulli") -> Tensor:
        return (self.logit - about.logit).flatten(-2)

    def of_free(self, free: Tensor) -> "Bernoulli":
        return Bernoulli(self.logit + free.reshape(self.logit.shape))


@final
class BernoulliLayout:
    """1 and x: P = 1 + D."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.width = 1 + dim
        self.common = 1

    def fill(self, x: Tensor, out: Tensor) -> None:
        pass

    def shared(self, features: Tensor, weight: Tensor | None) -> None:
        return None

    def collect(self, sums: Tensor, shared: Tensor | None) -> Moments:
        first = sums[..., 1:]
        return Moments(sums.new_zeros(1, self.dim), sums[..., 0], first, first)
