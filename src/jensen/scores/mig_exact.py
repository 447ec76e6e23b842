"""The mutual information gap of the posterior itself: no bins, no means (Chen et al. 2018)."""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from tqdm import tqdm

from jensen.base.errors import check_count, check_seed
from jensen.scores.constant import constant
from jensen.scores.information import divide, entropies, top
from jensen.scores.inputs import Floats, Labels, check, check_log_var, numbered
from jensen.scores.mig_hist import gap, over_varying

BLOCK = 1 << 15
"""Densities held at once by a thread: 256 KB, which stay in its cache (or one sample's, of more
than 32,768 points).
"""

FAR = 700.0
"""exp(-700) = 1e-304 stands for all that is smaller: it adds nothing, and subnormal numbers are
slow.
"""


def mig_exact(
    codes: npt.ArrayLike | Tensor,
    factors: npt.ArrayLike | Tensor,
    log_var: npt.ArrayLike | Tensor,
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Mutual information gap (Chen et al. 2018, arXiv 1802.04942, equation 6 and appendix B), exact
    in q(z|x).

        I(z_j; v_k) = E [log q(z_j | v_k) - log q(z_j)],   z ~ q(z|x),
        q(z_j) the mean of q(z_j|x) over all N points, q(z_j|v_k) over the points that share x's
        value of v_k, mean_k [I(z_{j1}; v_k) - I(z_{j2}; v_k)] / H(v_k),   j1, j2 the two latents
        that tell most of factor k

    `samples` draws of z estimate the expectation, the same ones for every latent and factor, from
    rows that are used equally often; the densities sum over all N points. Negative estimates of I
    count as 0, as in the authors' code. In [0, 1]. Its standard error is returned beside it: of the
    mean over draws, for the latents j1 and j2 that were found.

    The authors draw 10,000 z for each entropy, take H(v_k) as log of the number of values (here the
    entropy of the values given, the same on a grid), and leave dSprites' shape out: pass the
    columns that you want counted. `mig_hist20` is another number, and so is this formula on the
    means.

    In blocks, so memory stays flat: `samples` x N x D x (1 + sum_k 1 / values of v_k) exponentials,
    some seconds for 10,000 samples of 10,000 points, a minute for 1,000 samples of all dSprites.

    Args:
        codes: `(N, D)`, the posterior's means.
        factors: `(N, F)`, integer labels.
        log_var: `(N, D)`, the posterior's.

    Returns:
        mig_exact; standard_error; samples; per_factor `(F,)`; per_factor_standard_error `(F,)`;
        best_latent `(F,)`; mutual_information `(D, F)`, not clamped;
        mutual_information_standard_error `(D, F)`; entropy `(F,)`.
    """
    from joblib import Parallel, cpu_count, delayed

    check_count("samples", samples, 2)
    check_seed("seed", seed)
    z, v = check(codes, factors)
    checked = check_log_var(log_var, z)
    spread = np.exp(0.5 * checked)
    told_of = np.flatnonzero(
        ~(constant(z) & constant(checked))
    )  # a posterior that is the same for all tells nothing
    labels = numbered(v)
    entropy = entropies(v)

    rng = np.random.default_rng(seed)
    rows = np.resize(rng.permutation(len(z)), samples)
    noise = np.zeros((samples, z.shape[1]))
    noise[:, told_of] = rng.standard_normal(
        (samples, len(told_of))
    )  # so that such latents move no other's draws
    told = np.zeros((samples, z.shape[1], v.shape[1]))  # log q(z_j | v_k) - log q(z_j) of each draw

    def fill(j: int) -> None:
        drawn = z[rows, j] + spread[rows, j] * noise[:, j]
        mean = np.ascontiguousarray(z[:, j])
        deviation = np.ascontiguousarray(spread[:, j])
        marginal = log_mixture(drawn, mean, deviation)
        for k in np.flatnonzero(entropy > 0):
            told[:, j, k] = (
                _log_conditional(drawn, labels[rows, k], mean, deviation, labels[:, k]) - marginal
            )

    # A thread a latent: numpy lets go of the interpreter, and each writes its own slice, so the
    # order does not matter.
    latents = Parallel(cpu_count(), "threading", return_as="generator")(
        delayed(fill)(j) for j in told_of
    )
    for _ in tqdm(
        latents, total=len(told_of), desc="mig_exact", unit=" latents", delay=5, leave=False
    ):
        pass

    information = told.mean(0)
    error = told.std(0, ddof=1) / np.sqrt(samples)
    clamped = np.minimum(information.clip(0), entropy)
    best = top(clamped, 0)
    second = _second(clamped, best.place)
    columns = np.arange(v.shape[1])
    gaps = divide(
        told[:, best.place, columns] - (told[:, second, columns] if z.shape[1] > 1 else 0.0),
        np.broadcast_to(entropy, (samples, v.shape[1])),
    )
    varying = entropy > 0
    whole = gaps[:, varying].mean(1) if varying.any() else np.zeros(samples)
    per_factor = gap(clamped, entropy)
    return {
        "mig_exact": over_varying(per_factor, entropy),
        "standard_error": float(whole.std(ddof=1) / np.sqrt(samples)),
        "samples": samples,
        "per_factor": per_factor,
        "per_factor_standard_error": gaps.std(0, ddof=1) / np.sqrt(samples),
        "best_latent": best.place,
        "mutual_information": information,
        "mutual_information_standard_error": error,
        "entropy": entropy,
    }


def log_mixture(x: Floats, mean: Floats, spread: Floats) -> Floats:
    """log (1/N) sum_n N(x; mean_n, spread_n^2) of each x `(S,)`, for N components; less the
    constant -log sqrt(2 pi).

    The logarithm of a plain sum: where x was drawn from one of the components, that one alone keeps
    the sum from 0. The difference x - mean is taken first, so nothing cancels.
    """
    precision = 0.5**0.5 / spread
    weight = 1 / (spread * len(mean))
    step = max(BLOCK // len(mean), 1)
    sums = np.empty(len(x))
    for start in range(0, len(x), step):
        block = np.subtract.outer(x[start : start + step], mean)
        block *= precision
        np.square(block, out=block)
        np.minimum(block, FAR, out=block)
        np.negative(block, out=block)
        np.exp(block, out=block)
        np.einsum(
            "sn,n->s", block, weight, out=sums[start : start + step]
        )  # not by BLAS, whose threads would fight ours
    return np.log(sums)


def _log_conditional(
    x: Floats, value: Labels, mean: Floats, spread: Floats, labels: Labels
) -> Floats:
    """`log_mixture` of each x over the components that share its `value`, `(S,)`."""
    found = np.empty(len(x))
    for c in np.unique(value):
        of_draws = value == c
        of_points = labels == c
        found[of_draws] = log_mixture(x[of_draws], mean[of_points], spread[of_points])
    return found


def _second(values: Floats, first: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Row of the largest entry of each column, apart from `first`."""
    others = values.copy()
    others[first, np.arange(values.shape[1])] = -1
    return others.argmax(0)
