"""The rate of each latent, and the number of latents that are used."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from torch import Tensor

from jensen.base.errors import check_number
from jensen.diagnostics.picture import chart
from jensen.diagnostics.snapshot import Snapshot, by_rate


def rate(snapshot: Snapshot, threshold: float = 0.01) -> Mapping[str, Tensor]:
    """Mean rate of each latent, sorted, and two counts of active units.

    active_units: latents whose code varies, Var_x E_q z_d > `threshold` (Burda et al. 2016, arXiv
        1509.00519, appendix C).
    active_rates: latents with a mean rate above `threshold` nats.

    Of a prior whose marginals are unknown there is no rate of a latent: active_units alone.
    """
    check_number("threshold", threshold, low=0)
    mean = snapshot.latent_rate.mean(0)
    active_units = (snapshot.posterior.mean.var(0, correction=0) > threshold).sum().float()
    if mean.isnan().any():
        return {"active_units": active_units}
    order = by_rate(snapshot)
    values = mean[order].tolist()

    def bars(axes: Axes) -> None:
        axes.bar([f"z{latent}" for latent in order.tolist()], values)
        axes.set(
            ylabel="rate (nats per example)",
            title=f"rate of each latent, {sum(values):.2f} nats added up",
        )
        axes.tick_params(axis="x", rotation=90 if len(values) > 16 else 0)

    return {
        "active_units": active_units,
        "active_rates": (mean > threshold).sum().float(),
        "by_latent": mean,
        "sorted": chart(bars),
    }
