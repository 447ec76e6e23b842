"""SAP with the R^2 of a linear fit: the variant for ordered factors (Kumar et al. 2018)."""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from jensen.scores.information import divide, entropies
from jensen.scores.inputs import check, some_rows, standardised
from jensen.scores.sap import attribute_gap


def sap_r2(
    codes: npt.ArrayLike | Tensor,
    factors: npt.ArrayLike | Tensor,
    log_var: npt.ArrayLike | Tensor | None = None,
    *,
    points: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Separated attribute predictability (Kumar, Sattigeri & Balakrishnan 2018, arXiv 1711.00848,
    section 3).

    S_jk is the R^2 of a linear fit of factor k on latent j, Cov(z_j, v_k)^2 / (Var z_j Var v_k);
    the score is the mean over k of the largest less the second largest S_jk over j. In [0, 1]; a
    lone latent has no runner-up, which counts 0.

    The factors' labels count as numbers, here for all factors: naming the values in another order
    changes the score, unlike in every other score but `irs`. A perfect code scores 1. Libraries
    report `sap_svc` by default, whose ceiling is far lower; published values of .5 to .6 are of
    this kind.

    Args:
        codes: `(N, D)`, the posterior's means.
        factors: `(N, F)`, integer labels.
        log_var: `(N, D)`, the posterior's, if known: it tells which latents are dead.

    Returns:
        sap_r2; per_factor `(F,)`; best_latent `(F,)`; best_latent_active `(F,)`; predictability
        `(D, F)`, the R^2; points.
    """
    z, v = check(codes, factors)
    rows = some_rows(len(z), points, seed)
    code = standardised(z[rows])
    factor = standardised(v[rows].astype(float))
    squared = divide((code.T @ factor) ** 2, np.outer((code**2).sum(0), (factor**2).sum(0)))
    return attribute_gap("sap_r2", squared.clip(0, 1), entropies(v[rows]), z, log_var) | {
        "points": len(rows)
    }
