"""Modularity: a latent informs about one factor only (Ridgeway & Mozer 2018)."""

from typing import Any

import numpy.typing as npt
from torch import Tensor

from jensen.scores.activity import active_latents
from jensen.scores.information import binned_informations, divide, entropies
from jensen.scores.inputs import check, check_log_var, some_rows


def modularity(
    codes: npt.ArrayLike | Tensor,
    factors: npt.ArrayLike | Tensor,
    log_var: npt.ArrayLike | Tensor | None = None,
    *,
    points: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Ridgeway & Mozer 2018 (arXiv 1802.05312), section 3, with m_jk = I(z_j; v_k) in nats:

        mean_j [1 - sum_{k != k*} m_jk^2 / (m_jk*^2 (K - 1))],   k* the factor that latent j tells
        most of

    As in disentanglement_lib: 20-bin histograms of the means, all latents in the mean, none left
    out, a latent that tells nothing counts 0. So one more constant takes the score of D latents to
    D / (D + 1) of it; and a latent of pure noise scores .70 to .75, because bias is divided by
    bias, whatever the number of points: do not read this score alone. K counts the factors that
    vary; with one alone modularity says nothing: 0.

    Args:
        codes: `(N, D)`, the posterior's means.
        factors: `(N, F)`, integer labels.
        log_var: `(N, D)`, the posterior's, if known: it tells which latents are dead.

    Returns:
        modularity; per_latent `(D,)`; best_factor `(D,)`; active `(D,)`; mutual_information `(D,
        F)`; points.
    """
    z, v = check(codes, factors)
    used = active_latents(z, None if log_var is None else check_log_var(log_var, z), None)
    rows = some_rows(len(z), points, seed)
    information = binned_informations(z[rows], v[rows], 20)
    others = int((entropies(v[rows]) > 0).sum()) - 1
    share = divide(information, information.max(1, keepdims=True)) ** 2
    per_latent = divide(others - (share.sum(1) - 1), max(others, 0)) * (information.max(1) > 0)
    return {
        "modularity": float(per_latent.mean()),
        "per_latent": per_latent,
        "best_factor": information.argmax(1),
        "active": used,
        "mutual_information": information,
        "points": len(rows),
    }
