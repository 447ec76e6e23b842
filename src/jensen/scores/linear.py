"""The linear classifiers of several scores: scikit-learn's, told not to warn."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from jensen.scores.inputs import Floats, Labels

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression


@contextmanager
def quiet() -> Iterator[None]:
    """Scikit-learn without two warnings that are no news here.

    A solver that stops at its last allowed iteration: the variants fix that number. Many classes
    for few points: factors have as many values as they have.
    """
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        yield


def logistic(x: Floats, y: Labels, strength: float, iterations: int) -> "LogisticRegression":
    """Multinomial logistic regression of `y` `(N,)` on `x` `(N, D)`, with the L2 penalty |w|^2 / (2
    `strength`).

    On one thread: the matrices are a few columns wide, so that more threads only wait for each
    other (four times as long, measured), and the result does not depend on how many there are.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with quiet(), threadpool_limits(1):
        return LogisticRegression(C=strength, max_iter=iterations).fit(x, y)


def probabilities(model: "LogisticRegression", x: Floats, classes: int) -> Floats:
    """The model's p(y|x) for all `classes`, `(N, classes)`; 0 for those that it was not trained
    on.
    """
    found = np.zeros((len(x), classes))
    found[:, model.classes_] = model.predict_proba(x)
    return found
