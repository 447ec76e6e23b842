"""The aggregate posterior in the two most informative latents, with the prior's contours."""

import math
from collections.abc import Mapping
from typing import TypeGuard

import torch
from matplotlib.axes import Axes
from torch import Tensor

from jensen.base.errors import check_count
from jensen.base.random import fold
from jensen.diagnostics.picture import chart
from jensen.diagnostics.snapshot import Snapshot, by_rate
from jensen.family.algebra import marginal
from jensen.family.draw import draw as draws_of
from jensen.family.family import Family, Product, are_gaussians, is_standard
from jensen.family.flow import Flow
from jensen.family.full import FullGaussian, full
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture

SIGMAS = (3, 2, 1)
_MOST = 1000
"""Posteriors with covariances whose mean is drawn."""
_DRAWS = 4000
"""Draws that tell where the prior is."""


def aggregate_posterior(snapshot: Snapshot, side: int = 96) -> Mapping[str, Tensor]:
    """The density of q(z) = mean of q(z|x) over the held-out set in the two latents of largest rate,
    on `side` x `side` places; lines are the prior's density at exp(-k^2 / 2) of its peak, which of a
    Gaussian are k = 1, 2, 3 standard deviations. The picture reaches over both.

    Where the two differ, samples of the prior decode to what the decoder has not seen. Points without
    uncertainty are shown as such, and posteriors that are no Gaussians by their samples; a prior whose
    density of two latents is unknown has no lines. Empty for fewer than two latents.
    """
    check_count("side", side, least=2)
    pair = by_rate(snapshot)[:2].tolist()
    if len(pair) < 2:
        return {}
    drawn = _draws(snapshot, pair)
    x, y = (_places(snapshot, latent, own, side) for latent, own in zip(pair, drawn, strict=True))
    q = density(snapshot.posterior, pair, x, y)
    prior = prior_density(snapshot.prior, pair, x, y, snapshot.z)

    def draw(axes: Axes) -> None:
        across, up = (each.cpu().tolist() for each in (x, y))
        if q is None:
            points = snapshot.z[:5000, pair].cpu()
            axes.scatter(points[:, 0], points[:, 1], s=3, color="C0")
        else:
            extent = _edges(across) + _edges(up)
            axes.imshow(q.cpu().numpy(), origin="lower", extent=extent, aspect="auto", cmap="Blues")
        known = prior is not None and bool(prior.max() > 0)
        if prior is not None and known:
            levels = [float(prior.max()) * math.exp(-(k**2) / 2) for k in SIGMAS]
            axes.contour(across, up, prior.cpu().numpy(), levels, colors="C1", linewidths=1)
        axes.set(
            xlabel=f"z{pair[0]}",
            ylabel=f"z{pair[1]}",
            title="aggregate posterior" + ", and contours of the prior" * known,
            xlim=(across[0], across[-1]),
            ylim=(up[0], up[-1]),
        )

    return {"density": chart(draw, 5, 5)}


def _draws(snapshot: Snapshot, pair: list[int]) -> Tensor:
    """Draws of two latents from the prior `(2, S)`; S is 0 where its density is unknown."""
    prior = snapshot.prior
    if not _has_density(prior):
        return snapshot.z.new_empty(2, 0)
    index = torch.arange(_DRAWS, device=snapshot.z.device)
    drawn = draws_of(
        prior, fold(0, "places of the prior"), index, snapshot.z.shape[1], snapshot.z.dtype
    )
    return drawn[:, pair].mT.detach()


def _places(snapshot: Snapshot, latent: int, drawn: Tensor, side: int) -> Tensor:
    """Equal steps `(side,)`, float64, over all but the outermost samples of q(z) and of the prior, and
    three standard deviations of N(0, I) if that is the prior.
    """
    ends = [_ends(part.double()) for part in (snapshot.z[:, latent], drawn) if len(part)]
    if is_standard(snapshot.prior):
        ends.append((-3.2, 3.2))
    low = min(end[0] for end in ends)
    high = max(end[1] for end in ends)
    room = 0.05 * (high - low) + 1e-6
    return torch.linspace(low - room, high + room, side, dtype=torch.float64, device=drawn.device)


def _ends(z: Tensor) -> tuple[float, float]:
    """All but the outermost thousandth of `(N,)`, on each side."""
    ordered = z.sort().values
    cut = len(z) // 1000
    return ordered[cut].item(), ordered[len(z) - 1 - cut].item()


def _edges(places: list[float]) -> tuple[float, float]:
    """The ends of a picture whose pixels have their centres at `places`."""
    half = 0.5 * (places[1] - places[0])
    return places[0] - half, places[-1] + half


def density(posterior: object, pair: list[int], x: Tensor, y: Tensor) -> Tensor | None:
    """The mean over N posteriors of their density in two latents, `(len(y), len(x))`, float64; None
    where they have no variance, or are no Gaussians. Of posteriors with covariances, the first thousand.
    """
    if isinstance(posterior, FullGaussian):
        some = FullGaussian(*(part[:_MOST].double() for part in posterior))
        weight = torch.full((len(some.mean),), -math.log(len(some.mean))).to(some.mean)
        return Mixture(weight, marginal(some, pair)).log_prob(_grid(x, y)).exp()
    if not isinstance(posterior, Gaussian):
        return None
    # A diagonal posterior's density is a product: the mean over N of products is one of matrices.
    across, up = (
        torch.distributions.Normal(
            posterior.mean[:, latent].double(), (0.5 * posterior.log_var[:, latent].double()).exp()
        )
        .log_prob(places[:, None])
        .exp()
        for latent, places in zip(pair, (x, y), strict=True)
    )
    return up @ across.T / len(posterior.mean)


def prior_density(
    prior: Family, pair: list[int], x: Tensor, y: Tensor, like: Tensor | None = None
) -> Tensor | None:
    """The prior's density in two latents, `(len(y), len(x))`, float64; None where it is unknown: of
    a flow, which has no marginals, where there are more than these two, and of mixtures of no Gaussians.

    like: has the dtype that a flow takes.
    """
    if not _has_density(prior):
        return None
    if isinstance(prior, Mixture):
        parts = FullGaussian(*(part.double() for part in full(prior.components)))
        both = Mixture(prior.log_weight.double(), marginal(parts, pair))
        return both.log_prob(_grid(x, y)).exp()
    if isinstance(prior, Flow):
        points = _grid(x, y)[..., pair].flatten(0, 1)
        density = prior.log_prob(points if like is None else points.to(like)).exp().double()
        return density.detach().unflatten(0, (len(y), len(x)))
    across, up = (
        prior.marginal(latent).log_prob(places[:, None]).double().exp()
        for latent, places in zip(pair, (x, y), strict=True)
    )
    return torch.outer(up, across)


def _has_density(prior: Family) -> TypeGuard[Mixture | Flow | Gaussian | Product]:
    """Tell whether a prior's density of two latents is known."""
    if isinstance(prior, Mixture):
        return are_gaussians(prior.components)
    if isinstance(prior, Flow):
        return prior.dim == 2
    return isinstance(prior, Gaussian | Product)


def _grid(x: Tensor, y: Tensor) -> Tensor:
    """Points `(len(y), len(x), 2)`."""
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
