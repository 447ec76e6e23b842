"""Conjugate pairs: Bernoulli and Beta, categorical and Dirichlet, Poisson and gamma, a spherical
Gaussian and normal-gamma, a Gaussian and normal-Wishart. All in nats, with any leading axes.
"""

from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from jensen.family.gaussian import LOG_2PI
from jensen.family.normal_gamma import NormalGamma
from jensen.family.normal_wishart import NormalWishart


class Conjugate(Protocol):
    """A belief of a family's parameters that points turn to one of the same kind."""

    def updated(self, statistics: Tensor, count: Tensor) -> Self:
        """The belief after `count` `(...)` points whose statistics add up to `statistics` `(...,
        P)`.
        """
        ...

    def log_normaliser(self) -> Tensor: ...

    def predictive(self, x: Tensor) -> Tensor:
        """log p of a further point `x`, `(...)`."""
        ...


Belief = TypeVar("Belief", bound=Conjugate)


def posterior(prior: Belief, statistics: Tensor, count: Tensor) -> Belief:
    """The belief after points: `count` `(...)` of them, whose statistics add up to `statistics`
    `(..., P)`.

    >>> from jensen.family.beta import Beta
    >>> one = torch.tensor(1.0)
    >>> posterior(Beta(one, one), torch.tensor([14.0]), torch.tensor(20.0))
    Beta(a=tensor(15.), b=tensor(7.))
    """
    return prior.updated(statistics, count)


def evidence(
    prior: Conjugate, statistics: Tensor, count: Tensor, log_base: Tensor | float = 0.0
) -> Tensor:
    """log p(points), `(...)`: how much the log-normaliser of the belief grows.

    log_base: the points' sum of it, such as -sum log x! of counts; a Gaussian has none.
    """
    grown = prior.updated(statistics, count).log_normaliser() - prior.log_normaliser() + log_base
    if isinstance(prior, NormalGamma | NormalWishart):
        return grown - 0.5 * LOG_2PI * prior.mean.shape[-1] * count
    return torch.as_tensor(grown)


def predictive(belief: Conjugate, x: Tensor) -> Tensor:
    """log p of a further point `x` given all that the belief has seen, `(...)`."""
    return belief.predictive(x)
