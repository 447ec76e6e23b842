"""A distribution as a value: what a posterior and a prior are asked, whatever family they belong to."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.family import gaussian, normal
from jensen.family.gaussian import Gaussian
from jensen.family.normal import Normal


class Family(Protocol):
    """A distribution of events `(D,)`."""

    def log_prob(self, x: Tensor) -> Tensor:
        """The density's logarithm, `(N, D)` to `(N,)`, nats."""
        ...

    def marginal(self, latent: int) -> "Family | None":
        """The distribution of one coordinate, of events `(1,)`; None where it is unknown."""
        ...


@runtime_checkable
class Posterior(Protocol):
    """A distribution of each of B examples, of events `(D,)`, that can be drawn from with gradient: a NamedTuple of tensors."""

    @property
    def mean(self) -> Tensor:
        """`(B, D)`, the code."""
        ...

    def log_prob(self, x: Tensor) -> Tensor:
        """`(B, D)` to `(B,)`, nats."""
        ...

    def rsample(self, noise: Tensor) -> Tensor:
        """A draw from standard normal `noise`, `(B, D)`."""
        ...


class Product(NamedTuple):
    """Independent coordinates: D distributions of events `(1,)`."""

    factors: tuple[Family, ...]

    def log_prob(self, x: Tensor) -> Tensor:
        each = [factor.log_prob(x[..., [latent]]) for latent, factor in enumerate(self.factors)]
        return torch.stack(each).sum(0)

    def marginal(self, latent: int) -> Family:
        return self.factors[latent]


def is_standard(p: object) -> bool:
    """Whether it is N(0, I)."""
    return isinstance(p, Gaussian) and not any(bool(part.any()) for part in p)


def kl(q: object, p: object) -> Tensor | None:
    """KL(q || p), `(B,)`, nats, in closed form; None for a pair that has none."""
    if isinstance(q, Gaussian) and isinstance(p, Gaussian):
        return gaussian.kl(q, p).sum(-1)
    if isinstance(q, Gaussian | Normal) and isinstance(p, Gaussian | Normal):
        return normal.kl(_full(q, q), _full(p, q))
    return None


def _full(p: Gaussian | Normal, like: Gaussian | Normal) -> Normal:
    """With a covariance matrix, of the shape of `like` where it is broadcast."""
    if isinstance(p, Normal):
        return p
    mean = p.mean.expand_as(like.mean)
    return Normal(mean, (0.5 * p.log_var).exp().expand_as(mean).diag_embed())


def diagonal(posterior: object, who: str) -> Gaussian:
    """The posterior, for a formula that holds for diagonal Gaussians alone.

    Raises:
        InputError: it is of another family, which `who` cannot take.
    """
    if isinstance(posterior, Gaussian):
        return posterior
    raise InputError(
        f"{who} needs a diagonal Gaussian and model.encoder gives a {type(posterior).__name__}: expected a"
        " jensen.family.gaussian.Gaussian; choose another encoder, or leave that out"
    )


def marginals(posterior: object, who: str) -> Gaussian:
    """The diagonal Gaussian with the posterior's marginals, for what asks each latent alone.

    Raises:
        InputError: its marginals are not Gaussian, which `who` cannot take.
    """
    if isinstance(posterior, Gaussian | Normal):
        return posterior.diagonal()
    raise InputError(
        f"{who} needs Gaussian marginals and model.encoder gives a {type(posterior).__name__}: expected a Gaussian or a"
        " Normal of jensen.family; choose another encoder, or leave that out"
    )
