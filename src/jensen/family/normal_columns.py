"""Columns of real numbers."""

from typing import NamedTuple, Self, final

import torch
from torch import Tensor

from jensen.base import random
from jensen.family.column import Column, Natural, Sums, kept
from jensen.family.gaussian import LOG_2PI, Gaussian
from jensen.family.moments import TINY, PseudoCounts, like, log_var_of, own_floor


class _Parameters(NamedTuple):
    centre: Tensor
    log_var: Tensor


@final
class NormalColumns(_Parameters, Column):
    """N(centre, exp(log_var)), `(..., K, W)` each."""

    name = "normal"
    parameters = ("mean", "log_var")
    continuous = True
    expected = "a finite number"

    @classmethod
    def alike(cls, shape: tuple[int, ...], like: Tensor) -> Self:
        return cls(like.new_zeros(shape), like.new_zeros(shape))

    @classmethod
    def at(cls, mean: Tensor, variance: Tensor) -> Self:
        return cls(mean, variance.log().expand(mean.shape))

    @property
    def mean(self) -> Tensor:
        return self.centre

    @property
    def gaussian(self) -> Gaussian:
        return Gaussian(self.centre, self.log_var)

    def natural(self) -> Natural:
        mean, log_var = self
        precision = (-log_var).exp()
        constant = -0.5 * (log_var + LOG_2PI + precision * mean.square())
        return Natural(constant, precision * mean, -0.5 * precision)

    @property
    def more(self) -> int:
        return self.width

    def statistics(self, x: Tensor, out: Tensor) -> None:
        if out.requires_grad:
            out.copy_(x.nan_to_num(0.0).square())  # of a missing value 0, and so is its slope
        else:
            torch.square(x, out=out)

    def maximise(self, sums: Sums, prior: PseudoCounts) -> Self:
        count = sums.seen.clamp(min=TINY)
        mean = sums.first / count
        scatter = sums.more - sums.first * mean + prior.covariance * like(mean, prior.variance)
        floor = own_floor(prior.floor, mean, sums.more / count)
        empty = sums.seen <= -prior.covariance
        log_var = log_var_of(scatter, count + prior.covariance, floor, self.log_var, empty)
        return type(self)(kept(mean, sums.seen, self.centre), log_var)

    def log_prior(self, prior: PseudoCounts) -> Tensor:
        if not prior.covariance or not self.centre.shape[-1]:
            return self.log_var.new_zeros(self.log_var.shape[:-2])
        return self.gaussian.log_prior(prior)

    def shifted(self, offset: Tensor) -> Self:
        return self._replace(centre=self.centre + offset)

    def free(self, about: Self) -> Tensor:
        return self.gaussian.free(about.gaussian)

    def of_free(self, free: Tensor) -> Self:
        return type(self)(*self.gaussian.of_free(free))

    def draw(self, component: Tensor, key: int, index: Tensor) -> Tensor:
        mean, log_var = (part[component] for part in self)
        noise = random.normal(key, index, mean.shape[1:], torch.float64)
        return mean + (0.5 * log_var).exp() * noise

    @classmethod
    def admits(cls, x: Tensor, size: int) -> Tensor:
        return x.isfinite()

    @classmethod
    def scaled(cls, x: Tensor, mean: Tensor, variance: Tensor, size: int) -> Tensor:
        return (x - mean) / variance.sqrt()
