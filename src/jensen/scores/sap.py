"""What the two SAP scores share (Kumar et al. 2018)."""

from typing import Any

from jensen.scores.information import top
from jensen.scores.inputs import Floats
from jensen.scores.mig_hist import over_varying


def attribute_gap(name: str, predictability: Floats, entropy: Floats) -> dict[str, Any]:
    """The mean over factors of the gap between the two latents that predict a factor best, from `(D, F)`."""
    best = top(predictability, 0)
    per_factor = best.first - best.second
    return {
        name: over_varying(per_factor, entropy),
        "per_factor": per_factor,
        "best_latent": best.place,
        "predictability": predictability,
    }
