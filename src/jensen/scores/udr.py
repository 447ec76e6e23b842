"""UDR: runs that disentangle agree, so runs can be ranked without factors (Duan et al. 2020)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from jensen.base.errors import InputError, check_choice, check_number
from jensen.scores.constant import constant, settled
from jensen.scores.information import divide
from jensen.scores.inputs import Floats, as_array, check_codes, some_rows, standardised


def udr(
    codes: Sequence[npt.ArrayLike | Tensor],
    mean_kls: Sequence[npt.ArrayLike | Tensor],
    *,
    similarity: str = "spearman",
    threshold: float = 0.01,
    points: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Unsupervised disentanglement ranking (Duan et al. 2020, arXiv 1905.12614, equation 3) of the
    runs of a sweep.

    R_ab is the similarity of latent a of one run and latent b of another, over the same points:
    |Spearman correlation|, or "lasso": |coefficient| of a in a Lasso fit (penalty 0.1) of b, both
    on standardised means. Latents whose mean KL does not exceed `threshold` are dropped, and
    constant ones. With the maximum r of each row or column, and the numbers of latents left d,

        UDR_ij = [sum_b r_b^2 / sum_a R_ab + sum_a r_a^2 / sum_b R_ab] / (d_i + d_j)

    A run's score is the median of UDR_ij over its partners j. In [0, 1]: correlations are, and
    Lasso coefficients of standardised codes hardly exceed 1 and are cut there. disentanglement_lib
    averages the mean over rows and the mean over columns instead, which differs where d_i != d_j. 0
    / 0 := 0, for runs without an informative latent.

    Args:
        codes: a run each, `(N, D)`, the posterior's means of the same N points in the same order; D
            may differ.
        mean_kls: a run each, `(D,)`, the mean KL of each latent from the prior, in nats.

    Returns:
        udr, the median over the runs; per_run `(M,)`, what runs are ranked by; pairs `(M, M)` =
        UDR_ij, its diagonal 0; informative, a run each `(D,)`; points.
    """
    check_choice("similarity", similarity, ("spearman", "lasso"))
    check_number("threshold", threshold, 0)
    if len(codes) < 2:
        raise InputError(
            f"udr was given {len(codes)} runs: expected at least 2, as it compares runs"
        )
    if len(codes) != len(mean_kls):
        raise InputError(
            f"udr was given the codes of {len(codes)} runs and the mean KLs of {len(mean_kls)}:"
            " expected as many"
        )
    runs = [check_codes(z, f"codes[{i}]") for i, z in enumerate(codes)]
    rates = [_check_rate(rate, i, runs[i].shape[1]) for i, rate in enumerate(mean_kls)]
    for i, z in enumerate(runs):
        if len(z) != len(runs[0]):
            raise InputError(
                f"codes[{i}] have {len(z)} rows and codes[0] {len(runs[0])}: expected the same"
                " points in every run"
            )
    if len(runs[0]) < 3:
        raise InputError(
            f"codes hold {len(runs[0])} points: expected at least 3, which a correlation needs"
        )

    rows = some_rows(len(runs[0]), points, seed)
    informative = [(rate > threshold) & ~constant(z) for rate, z in zip(rates, runs, strict=True)]
    prepared = [
        _prepare(z[rows][:, used], similarity) for z, used in zip(runs, informative, strict=True)
    ]
    pairs = np.zeros((len(runs), len(runs)))
    for i, one in enumerate(prepared):
        for j, other in enumerate(prepared):
            if i != j:
                pairs[i, j] = agreement(_similarity(one, other, similarity))
    per_run = np.array([np.median(np.delete(pairs[i], i)) for i in range(len(runs))])
    return {
        "udr": float(np.median(per_run)),
        "per_run": per_run,
        "pairs": pairs,
        "informative": informative,
        "points": len(rows),
    }


def agreement(similarity: Floats) -> float:
    """UDR_ij of a similarity matrix `(d_i, d_j)`."""
    if not similarity.size:
        return 0.0
    parts = [divide(similarity.max(axis) ** 2, similarity.sum(axis)).sum() for axis in (0, 1)]
    return float(sum(parts) / sum(similarity.shape))


def _check_rate(rate: npt.ArrayLike | Tensor, run: int, latents: int) -> Floats:
    array = as_array(f"mean_kls[{run}]", rate)
    if array.shape != (latents,) or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise InputError(
            f"mean_kls[{run}] is {array.dtype} of shape {array.shape}: "
            f"expected {latents} finite numbers, one a latent of codes[{run}]"
        )
    return array.astype(np.float64)


def _prepare(z: Floats, similarity: str) -> Floats:
    """Standardised columns; of their ranks for Spearman's correlation, which is Pearson's of the
    ranks.
    """
    from scipy.stats import rankdata

    z = settled(z)
    return (
        standardised(rankdata(z, axis=0) if similarity == "spearman" and z.size else z)
        if z.size
        else z
    )


def _similarity(one: Floats, other: Floats, similarity: str) -> Floats:
    """R `(d_i, d_j)`, in [0, 1]."""
    from sklearn.linear_model import Lasso

    if not one.size or not other.size:
        return np.zeros((one.shape[1], other.shape[1]))
    if similarity == "spearman":
        return np.abs(one.T @ other / len(one)).clip(0, 1)
    coefficients = np.atleast_2d(Lasso(alpha=0.1).fit(one, other).coef_)  # (d_j, d_i)
    return np.abs(coefficients).T.clip(0, 1)
