"""The rate of each latent as a scalar of its own: lines over steps."""

from collections.abc import Mapping

from torch import Tensor

from jensen.diagnostics.snapshot import Snapshot


def latent_rates(snapshot: Snapshot) -> Mapping[str, Tensor]:
    """The mean rate of each latent, `z0`, `z1`, ..., in nats per example; a chart of CUSTOM SCALARS
    holds all.

    Nothing of a prior whose marginals are unknown.
    """
    mean = snapshot.latent_rate.mean(0)
    if mean.isnan().any():
        return {}
    return {f"z{latent}": rate for latent, rate in enumerate(mean)}
