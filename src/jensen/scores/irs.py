"""IRS: how little a latent moves when a factor is held (Suter et al. 2019)."""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from jensen.base.errors import check_count, check_number
from jensen.scores.activity import active_latents
from jensen.scores.constant import constant
from jensen.scores.information import discretise
from jensen.scores.inputs import check, check_log_var, some_rows
from jensen.scores.interventions import groups


def irs(
    codes: npt.ArrayLike | Tensor,
    factors: npt.ArrayLike | Tensor,
    log_var: npt.ArrayLike | Tensor | None = None,
    *,
    bins: int | None = 20,
    quantile: float = 0.99,
    points: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Interventional robustness score (Suter et al. 2019, arXiv 1811.00007, section 4).

    For factor k, the `quantile` of |z_j - mean of z_j given v_k = c| among the points that hold c,
    averaged over the values c and divided by the largest |z_j - mean z_j|: 1 less that is IRS_jk,
    how robust latent j is to everything but factor k. The score is the mean over latents of max_k
    IRS_jk, each weighted by its largest deviation. In [0, 1].

    As in disentanglement_lib: quantile .99 where the paper has the maximum, 10,000 points, and
    factors cut into 20 equally wide `bins` of their labels, so a factor of more values is held only
    roughly and its labels count as numbers (None takes each value for itself, and then the score
    does not depend on how values are named). Constant latents are left out. Values that a single
    point holds are, too: it cannot deviate from its own mean. Pure noise scores .38 at 10,000
    points, more on fewer: do not read this score alone.

    Args:
        codes: `(N, D)`, the posterior's means.
        factors: `(N, F)`, integer labels.
        log_var: `(N, D)`, the posterior's, if known: it tells which latents are dead.

    Returns:
        irs; per_latent `(D,)`; best_factor `(D,)`; active `(D,)`; robustness `(D, F)` = IRS_jk;
        max_deviation `(D,)`; points.
    """
    check_number("quantile", quantile, 0, 1)
    if bins is not None:
        check_count("bins", bins, 2)
    z, v = check(codes, factors)
    used = active_latents(z, None if log_var is None else check_log_var(log_var, z), None)
    rows = some_rows(len(z), points, seed)
    z = z[rows]
    v = v[rows]
    found = groups(v if bins is None else discretise(v.astype(float), bins))
    largest = np.where(constant(z), 0.0, np.abs(z - z.mean(0)).max(0))
    robustness = np.zeros((z.shape[1], v.shape[1]))
    for first, values, k in zip(found.first, found.values, found.factors, strict=True):
        deviations = []
        for group in range(first, first + values):
            held = z[found.rows[found.start[group] : found.start[group] + found.size[group]]]
            deviations.append(np.quantile(np.abs(held - held.mean(0)), quantile, axis=0))
        robustness[:, k] = 1 - np.mean(deviations, 0) / np.where(largest > 0, largest, np.inf)
    robustness = (robustness * (largest > 0)[:, None]).clip(
        0, 1
    )  # a group's own mean may lie farther off than the mean of all
    per_latent = robustness.max(1)
    return {
        "irs": float(np.average(per_latent, weights=largest)) if largest.any() else 0.0,
        "per_latent": per_latent,
        "best_factor": robustness.argmax(1),
        "active": used,
        "robustness": robustness,
        "max_deviation": largest,
        "points": len(rows),
    }
