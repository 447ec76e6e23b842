"""Two numbers that hold the KL of mixtures between them, without sampling."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from jensen.family import algebra, cholesky
from jensen.family.full import FullGaussian, full
from jensen.family.mixture import Mixture, logsumexp

_LIMIT = 1 << 20
"""Numbers in a temporary of pairs of components: 8 MB."""

_ROUNDS = 200
"""Rounds of the variational upper bound, which falls with each."""


def bounds(first: Mixture, second: Mixture) -> tuple[Tensor, Tensor]:
    """A lower and an upper bound of KL(first || second), as `bound.divergence.bounds` says."""
    weight = first.log_weight.exp()
    own = _between(first, first)
    other = _between(first, second)
    entropies = algebra.entropy(full(first.components))
    lower = weight @ (own.variational - entropies) - weight @ other.product
    upper = weight @ own.product - weight @ (other.variational - entropies)
    matched = _matched(first.log_weight, second.log_weight, other.kl)
    return lower.clamp(min=0), torch.minimum(upper, matched).clamp(min=0)


class _Between(NamedTuple):
    """Each component a of p, `(K,)`, beside q: log sum_b weight_b exp(-KL(a || b)), log sum_b
    weight_b int a b, and all KL(a || b), `(K, L)`.
    """

    variational: Tensor
    product: Tensor
    kl: Tensor


def _between(p: Mixture, q: Mixture) -> _Between:
    ours, theirs = full(p.components), full(q.components)
    dim = ours.mean.shape[-1]
    found = []
    products = []
    at_a_time = max(1, _LIMIT // (len(theirs.mean) * dim * dim))
    for mean, factor in zip(
        torch.split(ours.mean, at_a_time), torch.split(ours.scale_tril, at_a_time), strict=True
    ):
        each = FullGaussian(mean[:, None], factor[:, None])
        found.append(algebra.kl(each, theirs))
        both = algebra.covariance(each) + algebra.covariance(theirs)
        met = FullGaussian(theirs.mean, cholesky.factor(both))
        products.append(met.log_prob(mean[:, None]))
    divergences = torch.cat(found)
    variational = logsumexp(q.log_weight - divergences, -1)
    if len(q.log_weight) == 1:  # then both are exact
        product = variational - algebra.entropy(ours)
    else:
        product = logsumexp(q.log_weight + torch.cat(products), -1)
    return _Between(variational, product, divergences)


def _matched(log_p: Tensor, log_q: Tensor, divergences: Tensor) -> Tensor:
    """The variational upper bound (Hershey & Olsen 2007, eq. 23-25): the least sum over pairs of
    components of a KL of their shares and that of the pair.
    """
    phi = log_p[:, None] + log_q
    for _ in range(_ROUNDS):
        psi = log_q + phi - phi.logsumexp(0)
        phi = log_p[:, None] + (psi - divergences).log_softmax(1)
    psi = log_q + phi - phi.logsumexp(0)
    spread = (phi.exp() * (phi - psi + divergences)).nan_to_num(0.0).sum()
    return torch.minimum(spread, _paired(log_p, log_q, divergences))


def _paired(log_p: Tensor, log_q: Tensor, divergences: Tensor) -> Tensor:
    """The same where each component has one partner, the nearest: 0 of equal mixtures, which the
    rounds above only approach. inf where a component of q has none.
    """
    nearest = divergences.argmin(1)
    mine = log_p.exp().new_zeros(len(log_q)).index_add(0, nearest, log_p.exp())
    shares = log_p + log_q[nearest] - mine.log()[nearest]  # of q's component, split among its own
    value = (
        log_p.exp() * (log_p - shares + divergences.gather(1, nearest[:, None]).squeeze(1))
    ).sum()
    return torch.where((mine > 0).all(), value, math.inf)
