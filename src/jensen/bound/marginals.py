"""Means over single latents under the aggregate posterior: by quadrature, or at the draws."""

import torch
from torch import Tensor

from jensen.bound.aggregate import Draws, log_marginal
from jensen.bound.term import Term
from jensen.family.family import Family, gaussians
from jensen.family.gaussian import LOG_2PI, Gaussian
from jensen.family.mixture import Mixture

_GRID = 4096
"""Points of a marginal's quadrature, or as many as there are draws; beyond, it is evaluated at the
draws.
"""

_REACH = 9.0
"""Standard deviations beyond the outermost posteriors that a quadrature covers."""


def marginal_entropy(latent: int, draws: Draws, q: Gaussian, controls: Tensor) -> Term:
    """H(z_d) under q(z), by the trapezoidal rule; at the draws, where that would take too many
    points.

    At a spacing of half the smallest standard deviation the rule is exact on Gaussians to rounding,
    and on q log q to some 1e-9.
    """
    grid = _grid(latent, draws, q, 0.5 * (0.5 * q.log_var[:, latent].min()).exp())
    if grid is None:
        log_q = log_marginal(draws.z[:, latent], q.mean[:, latent], q.log_var[:, latent])
        one = q.marginal(latent)
        own = -0.5 * (LOG_2PI + one.log_var[draws.row, 0] + draws.noise[:, latent].square())
        return Term.estimate(-log_q, controls).with_rare_overlaps(log_q - own, one, len(one.mean))
    points, spacing = grid
    log_q = log_marginal(points, q.mean[:, latent], q.log_var[:, latent])
    return Term.exact(-(log_q.exp() * spacing * log_q).sum())


def marginal_log_prior(
    latent: int, draws: Draws, q: Gaussian, controls: Tensor, prior: Family
) -> Term | None:
    """E log p(z_d) under q(z): closed form, by quadrature, or at the draws; None where p(z_d) is
    unknown.

    The logarithm of a mixture turns more sharply than that of q(z_d): the quadrature takes a
    quarter of the smallest standard deviation, and of its own narrowest component.
    """
    marginal = prior.marginal(latent)
    if marginal is None:
        return None
    mean = q.mean[:, latent]
    log_var = q.log_var[:, latent]
    if isinstance(marginal, Gaussian):
        centre, log_scale = (part.to(mean).reshape(()) for part in marginal)
        squares = ((mean - centre).square() + log_var.exp()).mean()
        return Term.exact(-0.5 * (LOG_2PI + log_scale + squares * (-log_scale).exp()))
    grid = None
    if isinstance(marginal, Mixture):
        narrowest = gaussians(marginal.components).marginals().log_var.min().to(log_var)
        grid = _grid(latent, draws, q, 0.25 * (0.5 * torch.minimum(log_var.min(), narrowest)).exp())
    if grid is None:
        return Term.estimate(marginal.log_prob(draws.z[:, [latent]]), controls)
    points, spacing = grid
    mass = log_marginal(points, mean, log_var).exp() * spacing
    return Term.exact((mass * marginal.log_prob(points[:, None])).sum())


def _grid(latent: int, draws: Draws, q: Gaussian, spacing: Tensor) -> tuple[Tensor, Tensor] | None:
    """Points `(G,)` over all of q(z_d), at most `spacing` apart, and how far apart; None if they
    would be too many.
    """
    mean = q.mean[:, latent]
    std = (0.5 * q.log_var[:, latent]).exp()
    low = (mean - _REACH * std).min()
    high = (mean + _REACH * std).max()
    count = int(((high - low) / spacing).ceil().clamp(max=2**31)) + 1
    if count > max(_GRID, len(draws.z)):
        return None
    points = torch.linspace(0, 1, count, dtype=mean.dtype, device=mean.device) * (high - low) + low
    return points, (high - low) / (count - 1)
