"""The distance of Kolmogorov and Smirnov of each latent's q(z_d) from its prior p(z_d)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from jensen.base.errors import check_count
from jensen.diagnostics.picture import chart
from jensen.diagnostics.snapshot import Snapshot, takes
from jensen.family.family import Family, marginals
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture, aggregate
from jensen.family.normal import cdf

_LIMIT = 1 << 20
"""Numbers in a temporary: 8 MB."""

_REACH = 9.0
"""Deviations beyond the outermost mean that places reach: float64 has no mass beyond."""

_CLOSE = 1e-6
"""Distance from the greatest difference to which its place is looked for."""

_ROUNDS = 100
"""Times that an interval between places is halved, until float64 has none between its ends."""


@takes(Gaussian, FullGaussian)
def goodness_of_fit(snapshot: Snapshot, places: int = 500) -> Mapping[str, Tensor]:
    """The greatest difference of P(z_d <= t) between the aggregate posterior and the prior, `z0`,
    `z1`, ..., and `worst`, of 0 to 1. `distances`: all as bars, the largest first.

    q(z_d) is the mixture of all held-out posteriors, not a sample of it. Each distance is at most 1 /
    `places` too small: places t begin as quantiles of both, and others follow where two are too far
    apart to say so, wherever codes lie.

    It says whether the rate term made the codes follow the prior, where the dimension-wise KL says
    what that costs. Nothing of a prior whose marginals are unknown.
    """
    check_count("places", places, least=2)
    q = marginals(snapshot.posterior, "goodness_of_fit")
    found: dict[str, Tensor] = {}
    for latent in range(q.mean.shape[1]):
        own = aggregate(Gaussian(*(part[:, [latent]].double() for part in q)))
        prior = _mixture(snapshot.prior, latent, own.components.mean)
        if prior is None:
            return {}
        found[f"z{latent}"] = _distance(own, prior, places)
    distances = torch.stack([*found.values()])
    return found | {"worst": distances.max(), "distances": chart(partial(_bars, distances.cpu()))}


def _bars(distances: Tensor, axes: Axes) -> None:
    order = distances.argsort(descending=True, stable=True)
    axes.bar([f"z{latent}" for latent in order.tolist()], distances[order].tolist())
    axes.set(ylabel="KS distance", title="distance of each q(z) from its prior", ylim=(0, None))
    axes.tick_params(axis="x", rotation=90 if len(order) > 16 else 0)


def _mixture(prior: Family, latent: int, like: Tensor) -> Mixture | None:
    """The prior's marginal `(1,)` as a mixture, None where it is unknown or no mixture of Gaussians."""
    own: Any = prior.marginal(latent)
    if isinstance(own, Gaussian):
        one = Gaussian(*(part.to(like).reshape(-1, 1).expand(1, 1) for part in own))
        return aggregate(one)
    if isinstance(own, Mixture) and hasattr(own.components, "marginals"):
        mean, log_var = own.components.marginals()
        return Mixture(own.log_weight.to(like), Gaussian(mean.to(like), log_var.to(like)))
    return None


def _parts(p: Mixture) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and deviations, `(K,)` each."""
    components: Any = p.components
    deviation = (0.5 * components.log_var[:, 0]).exp()
    return p.log_weight.exp(), components.mean[:, 0], deviation


def _distance(p: Mixture, q: Mixture, places: int) -> Tensor:
    """The greatest difference of the distribution functions, `()`: at most 1 / places too small."""
    t = torch.cat([_spread(each, max(places // 4, 1)) for each in (p, q)]).unique()
    below, above = _cdf(p, t), _cdf(q, t)
    for _ in range(_ROUNDS):
        gap = (below - above).abs()
        place = int(gap.argmax())
        # Neither function falls, so between two places they are no further apart than across.
        most = torch.maximum(below[1:] - above[:-1], above[1:] - below[:-1])
        allowed = torch.full_like(most, 1 / places)
        allowed[max(place - 1, 0) : place + 1] = _CLOSE
        wide = most > gap[place] + allowed
        middle = 0.5 * (t[:-1] + t[1:])
        (at,) = (wide & (middle > t[:-1]) & (middle < t[1:])).nonzero(as_tuple=True)
        if not len(at):
            break
        new = middle[at]
        t, order = torch.cat([t, new]).sort()
        below = torch.cat([below, _cdf(p, new)])[order]
        above = torch.cat([above, _cdf(q, new)])[order]
    return (below - above).abs().max()


def _spread(p: Mixture, places: int) -> Tensor:
    """Places between which a mixture has about as much mass, and two that hold all of it, ascending."""
    weight, mean, deviation = _parts(p)
    each = -(-4 * places // len(mean))
    level = (torch.arange(each).to(mean) + 0.5) / each
    points = mean[:, None] + deviation[:, None] * torch.special.ndtri(level)
    points, order = points.flatten().sort()
    mass = (weight / each).repeat_interleave(each)[order].cumsum(0)
    share = (torch.arange(places).to(mean) + 0.5) / places
    inner = points[torch.searchsorted(mass, share).clamp(max=len(points) - 1)]
    reach = _REACH * deviation
    return torch.cat([(mean - reach).amin()[None], inner, (mean + reach).amax()[None]])


def _cdf(p: Mixture, t: Tensor) -> Tensor:
    weight, mean, deviation = _parts(p)
    size = max(1, _LIMIT // len(mean))
    return torch.cat([cdf((part[:, None] - mean) / deviation) @ weight for part in t.split(size)])  # type: ignore[no-untyped-call]
