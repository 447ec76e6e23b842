"""The posterior's standard deviation in each latent: near 1 where a latent tells nothing."""

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from torch import Tensor

from jensen.diagnostics.picture import chart
from jensen.diagnostics.snapshot import Snapshot, by_rate, takes
from jensen.family.family import marginals
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian

SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


@takes(Gaussian, FullGaussian)
def sigma(snapshot: Snapshot) -> Mapping[str, Tensor]:
    """The standard deviation of q(z_d|x), its mean over the held-out set as `z0`, `z1`, ...

    spread: the median, the quartiles and the 5 % and 95 % quantiles over the held-out set, latents by
        falling rate.
    """
    log_var = marginals(snapshot.posterior, "diagnostics=[sigma]").log_var
    std = (0.5 * log_var).exp()
    order = by_rate(snapshot)
    found = quantiles(std)[:, order].cpu().tolist()
    names = [f"z{latent}" for latent in order.tolist()]

    def boxes(axes: Axes) -> None:
        keys = ("whislo", "q1", "med", "q3", "whishi")
        axes.bxp(
            [dict(zip(keys, column, strict=True)) for column in zip(*found, strict=True)],
            showfliers=False,
        )
        axes.set_xticks(range(1, len(names) + 1), names, rotation=90 if len(names) > 16 else 0)
        axes.set(
            ylabel="standard deviation of q(z|x)",
            title="posterior standard deviation: 5, 25, 50, 75, 95 % of the held-out set",
            ylim=(0, None),
        )

    means = {f"z{latent}": mean for latent, mean in enumerate(std.mean(0))}
    return {**means, "spread": chart(boxes)}


def quantiles(x: Tensor) -> Tensor:
    """The `SHARES` quantiles of each column of `(N, D)`, `(5, D)`, each one of its numbers."""
    places = torch.tensor([round(share * (len(x) - 1)) for share in SHARES])
    return x.sort(0).values[places.to(x.device)]
