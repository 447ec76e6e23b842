"""Exponential families: log p(x) = natural . T(x) - A(natural) + log h(x), and all that follows from
the log-normaliser A alone. Everything is in nats, differentiable, and has any leading axes `...`.

A family is a `NamedTuple` in the field's own parameters that has the methods of `Exponential`; the
functions here are the same for all of them (Wainwright & Jordan 2008, sections 3.1-3.6).
"""

from typing import Protocol, Self

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap


class Exponential(Protocol):
    """A distribution in terms of its natural parameters, `(..., P)`, of which none is redundant."""

    def natural(self) -> Tensor:
        """The natural parameters, `(..., P)`."""
        ...

    @classmethod
    def of_natural(cls, eta: Tensor) -> Self:
        """The distribution with natural parameters `eta` `(..., P)`."""
        ...

    def mean_parameters(self) -> Tensor:
        """E T, `(..., P)`: the gradient of the log-normaliser."""
        ...

    @classmethod
    def of_mean(cls, m: Tensor) -> Self:
        """The distribution with E T = `m` `(..., P)`: that of most likelihood where m is T's mean over
        points.
        """
        ...

    def log_normaliser(self) -> Tensor:
        """A, `(...)`."""
        ...

    def expected_log_base(self) -> Tensor:
        """E log h, `(...)`; 0 where h is 1."""
        ...

    @classmethod
    def statistics(cls, x: Tensor) -> Tensor:
        """T(x), `(..., P)`."""
        ...

    @classmethod
    def log_base(cls, x: Tensor) -> Tensor:
        """log h(x), `(...)`."""
        ...


def log_density(x: Tensor, p: Exponential) -> Tensor:
    """log p(x), `(...)`.

    >>> from jensen.family.poisson import Poisson
    >>> log_density(torch.tensor(2.0), Poisson(torch.tensor(3.0).log()))
    tensor(-1.4959)
    """
    inner: Tensor = (p.natural() * p.statistics(x)).sum(-1)
    return inner - p.log_normaliser() + p.log_base(x)


def entropy(p: Exponential) -> Tensor:
    """-E log p, `(...)`; of a family that has an `entropy` of its own, that (see `kl`)."""
    own = getattr(p, "entropy", None)
    if own is not None:
        found: Tensor = own()
        return found
    inner: Tensor = (p.natural() * p.mean_parameters()).sum(-1)
    return p.log_normaliser() - inner - p.expected_log_base()


def kl(q: Exponential, p: Exponential) -> Tensor:
    """KL(q || p) of two of one family, `(...)`: the Bregman divergence of the log-normaliser, A(p) -
    A(q) - E_q T . (p - q).

    >>> from jensen.family.bernoulli import Bernoulli
    >>> kl(Bernoulli(torch.tensor(0.3).logit()), Bernoulli(torch.tensor(0.6).logit()))
    tensor(0.1838)

    A family that has a `kl_to` of its own, `Self` to `(...)`, is asked for that: far from 0, or with large
    parameters, the difference above has lost its digits.
    """
    own = getattr(q, "kl_to", None)
    if own is not None:
        found: Tensor = own(p)
        return found
    between: Tensor = (q.mean_parameters() * (p.natural() - q.natural())).sum(-1)
    return p.log_normaliser() - q.log_normaliser() - between


def fisher(p: Exponential) -> Tensor:
    """The Fisher information in natural parameters, `(..., P, P)`: the Hessian of A, and the
    covariance of T.
    """
    eta = p.natural()
    family = type(p)
    slope = grad(lambda one: family.of_natural(one).log_normaliser())
    found: Tensor = vmap(jacrev(slope))(eta.reshape(-1, eta.shape[-1]))
    return found.reshape(*eta.shape, eta.shape[-1])


def natural_gradient(p: Exponential, gradient: Tensor) -> Tensor:
    """The direction F^-1 g of steepest ascent (Amari 1998) for the gradient g `(..., P)` in natural
    parameters: it is the gradient in mean parameters.
    """
    found: Tensor = torch.linalg.solve(fisher(p), gradient.unsqueeze(-1)).squeeze(-1)
    return found
