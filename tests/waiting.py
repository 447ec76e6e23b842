"""A family of columns that a user might bring: waiting times, exponential."""

from typing import NamedTuple

import torch

from jensen.base import random
from jensen.family.column import Column, Natural, kept, none


class Rate(NamedTuple):
    log_hazard: torch.Tensor


class Waiting(Rate, Column):
    """p(x) = rate exp(-rate x) of x >= 0; `prior.values` are waits of the mean length."""

    name = "waiting"
    parameters = ("log_hazard",)
    expected = "a number of at least 0"

    @classmethod
    def alike(cls, shape, like):
        return cls(like.new_zeros(shape))

    @classmethod
    def at(cls, mean, variance):
        return cls(-mean.log())

    @property
    def mean(self):
        return (-self.log_hazard).exp()

    def natural(self):
        return Natural(self.log_hazard, -self.log_hazard.exp(), none(self.log_hazard))

    def maximise(self, sums, prior):
        seen = sums.seen + prior.values
        waited = (sums.first + prior.values * prior.mean).clamp(min=1e-280)
        return type(self)(kept((seen / waited).log(), seen, self.log_hazard))

    def log_prior(self, prior):
        return prior.values * (self.log_hazard - prior.mean * self.log_hazard.exp()).sum((-2, -1))

    def draw(self, component, key, index):
        mean = self.mean[component]
        u = random.uniform(key, index, mean.shape[1:], torch.float64)
        return -mean * torch.log1p(-u)

    @classmethod
    def admits(cls, x, size):
        return x >= 0

    @classmethod
    def scaled(cls, x, mean, variance, size):
        return x / mean
