"""The mutual information gap as disentanglement_lib reports it: 20 bins, means, all factors."""

from typing import Any

import numpy.typing as npt
from torch import Tensor

from jensen.scores.mig_hist import mig_hist


def mig_hist20(
    codes: npt.ArrayLike | Tensor,
    factors: npt.ArrayLike | Tensor,
    log_var: npt.ArrayLike | Tensor | None = None,
    *,
    points: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Mutual information gap (Chen et al. 2018, arXiv 1802.04942, equation 6) on 20-bin histograms
    of the means.

        mean_k [I(z_{j1}; v_k) - I(z_{j2}; v_k)] / H(v_k),   j1, j2 the two latents that tell most
        of factor k

    The variant of Locatello et al. 2019: each latent's mean in 20 equally wide bins over its range,
    plug-in mutual information in nats, `points` rows (all, if there are fewer), all factors, no
    latent left out. In [0, 1].

    It differs from `mig_exact` (posterior samples, no bins), from papers that leave dSprites' shape
    out, and from libraries that also bin the factors. Twenty bins carry at most log 20 nats, so a
    perfect code of 32- and 40-valued factors scores about .90; few points bias I up (see
    `information`). A lone latent has no runner-up: it counts 0. Factors of one value are left out
    of the mean.

    Args:
        codes: `(N, D)`, the posterior's means.
        factors: `(N, F)`, integer labels.
        log_var: `(N, D)`, the posterior's, if known: it tells which latents are dead.

    Returns:
        mig_hist20; per_factor `(F,)`; best_latent `(F,)`; best_latent_active `(F,)`, False where
        that latent is dead (`activity.active_latents`), so that neither it nor the gap means
        anything; mutual_information `(D, F)`; entropy `(F,)`; points.
    """
    return mig_hist(codes, factors, log_var, bins=20, points=points, seed=seed)
