"""The mutual information gap without bins: nearest neighbours on the means."""

from typing import Any

import numpy.typing as npt
from torch import Tensor

from jensen.base.errors import check_count
from jensen.scores.activity import named_active
from jensen.scores.information import entropies, neighbour_informations, top
from jensen.scores.inputs import check, some_rows
from jensen.scores.mig_hist import gap, over_varying


def mig_knn(
    codes: npt.ArrayLike | Tensor,
    factors: npt.ArrayLike | Tensor,
    log_var: npt.ArrayLike | Tensor | None = None,
    *,
    points: int = 3_000,
    neighbours: int = 3,
    seed: int = 0,
) -> dict[str, Any]:
    """`mig_hist20` with a nearest-neighbour estimate of I(z_j; v_k) (Ross 2014) in place of bins.

    No ceiling: a perfect code scores 1. It sees only what is in the means, like `mig_hist20` and
    unlike `mig_exact`. The estimate of a small I is noisy, about 0.7 / sqrt(points) nats. In [0,
    1]; constants as in `mig_hist20`.

    Args:
        codes: `(N, D)`, the posterior's means.
        factors: `(N, F)`, integer labels.
        log_var: `(N, D)`, the posterior's, if known: it tells which latents are dead.

    Returns:
        mig_knn; per_factor `(F,)`; best_latent `(F,)`; best_latent_active `(F,)`;
        mutual_information `(D, F)`; entropy `(F,)`; points.
    """
    check_count("neighbours", neighbours)
    z, v = check(codes, factors)
    rows = some_rows(len(z), points, seed)
    information = neighbour_informations(z[rows], v[rows], neighbours)
    entropy = entropies(v[rows])
    per_factor = gap(information, entropy)
    best = top(information, 0).place
    return {
        "mig_knn": over_varying(per_factor, entropy),
        "per_factor": per_factor,
        "best_latent": best,
        "best_latent_active": named_active(z, log_var, best),
        "mutual_information": information,
        "entropy": entropy,
        "points": len(rows),
    }
