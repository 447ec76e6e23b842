"""InfoMEC: modularity, compactness and explicitness, all as information (Hsu et al. 2023)."""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from jensen.base.errors import check_count, check_number
from jensen.scores.activity import Active, active_latents
from jensen.scores.constant import varying
from jensen.scores.information import divide, entropies, neighbour_informations
from jensen.scores.inputs import (
    Floats,
    Labels,
    check,
    check_log_var,
    numbered,
    some_rows,
    split_rows,
    standardised,
)
from jensen.scores.linear import logistic, probabilities
from jensen.scores.mig_hist import over_varying

STRENGTH = 1e5
"""Inverse L2 penalty: light enough to reach a perfect code's certainty to within .005, enough to
have a finite optimum.
"""

ITERATIONS = 200
"""From 100 iterations on the held-out result moves by less than .002 on the golden codes."""


def infomec(
    codes: npt.ArrayLike | Tensor,
    factors: npt.ArrayLike | Tensor,
    log_var: npt.ArrayLike | Tensor | None = None,
    *,
    active: Active = None,
    points: int = 3_000,
    neighbours: int = 10,
    floor: float = 3.0,
    train: int = 3_000,
    test: int = 5_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Hsu et al. 2023 (arXiv 2305.18378, section 4). With NMI_jk = I(z_j; v_k) / H(v_k) and the
    active latents A,

        InfoM = mean_{j in A} [max_k NMI_jk / sum_k NMI_jk - 1/K] / (1 - 1/K)          one factor a
        latent InfoC = mean_k [max_{j in A} NMI_jk / sum_{j in A} NMI_jk - 1/|A|] / (1 - 1/|A|)
        one latent a factor InfoE = mean_k [H(v_k) - H(v_k|z)] / H(v_k)
              the code tells the factors

    All in [0, 1], and failing apart from each other. The mutual information is by nearest
    neighbours on the means (10, as the paper's released metric; its training code takes 3), on
    `points` rows. H(v_k|z) is the log-loss of a multinomial logistic regression on the standardised
    means.

    Where this differs from the released code:
      * 0 / 0 := 0: a factor encoded nowhere counts 0 in InfoC and a latent that tells nothing
      counts 0 in InfoM, which
        there make them NaN; so do a single factor in InfoM and a single active latent in InfoC.
      * InfoE is held out: `train` and `test` disjoint rows (of fewer points in the same
      proportion), both entropies by
        log-loss on the test rows, H(v_k) by that of the training frequencies. Test rows of a value
        that no training row holds are left out. It is at least 0: predictors that ignore the code
        are allowed (Xu et al. 2020). Released: the training points themselves, no penalty, class
        weights in the fit but not in the loss.
      * `active`: "kl" (the default with `log_var`) or "range", the released rule; see
      `activity.active_latents`. InfoE sees
        all latents.

    `infom_floored` and `infoc_floored` are variants of InfoM and InfoC, not comparable with
    published numbers (a code may have .87 of one and .63 of the other). The neighbour estimate of a
    zero is a small positive number by chance, and the ratio of such numbers scores a latent of
    noise as modular. In the variants an estimate below `floor` / sqrt(points) nats, 4 standard
    deviations of the estimate on independent data, counts as 0.

    Args:
        codes: `(N, D)`, the posterior's means.
        factors: `(N, F)`, integer labels.
        log_var: `(N, D)`, the posterior's; needed for the rule "kl".

    Returns:
        infom, infoc, infoe; infom_floored, infoc_floored; modularity `(D,)`, 0 for inactive
        latents; compactness and explicitness `(F,)`; modularity_floored and compactness_floored;
        normalised_information `(D, F)`, before the floor; active `(D,)`; entropy `(F,)`; points,
        train, test, the sizes used.
    """
    check_count("neighbours", neighbours)
    check_number("floor", floor, 0)
    z, v = check(codes, factors, least=4)
    used = active_latents(z, None if log_var is None else check_log_var(log_var, z), active)

    rows = some_rows(len(z), points, seed)
    entropy = entropies(v[rows])
    information = neighbour_informations(z[rows], v[rows], neighbours)
    told = np.where(information < floor / np.sqrt(len(rows)), 0.0, information)
    variants = [divide(nats, entropy) * used[:, None] for nats in (information, told)]
    modular, modular_floored = (excess(share, int((entropy > 0).sum()), 1) for share in variants)
    compact, compact_floored = (excess(share, int(used.sum()), 0) for share in variants)

    learned, held_out = split_rows(len(z), train, test, seed)
    explicit = _explicit(z, numbered(v), learned, held_out)
    return {
        "infom": _over_used(modular, used),
        "infoc": over_varying(compact, entropy),
        "infoe": over_varying(explicit, entropies(v)),
        "infom_floored": _over_used(modular_floored, used),
        "infoc_floored": over_varying(compact_floored, entropy),
        "modularity": modular,
        "compactness": compact,
        "explicitness": explicit,
        "modularity_floored": modular_floored,
        "compactness_floored": compact_floored,
        "normalised_information": divide(information, entropy),
        "active": used,
        "entropy": entropy,
        "points": len(rows),
        "train": len(learned),
        "test": len(held_out),
    }


def _over_used(per_latent: Floats, used: npt.NDArray[np.bool_]) -> float:
    """The mean over the latents that are used; 0 if none is."""
    return float(per_latent[used].mean()) if used.any() else 0.0


def excess(values: Floats, count: int, axis: int) -> Floats:
    """The excess of the largest share along `axis` over 1 / `count`, as a fraction of 1 - 1 /
    `count`; 0 / 0 := 0.
    """
    total = values.sum(axis)
    share = divide(values.max(axis), total)
    return np.where(total > 0, divide(share * count - 1, count - 1), 0.0).clip(0, 1)


def _explicit(
    z: Floats, labels: Labels, rows: npt.NDArray[np.int64], held_out: npt.NDArray[np.int64]
) -> Floats:
    """1 - H(v_k|z) / H(v_k) of each factor, both by held-out log-loss."""
    z = z[:, varying(z[rows])]
    x = standardised(z[rows])
    found = np.zeros(labels.shape[1])
    for k, column in enumerate(labels.T):
        frequency = np.bincount(column[rows], minlength=column.max() + 1) / len(rows)
        known = held_out[frequency[column[held_out]] > 0]
        if frequency.max() == 1 or not len(known):
            continue
        model = logistic(x, column[rows], STRENGTH, ITERATIONS)
        predicted = probabilities(model, standardised(z[known], like=z[rows]), len(frequency))
        tiny = np.finfo(float).tiny  # a sure mistake costs 708 nats, not infinity
        loss = -np.log(np.maximum(predicted[np.arange(len(known)), column[known]], tiny)).mean()
        found[k] = divide(
            np.log(frequency[column[known]]).mean() + loss, np.log(frequency[column[known]]).mean()
        )
    return found.clip(0, 1)
