"""Explicitness: a linear classifier can read the factors off the code (Ridgeway & Mozer 2018)."""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from jensen.scores.constant import varying
from jensen.scores.information import entropies
from jensen.scores.inputs import Floats, Labels, check, numbered, split_rows, standardised
from jensen.scores.linear import logistic, probabilities
from jensen.scores.mig_hist import over_varying


def explicitness(
    codes: npt.ArrayLike | Tensor,
    factors: npt.ArrayLike | Tensor,
    *,
    train: int = 10_000,
    test: int = 5_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Ridgeway & Mozer 2018 (arXiv 1802.05312), section 3: the mean ROC-AUC of one value against
    the rest.

    A multinomial logistic regression (scikit-learn's defaults: L2, C = 1, 100 iterations) predicts
    each factor from the standardised means; the area under the ROC curve of each value's
    probability, on held-out points, is averaged over values, then over factors. In [0, 1]; chance
    is .5, and an area of 1 does not mean that the prediction is right: only that it ranks well.
    Values that are absent among the test points, or all there is, have no curve and are left out.
    disentanglement_lib reports the same on training and test points; some rescale chance to 0,
    which is not done here.

    Args:
        codes: `(N, D)`, the posterior's means.
        factors: `(N, F)`, integer labels.

    Returns:
        explicitness; train_explicitness; per_factor `(F,)`; train, test, the sizes used.
    """
    z, v = check(codes, factors, least=4)
    rows, held_out = split_rows(len(z), train, test, seed)
    z = z[:, varying(z[rows])]
    x = standardised(z[rows])
    x_test = standardised(z[held_out], like=z[rows])
    labels = numbered(v)
    entropy = entropies(v)
    areas = np.zeros((2, v.shape[1]))
    for k in np.flatnonzero(entropy > 0):
        y = labels[rows, k]
        y_test = labels[held_out, k]
        classes = int(labels[:, k].max()) + 1
        if len(np.unique(y)) < 2:
            areas[:, k] = 0.5
            continue
        model = logistic(x, y, strength=1.0, iterations=100)
        areas[0, k] = _area(probabilities(model, x, classes), y)
        areas[1, k] = _area(probabilities(model, x_test, classes), y_test)
    return {
        "explicitness": over_varying(areas[1], entropy),
        "train_explicitness": over_varying(areas[0], entropy),
        "per_factor": areas[1],
        "train": len(rows),
        "test": len(held_out),
    }


def _area(probability: Floats, y: Labels) -> float:
    """The mean over values of the area under the curve of one against the rest; chance where there
    is no curve at all.
    """
    from sklearn.metrics import roc_auc_score

    counts = np.bincount(y, minlength=probability.shape[1])
    curves = [
        roc_auc_score(y == c, probability[:, c])
        for c in np.flatnonzero((counts > 0) & (counts < len(y)))
    ]
    return float(np.mean(curves)) if curves else 0.5
