"""The orders of a Bayesian mixture's components that are different beliefs.

A belief q of a mixture is as good with its components in any of K! orders, and so is the mean of all of
these, whose entropy is larger by the information I that a draw has on the order. That raises the elbo, to
elbo + I <= log p(points): by log K! where no two components are alike, and by nothing where all are
copies. Bounded from below by Bhattacharyya coefficients (Kolchinsky & Tracey 2017),

    I >= log K! - log sum over orders of int sqrt(q q_order) >= log K! - log permanent(C),

where C_kj is the coefficient of two components' beliefs, means, precisions and shares of the Dirichlet, and
that of what each point belongs to is at most 1. Of m copies the permanent is m!, of none 1.
"""

import math
from typing import Any

import torch
from torch import Tensor

from jensen.em.variational import Belief
from jensen.family import cholesky
from jensen.family.believed import DiagonalBelief, FullBelief, TiedBelief
from jensen.family.mixture import Mixture
from jensen.family.normal_gamma import NormalGamma
from jensen.family.normal_wishart import NormalWishart

_LEAST = -50.0
"""Coefficients below exp of it are 0: of 100 components their products come to less than rounding."""

_EXACT = 12
"""Components that are alike to some degree, of which a permanent takes 2^K steps."""


def log_orders(state: Mixture, prior: Belief) -> float:
    """The nats that an elbo gains by counting the orders of the components of `state` `(K,)`: at least 0, at
    most log K!.
    """
    components: Any = state.components
    shares = prior.counts(components) + prior.weights.concentration
    gammas = torch.lgamma(shares)
    mean_share = 0.5 * (shares.unsqueeze(1) + shares)
    each = torch.lgamma(mean_share) - 0.5 * (gammas.unsqueeze(1) + gammas)
    log_alike = (each + log_overlaps(components)).clamp(max=0.0)
    return max(0.0, math.lgamma(len(shares) + 1) - log_permanent(log_alike))


def log_overlaps(q: Any) -> Tensor:
    """log of the Bhattacharyya coefficients of the components' beliefs, `(K, K)`; with a shared precision
    what K of them amount to, at most, when all change places.
    """
    mean, count = q.mean, q.mean_count
    move = mean.unsqueeze(1) - mean
    total = count.unsqueeze(1) + count
    pull = 0.5 * count.unsqueeze(1) * count / total  # of their means on the mean scatter
    if isinstance(q, TiedBelief):
        return _tied(q, move, pull, total)
    structure: Any
    if isinstance(q, FullBelief):
        structure = NormalWishart
        scatter = q.scatter_tril @ q.scatter_tril.mT
        apart = move.unsqueeze(-1) * move.unsqueeze(-2)
        middle = 0.5 * (scatter.unsqueeze(1) + scatter) + pull[..., None, None] * apart
        half = NormalWishart(move, 0.5 * total, _middle(q.df), cholesky.factor(middle))
        one = NormalWishart(*q)
    else:
        structure = NormalGamma
        shape, rate = q.shape, q.rate
        if isinstance(q, DiagonalBelief):  # a normal-gamma of each dimension
            shape = shape.unsqueeze(-1).expand(rate.shape)
            count = count.unsqueeze(-1).expand(rate.shape)
            mean = mean.unsqueeze(-1)
            pull = pull.unsqueeze(-1)
        square = move.square() if isinstance(q, DiagonalBelief) else move.square().sum(-1)
        middle = _middle(rate) + 0.5 * pull * square
        points = mean.unsqueeze(1) - mean
        half = structure(points, _middle(count), _middle(shape), middle)
        one = structure(mean, count, shape, rate)
    found = half.log_normaliser() - _middle(one.log_normaliser())
    return found.sum(-1) if isinstance(q, DiagonalBelief) else found


def _middle(x: Tensor) -> Tensor:
    """The mean of each two of `x` `(K, ...)`, `(K, K, ...)`."""
    return 0.5 * (x.unsqueeze(1) + x)


def _tied(q: TiedBelief, move: Tensor, pull: Tensor, total: Tensor) -> Tensor:
    """E over the precision of a product of K coefficients is at most that of the K-th powers' K-th roots
    (Hölder), each closed form: E exp(-t move' precision move) = (1 + 2 t |move|^2 in its scale)^(-df / 2).
    """
    size = len(q.mean)
    dim = q.mean.shape[-1]
    ratio = 4 * q.mean_count.unsqueeze(1) * q.mean_count / total.square()
    square = cholesky.solve(q.scatter_tril, move).square().sum(-1)
    return 0.25 * dim * ratio.log() - 0.5 * q.df / size * torch.log1p(size * pull * square)


def log_permanent(log_alike: Tensor) -> float:
    """log of the permanent of the matrix `(K, K)` with these logarithms, 0 on its diagonal and at most 0
    elsewhere; of more than 12 rows that are linked a bound from above.
    """
    alike = torch.where(log_alike < _LEAST, 0.0, log_alike.exp())
    return sum(
        _exact(alike[block][:, block].tolist()) if len(block) <= _EXACT else _above(alike[block])
        for block in _blocks(alike)
    )


def _blocks(alike: Tensor) -> list[list[int]]:
    """The rows that are linked with one another."""
    left = set(range(len(alike)))
    found = []
    linked = [row.nonzero().flatten().tolist() for row in alike]
    while left:
        block: set[int] = set()
        edge = {min(left)}
        while edge:
            block |= edge
            edge = {other for row in edge for other in linked[row]} - block
        left -= block
        found.append(sorted(block))
    return found


def _exact(rows: list[list[float]]) -> float:
    """The permanent by sets of columns that the first rows have taken: sums of what is not negative lose
    no digits.
    """
    size = len(rows)
    ways = [1.0] + [0.0] * ((1 << size) - 1)
    for taken in range(1, 1 << size):
        row = rows[taken.bit_count() - 1]
        ways[taken] = sum(
            row[column] * ways[taken ^ (1 << column)]
            for column in range(size)
            if taken >> column & 1
        )
    return math.log(ways[-1])


def _above(rows: Tensor) -> float:
    """The product over rows of sum_j a_j (gamma_j - gamma_(j-1)), with a_j in falling order and gamma_j =
    j!^(1/j): exact of copies, and of none. A row is a sum of ones in its j largest places, of which each
    permanent is at most the product of the rows' gamma (Bregman 1973).
    """
    rank = torch.arange(1, rows.shape[-1] + 1).to(rows)
    gamma = (torch.lgamma(rank + 1) / rank).exp()
    steps = torch.diff(gamma, prepend=gamma.new_zeros(1))
    falling = rows.sort(-1, descending=True).values
    return float((falling @ steps).log().sum())
