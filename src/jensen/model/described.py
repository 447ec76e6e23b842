"""Statements of a mixture of Gaussians on places and on other mixtures, rather than on points one
by one.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_count
from jensen.bound import divergence
from jensen.bound.divergence import Estimate
from jensen.em.local import whiten
from jensen.family import normal
from jensen.family.mixture import Mixture
from jensen.model.arrays import as_tensor
from jensen.model.parameters import Parameters


class Kl(NamedTuple):
    """A KL divergence, its standard error, and what it certainly lies between, `()` each, nats."""

    value: Tensor
    standard_error: Tensor
    lower: Tensor
    upper: Tensor


_HALVINGS = 200
"""Halvings of an interval that holds a quantile: until float64 has no number between its ends."""


def cdf(p: Mixture, x: Tensor) -> Tensor:
    """P(X <= x) of a mixture of one dimension, `(...)` to `(...)` float64."""
    mean, deviation = _line(p)
    z = (x.double().unsqueeze(-1) - mean) / deviation
    return (normal.cdf(z) * p.log_weight.exp()).sum(-1)


def quantile(p: Mixture, q: Tensor) -> Tensor:
    """The place below which a mixture of one dimension has `q` of its mass, `(...)` float64.

    By bisection between the least and the greatest of its components' own quantiles; from the
    nearer tail, so that it is exact at small `q` and near 1.
    """
    mean, deviation = _line(p)
    upper = q > 0.5
    own = torch.special.ndtri(q.double()).unsqueeze(-1) * deviation + mean
    low, high = own.amin(-1), own.amax(-1)
    sign = torch.where(upper, -1.0, 1.0).double()
    target = torch.where(upper, 1 - q.double(), q.double())
    weight = p.log_weight.exp()
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        z = (middle.unsqueeze(-1) - mean) / deviation * sign.unsqueeze(-1)
        mass = (normal.cdf(z) * weight).sum(-1)
        below = torch.where(upper, mass > target, mass < target)
        still = (middle == low) | (middle == high)
        if bool(still.all()):
            break
        low = torch.where(below, middle, low)
        high = torch.where(below, high, middle)
    return 0.5 * (low + high)


def _line(p: Mixture) -> tuple[Tensor, Tensor]:
    """Means and deviations, `(K,)` each."""
    if (dim := p.components.mean.shape[-1]) != 1:
        raise InputError(
            f"this GMM has {dim} dimensions: expected 1, where places have an order; take"
            " marginal([0])"
        )
    spread: Any = p.components
    return p.components.mean[:, 0].double(), (0.5 * spread.marginals().log_var[:, 0]).exp().double()


class Described(Parameters):
    """`Parameters` with distribution functions, distances and divergences."""

    def cdf(self, x: Any) -> Tensor:
        """P(X <= x) in one dimension, `(N, 1)` or `(N,)` to `(N,)`; of missing values it is none."""
        p = self._held_out.mixture
        _line(p)
        x = as_tensor("x", x)
        points = self._held_out.points(x if x.dim() == 2 else x.reshape(-1, 1))
        return cdf(p, points[:, 0])

    def quantile(self, q: Any) -> Tensor:
        """The place below which the mixture has `q` of its mass in one dimension, `(...)` to
        `(...)`; the inverse of `cdf`.

        >>> from jensen.model.gmm import GMM
        >>> gmm = GMM(1).fit(torch.linspace(-1, 1, 101).unsqueeze(1))
        >>> gmm.cdf(gmm.quantile(torch.tensor([0.05, 0.5])))
        tensor([0.0500, 0.5000], dtype=torch.float64)
        """
        given = as_tensor("q", q).double().to(self.log_weight.device)
        bad = given[~((given > 0) & (given < 1))]
        if len(bad.flatten()):
            raise InputError(
                f"q holds {float(bad.flatten()[0]):g}: expected numbers between 0 and 1, of which"
                " there is a place"
            )
        return quantile(self._held_out.mixture, given)

    def mahalanobis(self, x: Any) -> Tensor:
        """The distance of each point from each component in deviations of that, `(N, D)` to `(N,
        K)` float64.
        """
        held_out = self._held_out
        points = held_out.points(x)
        if bool(points.isnan().any()):
            raise InputError(
                "x holds NaN: expected whole points, since distances over fewer coordinates are"
                " shorter; give marginal mixtures those that are there"
            )
        components = held_out.mixture.components
        deviations = points.double().unsqueeze(-3) - components.mean.double().unsqueeze(-2)
        whitened, _ = whiten(deviations, components)
        return whitened.square().sum(-1).sqrt().mT

    def entropy(self, samples: int = 10_000) -> Estimate:
        """The differential entropy, nats, and its standard error: exact in one dimension, by
        quadrature at any scales, and of one component; else a mean over stratified draws, by the
        GMM's seed.
        """
        check_count("samples", samples, least=2)
        p = self._held_out.mixture
        if p.components.mean.shape[-1] == 1 or len(p.log_weight) == 1:
            value = divergence.exact_entropy(p)
            if value is not None:
                return Estimate(value, torch.zeros_like(value))
        return divergence.entropy(p, samples, self._generator())

    def kl(self, other: Any, samples: int = 10_000) -> Kl:
        """KL(this || other) to another GMM or `Mixture`, nats: between two bounds (Hershey & Olsen
        2007), and estimated; exact in one dimension.
        """
        check_count("samples", samples, least=2)
        p = self._held_out.mixture
        q = other._held_out.mixture if isinstance(other, Parameters) else other
        if not isinstance(q, Mixture):
            raise InputError(
                f"other is a {type(other).__name__}: expected a GMM or a jensen.Mixture"
            )
        dim, theirs = p.components.mean.shape[-1], q.components.mean.shape[-1]
        if dim != theirs:
            raise InputError(f"other has {theirs} dimensions: expected {dim}, as this GMM")
        low, high = divergence.bounds(p, q)
        value = divergence.settled(p, q) if dim == 1 else None
        if value is not None:
            return Kl(value, torch.zeros_like(value), low, high)
        return Kl(*divergence.estimate(p, q, "kl", samples, self._generator()), low, high)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.recipe.seed)
