"""Columns of counts."""

import math
from typing import NamedTuple, Self, final

import torch
from torch import Tensor

from jensen.base import random
from jensen.family.column import CERTAIN, Column, Natural, Sums, kept, none, refuse_means
from jensen.family.moments import TINY, PseudoCounts, like
from jensen.family.poisson import Poisson


class _Parameters(NamedTuple):
    log_rate: Tensor


@final
class PoissonColumns(_Parameters, Column):
    """Counts with mean exp(log_rate), `(..., K, W)`."""

    name = "poisson"
    parameters = ("log_rate",)
    expected = "a whole number of at least 0"
    remedy = "round it"

    @classmethod
    def alike(cls, shape: tuple[int, ...], like: Tensor) -> Self:
        return cls(like.new_zeros(shape))

    @classmethod
    def at(cls, mean: Tensor, variance: Tensor) -> Self:
        refuse_means(mean <= 0, "rates above 0")
        return cls(mean.log())

    @property
    def mean(self) -> Tensor:
        return self.log_rate.exp()

    def natural(self) -> Natural:
        constant = -Poisson(self.log_rate).log_normaliser()
        return Natural(constant, self.log_rate, none(self.log_rate))

    def maximise(self, sums: Sums, prior: PseudoCounts) -> Self:
        seen = sums.seen + prior.values
        counts = sums.first + prior.values * like(sums.first, prior.mean)
        rate = (counts / seen.clamp(min=TINY)).clamp(min=CERTAIN)
        return type(self)(kept(rate.log(), seen, self.log_rate))

    def log_prior(self, prior: PseudoCounts) -> Tensor:
        rate = prior.mean * self.log_rate - self.log_rate.exp()
        return prior.values * rate.sum((-2, -1))

    def log_base(self, x: Tensor) -> Tensor | None:
        return Poisson.log_base(x.double()).sum(-2) if x.shape[-2] else None

    def draw(self, component: Tensor, key: int, index: Tensor) -> Tensor:
        """The first count whose distribution function exceeds u."""
        log_rate = self.log_rate[component]
        u = random.uniform(key, index, log_rate.shape[1:], torch.float64)
        rate = log_rate.exp()
        largest = float(rate.amax()) if rate.numel() else 0.0
        found = torch.zeros_like(rate)
        reach = torch.zeros_like(rate)
        term = -rate
        for value in range(int(largest + 12 * largest**0.5 + 40)):
            reach = reach + term.exp()
            found = found + (u >= reach)
            term = term + log_rate - math.log(value + 1)
        return found

    @classmethod
    def admits(cls, x: Tensor, size: int) -> Tensor:
        return (x >= 0) & (x == x.round())

    @classmethod
    def scaled(cls, x: Tensor, mean: Tensor, variance: Tensor, size: int) -> Tensor:
        return 2 * x.sqrt()
