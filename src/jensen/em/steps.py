"""Expectation-maximisation for mixtures of Gaussians, in plain differentiable torch.

    log p(x) = elbo + gap,   elbo = -(distortion + rate),   gap = KL(r || p(k|x)) >= 0

The E-step closes the gap, the M-step raises the elbo (Dempster, Laird & Rubin 1977; Neal & Hinton
1998). For data too large to hold responsibilities of, `em.stream` does the same sums in chunks.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from jensen.bound.bound import Bound
from jensen.family.mixture import Mixture
from jensen.family.moments import FLAT, Moments, PseudoCounts


class Prior(Protocol):
    """A belief of a mixture's parameters: pseudo-counts, or the conjugate prior of a Bayesian one."""

    @property
    def has_floor(self) -> bool:
        """Tell whether a covariance is held up by anything but rounding of the M-step itself."""
        ...

    @property
    def believes(self) -> bool:
        """Tell whether it has a density."""
        ...

    def log_weight(self, total: Tensor) -> Tensor:
        """The log-weights of the M-step, of each component's count, `(..., K)`."""
        ...

    def log_density(self, log_weight: Tensor, components: Any) -> Tensor:
        """The density of the parameters, `(...)`, nats: what EM adds to the log-likelihood."""
        ...


def e_step(x: Tensor, p: Mixture, beta: float = 1.0) -> Tensor:
    """Responsibilities `(..., N, K)` of points `(..., N, D)`, proportional to weight_k *
    p(x|k)^(1/beta).

    They minimise distortion + beta * rate: beta > 1 is deterministic annealing (Ueda & Nakano
    1998).
    """
    return (p.log_weight_of_points() + p.components.log_density(x) / beta).softmax(-1)


def m_step(p: Mixture, m: Moments, prior: Prior = FLAT) -> Mixture:
    """The mixture that maximises the expected log-joint, and log `prior`, given moments that were
    taken with `p`.

    Bishop 2006, eq. 9.24-9.26. A component without any points keeps its mean and covariance.
    """
    log_weight = prior.log_weight(m.total).to(p.log_weight.dtype)
    return Mixture(log_weight, p.components.maximise(m, prior))


def bound(x: Tensor, p: Mixture, r: Tensor) -> Bound:
    """The bound at any responsibilities `r` `(..., N, K)`; elbo = log p(x) at `e_step(x, p)`. Each
    part is `(..., N)`, nats.
    """
    return bound_of(p.components.log_density(x), p.log_weight_of_points(), r)


def bound_of(log_density: Tensor, log_weight: Tensor, r: Tensor) -> Bound:
    """The same from the densities log p(x|k) `(..., N, K)`."""
    return Bound(-(r * log_density).sum(-1), (torch.xlogy(r, r) - r * log_weight).sum(-1))


def fit(
    x: Tensor,
    p: Mixture,
    steps: int,
    *,
    weights: Tensor | None = None,
    beta: float = 1.0,
    prior: PseudoCounts = FLAT,
) -> Mixture:
    """`steps` EM steps from `p` on points `(..., N, D)` with `weights` `(..., N)`; differentiable
    in all of them.

    Gradients are those of the unrolled steps, whose memory grows with them. Components that start
    alike stay alike.
    """
    for _ in range(steps):
        r = e_step(x, p, beta)
        if weights is not None:
            r = r * weights.unsqueeze(-1)
        p = m_step(p, p.components.moments(x, r), prior)
    return p


def log_prior(p: Mixture, prior: Prior) -> Tensor:
    """log density of the parameters under `prior`, `(...)`, nats, up to a constant: what MAP-EM
    adds to the log-likelihood.
    """
    return prior.log_density(*p)
