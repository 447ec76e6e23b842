"""The common part of the two SAP scores (Kumar et al. 2018)."""

from typing import Any

import numpy.typing as npt
from torch import Tensor

from jensen.scores.activity import named_active
from jensen.scores.information import top
from jensen.scores.inputs import Floats
from jensen.scores.mig_hist import over_varying


def attribute_gap(
    name: str,
    predictability: Floats,
    entropy: Floats,
    codes: Floats,
    log_var: npt.ArrayLike | Tensor | None,
) -> dict[str, Any]:
    """The mean over factors of the gap between the two latents that predict a factor best, from
    `(D, F)`.
    """
    best = top(predictability, 0)
    per_factor = best.first - best.second
    return {
        name: over_varying(per_factor, entropy),
        "per_factor": per_factor,
        "best_latent": best.place,
        "best_latent_active": named_active(codes, log_var, best.place),
        "predictability": predictability,
    }
