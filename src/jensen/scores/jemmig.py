"""JEMMIG: the mutual information gap with the joint entropy, so that modularity counts (Do & Tran
2020).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from jensen.scores.activity import named_active
from jensen.scores.constant import settled
from jensen.scores.information import (
    contingency,
    discretise,
    divide,
    entropies,
    entropy,
    informations,
    top,
)
from jensen.scores.inputs import check, numbered, some_rows
from jensen.scores.mig_hist import over_varying

BINS = 20


def jemmig(
    codes: npt.ArrayLike | Tensor,
    factors: npt.ArrayLike | Tensor,
    log_var: npt.ArrayLike | Tensor | None = None,
    *,
    points: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Do & Tran 2020 ("Theory and evaluation metrics for learning disentangled representations",
    arXiv 1908.09961).

    For each factor, with the best latent j1 and the second best j2 by mutual information,

        JEMMIG_k = H(z_{j1}, v_k) - I(z_{j1}; v_k) + I(z_{j2}; v_k)     nats, smaller is better
        1 - JEMMIG_k / (H(v_k) + log bins)                              its normalised form, in [0,
        1], larger is better

    The score is the mean of the normalised form over the factors that vary. The paper integrates
    over q(z|x); here 20-bin histograms of the means, as in the review of Carbonneau et al. 2022.
    Its zero is far from 0: a constant code scores log bins / (H(v_k) + log bins), more than a code
    that spreads over the bins and tells nothing.

    Args:
        codes: `(N, D)`, the posterior's means.
        factors: `(N, F)`, integer labels.
        log_var: `(N, D)`, the posterior's, if known: it tells which latents are dead.

    Returns:
        jemmig; per_factor `(F,)`, normalised; nats `(F,)`; best_latent `(F,)`; best_latent_active
        `(F,)`; mutual_information `(D, F)`; points.
    """
    z, v = check(codes, factors)
    rows = some_rows(len(z), points, seed)
    discrete = numbered(discretise(settled(z[rows]), BINS))
    labels = numbered(v[rows])
    information = informations(discrete, labels)
    own = entropies(labels)
    best = top(information, 0)
    joint = np.array(
        [entropy(contingency(discrete[:, j], labels[:, k])) for k, j in enumerate(best.place)]
    )
    nats = joint - best.first + best.second
    per_factor = np.where(own > 0, 1 - divide(nats, own + np.log(BINS)), 0.0)
    return {
        "jemmig": over_varying(per_factor, own),
        "per_factor": per_factor,
        "nats": nats,
        "best_latent": best.place,
        "best_latent_active": named_active(z, log_var, best.place),
        "mutual_information": information,
        "points": len(rows),
    }
