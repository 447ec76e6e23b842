"""Columns of zeros and ones."""

from typing import NamedTuple, Self, final

import torch
from torch import Tensor
from torch.nn.functional import softplus

from jensen.base import random
from jensen.family.bernoulli import Bernoulli
from jensen.family.column import CERTAIN, Column, Natural, Sums, kept, none, refuse_means
from jensen.family.moments import TINY, PseudoCounts


class _Parameters(NamedTuple):
    logit: Tensor


@final
class BernoulliColumns(_Parameters, Column):
    """x is 1 with probability sigmoid(logit), `(..., K, W)`, else 0."""

    name = "bernoulli"
    parameters = ("logit",)
    expected = "0 or 1"
    remedy = "binarise it"

    @classmethod
    def alike(cls, shape: tuple[int, ...], like: Tensor) -> Self:
        return cls(like.new_zeros(shape))

    @classmethod
    def at(cls, mean: Tensor, variance: Tensor) -> Self:
        refuse_means((mean <= 0) | (mean >= 1), "probabilities above 0 and below 1")
        return cls(mean.logit())

    @property
    def mean(self) -> Tensor:
        return self.logit.sigmoid()

    def natural(self) -> Natural:
        return Natural(-Bernoulli(self.logit).log_normaliser(), self.logit, none(self.logit))

    def maximise(self, sums: Sums, prior: PseudoCounts) -> Self:
        seen = sums.seen + prior.values
        share = (sums.first + 0.5 * prior.values) / seen.clamp(min=TINY)
        return type(self)(kept(share.clamp(CERTAIN, 1 - CERTAIN).logit(), seen, self.logit))

    def log_prior(self, prior: PseudoCounts) -> Tensor:
        certainty = softplus(self.logit) + softplus(-self.logit)
        return -0.5 * prior.values * certainty.sum((-2, -1))

    def draw(self, component: Tensor, key: int, index: Tensor) -> Tensor:
        chance = self.logit.sigmoid()[component]
        u = random.uniform(key, index, chance.shape[1:], torch.float64)
        return (u < chance).to(chance)

    @classmethod
    def admits(cls, x: Tensor, size: int) -> Tensor:
        return (x == 0) | (x == 1)

    @classmethod
    def scaled(cls, x: Tensor, mean: Tensor, variance: Tensor, size: int) -> Tensor:
        return 2 * x
