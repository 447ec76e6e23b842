"""Conjugate pairs: Bernoulli and Beta, categorical and Dirichlet, Poisson and gamma, a spherical
Gaussian and normal-gamma, a Gaussian and normal-Wishart. All in nats, with any leading axes.

`posterior`, `evidence` and `predictive` look at the values of a belief and refuse what is none. Where
that cannot be, under `torch.func.vmap`, or is dear, on a GPU, there are a belief's own `updated` and
`predictive`, and `grown`.
"""

from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from jensen.base.errors import InputError
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

    Raises:
        InputError: a belief with parameters outside of their domain.

    >>> from jensen.family.beta import Beta
    >>> one = torch.tensor(1.0)
    >>> posterior(Beta(one, one), torch.tensor([14.0]), torch.tensor(20.0))
    Beta(a=tensor(15.), b=tensor(7.))
    """
    _check(prior)
    return prior.updated(statistics, count)


def evidence(
    prior: Conjugate, statistics: Tensor, count: Tensor, log_base: Tensor | float = 0.0
) -> Tensor:
    """log p(points), `(...)`: how much the log-normaliser of the belief grows.

    log_base: the points' sum of it, such as -sum log x! of counts; a Gaussian has none.
    """
    _check(prior)
    return grown(prior, statistics, count, log_base)


def grown(
    prior: Conjugate, statistics: Tensor, count: Tensor, log_base: Tensor | float = 0.0
) -> Tensor:
    """`evidence`, `(...)`, without a look at the prior's values, which have to be in their domain."""
    found = prior.updated(statistics, count).log_normaliser() - prior.log_normaliser() + log_base
    if isinstance(prior, NormalGamma | NormalWishart):
        return found - 0.5 * LOG_2PI * prior.mean.shape[-1] * count
    return torch.as_tensor(found)


def predictive(belief: Conjugate, x: Tensor) -> Tensor:
    """log p of a further point `x` given all that the belief has seen, `(...)`."""
    _check(belief)
    return belief.predictive(x)


def _check(belief: Any) -> None:
    """Refuse parameters of which there is no distribution: NaN would come of them in silence."""
    for name, value in zip(belief._fields, belief, strict=True):
        matrix = name.endswith("_tril")
        if name == "mean":
            continue
        dim = belief[-1].shape[-1] if name == "df" else 1
        own = value.diagonal(dim1=-2, dim2=-1) if matrix else value
        if not bool((own > dim - 1).all()):
            least = float(own.detach().min())
            raise InputError(
                f"{name} of a {type(belief).__name__} holds {least:g}: expected"
                f" {'a diagonal of ' if matrix else ''}numbers above {dim - 1}; see its docstring"
            )
