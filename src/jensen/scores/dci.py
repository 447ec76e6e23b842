"""DCI: disentanglement, completeness, informativeness, by gradient-boosted trees (Eastwood &
Williams 2018).
"""

from typing import Any

import numpy.typing as npt
from torch import Tensor

from jensen.scores.importances import dci_by


def dci(
    codes: npt.ArrayLike | Tensor,
    factors: npt.ArrayLike | Tensor,
    *,
    train: int = 10_000,
    test: int = 5_000,
    seed: int = 0,
    jobs: int | None = None,
) -> dict[str, Any]:
    """Eastwood & Williams 2018 ("A framework for the quantitative evaluation of disentangled
    representations").

    R_jk >= 0 is the importance of latent j to a predictor of factor k. With entropies H_K in base K
    (factors) and H_D in base D (latents),

        D_j = 1 - H_K(R_j. / sum_k R_jk),   disentanglement = sum_j (sum_k R_jk / sum R) D_j
        C_k = 1 - H_D(R_.k / sum_j R_jk),   completeness    = sum_k (sum_j R_jk / sum R) C_k
        informativeness = mean_k accuracy on held-out points

    The variant of disentanglement_lib: scikit-learn's GradientBoostingClassifier with its defaults
    (100 stages of a tree of depth 3 for each class) on the means, a class a factor value, impurity
    importances, 10,000 training and 5,000 test points (of fewer, two thirds and one third). The
    predictor decides the number: the paper has Lasso and random forests, on which a perfect code
    scores D = .61 (here 1.00). Informativeness is an accuracy, as in all libraries, not the paper's
    error. All in [0, 1]. Factors of one value are left out; one factor alone gives disentanglement
    0, one latent alone completeness 0, as there is nothing to be told apart. Constant latents have
    importance 0, but D counts them: one more raises completeness, by the base of its logarithm
    alone.

    The time is about train x classes x 0.3 ms of one core: six minutes for dSprites' 113 classes at
    full size.

    Args:
        codes: `(N, D)`, the posterior's means.
        factors: `(N, F)`, integer labels.
        jobs: processes to use, at most one a factor; by default all cores where it pays. The result
            is the same.

    Returns:
        dci, which is the disentanglement; disentanglement, completeness, informativeness;
        per_latent `(D,)` = D_j; per_factor `(F,)` = C_k; accuracy `(F,)`; importances `(D, F)` = R,
        its columns sum to 1; train, test, the sizes used.
    """
    return dci_by("dci", _boosted, codes, factors, train=train, test=test, seed=seed, jobs=jobs)


def _boosted(seed: int) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(random_state=seed)
