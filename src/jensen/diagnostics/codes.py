"""The spread of the codes: histograms of the posterior means and standard deviations."""

from collections.abc import Mapping

from torch import Tensor

from jensen.base.errors import check_count
from jensen.diagnostics.snapshot import Snapshot, by_rate
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian


def codes(snapshot: Snapshot, latents: int = 16) -> Mapping[str, Tensor]:
    """Histograms of the code, of its standard deviation where that is known, and of the code of each
    of the first `latents` by rate.
    """
    check_count("latents", latents)
    mean = snapshot.posterior.mean
    each = {f"z{latent}": mean[:, latent] for latent in by_rate(snapshot)[:latents].tolist()}
    if isinstance(snapshot.posterior, Gaussian | FullGaussian):
        log_var = snapshot.posterior.marginals().log_var
        each = {"std": (0.5 * log_var).exp().flatten()} | each
    return {"mean": mean.flatten()} | each
