"""MIG-sup: the modularity twin of the mutual information gap (Li et al. 2020)."""

from typing import Any

import numpy.typing as npt
from torch import Tensor

from jensen.scores.activity import Active, active_latents
from jensen.scores.information import binned_informations, divide, entropies, top
from jensen.scores.inputs import check, check_log_var, some_rows


def mig_sup(
    codes: npt.ArrayLike | Tensor,
    factors: npt.ArrayLike | Tensor,
    log_var: npt.ArrayLike | Tensor | None = None,
    *,
    active: Active = None,
    points: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """The mean over active latents of the gap between the two factors that a latent tells most of.

    Li et al. 2020 ("Progressive learning and disentanglement of hierarchical representations"):
    I(z_j; v_k) / H(v_k), the largest less the second largest over k. Here on 20-bin histograms of
    the means, as `mig_hist20`. Implementations differ in what "active" is: see
    `activity.active_latents` for `active`. In [0, 1]; 0 if no latent is active. Where one factor
    alone varies there is no runner-up, which counts 0.

    Args:
        codes: `(N, D)`, the posterior's means.
        factors: `(N, F)`, integer labels.
        log_var: `(N, D)`, the posterior's; needed for the rule "kl".

    Returns:
        mig_sup; per_latent `(D,)`; best_factor `(D,)`; active `(D,)`; normalised_information `(D,
        F)`; points.
    """
    z, v = check(codes, factors)
    used = active_latents(z, None if log_var is None else check_log_var(log_var, z), active)
    rows = some_rows(len(z), points, seed)
    share = divide(binned_informations(z[rows], v[rows], 20), entropies(v[rows]))
    best = top(share, 1)
    per_latent = best.first - best.second
    return {
        "mig_sup": float(per_latent[used].mean()) if used.any() else 0.0,
        "per_latent": per_latent,
        "best_factor": best.place,
        "active": used,
        "normalised_information": share,
        "points": len(rows),
    }
