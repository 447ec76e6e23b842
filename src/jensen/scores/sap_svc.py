"""SAP with a linear classifier: the libraries' variant (Kumar et al. 2018; Locatello et al.
2019).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from jensen.scores.information import entropies
from jensen.scores.inputs import Floats, Labels, check, numbered, split_rows
from jensen.scores.linear import quiet
from jensen.scores.sap import attribute_gap


def sap_svc(
    codes: npt.ArrayLike | Tensor,
    factors: npt.ArrayLike | Tensor,
    log_var: npt.ArrayLike | Tensor | None = None,
    *,
    train: int = 10_000,
    test: int = 5_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Separated attribute predictability (Kumar, Sattigeri & Balakrishnan 2018, arXiv 1711.00848,
    section 3).

    S_jk is the held-out accuracy of a linear classifier of factor k on latent j alone; the score is
    the mean over k of the largest less the second largest S_jk over j. In [0, 1]; a lone latent has
    no runner-up, which counts 0.

    The variant of disentanglement_lib: LinearSVC(C=0.01, class_weight="balanced") on the raw means
    for all factors, 10,000 training and 5,000 test points (of fewer, two thirds and one third). One
    against the rest, a line cannot set apart 32 ordered classes: a perfect code of dSprites'
    factors scores .18. Others bin the latents first. See `sap_r2`. Its penalty acts on the raw
    scale, so it is not invariant to rescaling a latent. A constant latent predicts at chance, so it
    is the runner-up where all others predict worse.

    Args:
        codes: `(N, D)`, the posterior's means.
        factors: `(N, F)`, integer labels.
        log_var: `(N, D)`, the posterior's, if known: it tells which latents are dead.

    Returns:
        sap_svc; per_factor `(F,)`; best_latent `(F,)`; best_latent_active `(F,)`;
        predictability `(D, F)`, the accuracies; train, test, the sizes used.
    """
    z, v = check(codes, factors, least=4)
    rows, held_out = split_rows(len(z), train, test, seed)
    labels = numbered(v)
    entropy = entropies(v)
    accuracy = np.zeros((z.shape[1], v.shape[1]))
    for k in np.flatnonzero(entropy > 0):
        for j in range(z.shape[1]):
            accuracy[j, k] = _accuracy(
                z[rows, j], labels[rows, k], z[held_out, j], labels[held_out, k], seed
            )
    return attribute_gap("sap_svc", accuracy, entropy, z, log_var) | {
        "train": len(rows),
        "test": len(held_out),
    }


def _accuracy(x: Floats, y: Labels, x_test: Floats, y_test: Labels, seed: int) -> float:
    from sklearn.svm import LinearSVC

    if len(np.unique(y)) < 2:
        return float((y_test == y[0]).mean())
    with quiet():
        model = LinearSVC(C=0.01, class_weight="balanced", dual="auto", random_state=seed).fit(
            x[:, None], y
        )
        return float(model.score(x_test[:, None], y_test))
