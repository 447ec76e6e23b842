"""The distance of Kolmogorov and Smirnov of each latent's q(z_d) from its prior p(z_d)."""

from collections.abc import Callable, Mapping
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

_REACH = 6.0
"""Deviations beyond the outermost mean that places reach."""

Cdf = Callable[[Tensor], Tensor]


@takes(Gaussian, FullGaussian)
def goodness_of_fit(snapshot: Snapshot, places: int = 500) -> Mapping[str, Tensor]:
    """The greatest difference of P(z_d <= t) between the aggregate posterior and the prior, `z0`,
    `z1`, ..., and `worst`, of 0 to 1; over so many places t. `distances`: all as bars, the largest
    first.

    Exact but for the places: q(z_d) is the mixture of all held-out posteriors, not a sample of it. It
    says whether the rate term made the codes follow the prior, where the dimension-wise KL says what
    that costs. Nothing of a prior whose marginals are unknown.
    """
    check_count("places", places, least=2)
    q = marginals(snapshot.posterior, "goodness_of_fit")
    found: dict[str, Tensor] = {}
    for latent in range(q.mean.shape[1]):
        own = aggregate(Gaussian(*(part[:, [latent]].double() for part in q)))
        prior = _mixture(snapshot.prior, latent, own.components.mean)
        if prior is None:
            return {}
        both = [_ends(each) for each in (own, prior)]
        low = min(low for low, _ in both)
        high = max(high for _, high in both)
        t = torch.linspace(low, high, places, dtype=torch.float64, device=q.mean.device)
        found[f"z{latent}"] = (_cdf(own, t) - _cdf(prior, t)).abs().max()
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


def _ends(p: Mixture) -> tuple[float, float]:
    _, mean, deviation = _parts(p)
    return (
        float((mean - _REACH * deviation).min()),
        float((mean + _REACH * deviation).max()),
    )


def _cdf(p: Mixture, t: Tensor) -> Tensor:
    weight, mean, deviation = _parts(p)
    size = max(1, _LIMIT // len(mean))
    return torch.cat([cdf((part[:, None] - mean) / deviation) @ weight for part in t.split(size)])  # type: ignore[no-untyped-call]
