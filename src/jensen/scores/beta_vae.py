"""The BetaVAE score: tell from pairs that share a factor's value which factor it is (Higgins et al.
2017).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from jensen.base.errors import check_count, check_seed
from jensen.scores.constant import varying
from jensen.scores.inputs import Floats, Labels, check
from jensen.scores.interventions import Groups, draw_groups, draw_rows, groups
from jensen.scores.linear import logistic

BLOCK = 500


def beta_vae(
    codes: npt.ArrayLike | Tensor,
    factors: npt.ArrayLike | Tensor,
    *,
    train: int = 10_000,
    test: int = 5_000,
    batch: int = 64,
    seed: int = 0,
) -> dict[str, Any]:
    """Higgins et al. 2017 ("beta-VAE", appendix A.4): accuracy of a linear classifier of the shared
    factor.

    A feature: draw a factor k; `batch` times, draw one of its values and two points that hold it,
    and take |z - z'|; average. A logistic regression predicts k from `train` features; the score is
    its accuracy on `test` others. In [0, 1]; chance is 1 / (number of factors that vary).

    As in disentanglement_lib: means, 64 pairs, scikit-learn's LogisticRegression with its defaults
    (L2, C = 1, on the raw scale; here run up to 1,000 iterations). The paper trains by Adagrad from
    many seeds and keeps the better half. It hardly tells codes apart: a random rotation of perfect
    factors scores .98, a code that lacks a factor 1.00. With one factor the score is 1, with none
    0. See `interventions` for how points that hold a value are drawn.

    Args:
        codes: `(N, D)`, the posterior's means.
        factors: `(N, F)`, integer labels.

    Returns:
        beta_vae; train_accuracy; per_factor `(F,)`, the test accuracy on each factor's features;
        chance; train, test, batch.
    """
    check_seed("seed", seed)
    for name, value in (("train", train), ("test", test), ("batch", batch)):
        check_count(name, value)
    z, v = check(codes, factors)
    z = z[:, varying(z)]
    found = groups(v)
    rng = np.random.default_rng(seed)
    accuracy = [0.0, 0.0]
    per_factor = np.zeros(v.shape[1])
    if len(found.factors):
        (x, y), (x_test, y_test) = (
            _features(rng, z, found, count, batch) for count in (train, test)
        )
        if len(np.unique(y)) > 1:
            model = logistic(x, y, strength=1.0, iterations=1000)
            guess = model.predict(x)
            guess_test = model.predict(x_test)
        else:
            guess = np.full(train, y[0])
            guess_test = np.full(test, y[0])
        accuracy = [float((guess == y).mean()), float((guess_test == y_test).mean())]
        hits = np.bincount(y_test, guess_test == y_test, len(found.factors))
        per_factor[found.factors] = hits / np.maximum(
            np.bincount(y_test, minlength=len(found.factors)), 1
        )
    return {
        "beta_vae": accuracy[1],
        "train_accuracy": accuracy[0],
        "per_factor": per_factor,
        "chance": 1 / max(len(found.factors), 1),
        "train": train,
        "test": test,
        "batch": batch,
    }


def _features(
    rng: np.random.Generator, z: Floats, found: Groups, count: int, batch: int
) -> tuple[Floats, Labels]:
    """Features `(count, D)` and the factor, as a position in `found.factors`, of each."""
    factor = rng.integers(len(found.factors), size=count)
    features = []
    for block in np.split(factor, range(BLOCK, count, BLOCK)):
        group = draw_groups(rng, found, np.repeat(block[:, None], batch, 1))
        pair = z[draw_rows(rng, found, group, 2)]
        features.append(np.abs(pair[:, :, 0] - pair[:, :, 1]).mean(1))
    return np.concatenate(features), factor
