"""The FactorVAE score: which latent varies least when a factor is fixed (Kim & Mnih 2018)."""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from jensen.base.errors import check_count, check_number, check_seed
from jensen.scores.constant import constant
from jensen.scores.inputs import Floats, check
from jensen.scores.interventions import Groups, draw_groups, draw_rows, groups

BLOCK = 500
"""Votes drawn at once: 64 points of 10 latents each are 2.6 MB."""


def factor_vae(
    codes: npt.ArrayLike | Tensor,
    factors: npt.ArrayLike | Tensor,
    *,
    threshold: float = 0.05,
    train: int = 10_000,
    test: int = 5_000,
    batch: int = 64,
    seed: int = 0,
) -> dict[str, Any]:
    """Kim & Mnih 2018 (arXiv 1802.05983, section 4): accuracy of a majority vote from latents to
    factors.

    A vote: draw a factor k and one of its values, then `batch` points that hold it; the latent
    whose variance among them, divided by its variance over all points, is smallest votes for k.
    `train` votes make the classifier, `test` votes its accuracy. In [0, 1]; chance is 1 / (number
    of factors that vary).

    Latents whose standard deviation over all points is below `threshold` are pruned. 0.05 is what
    disentanglement_lib's configurations set; its function's default, and disent, is 0.0, with which
    unused latents act as one more class: a code that lacks a factor scores .97 instead of .79. A
    constant latent is pruned at any threshold: 0 / 0 would win every vote. The published variance
    is over 10,000 points, here over all that are given. Of equal latents or counts the first wins.
    With no latent left, or no factor that varies, the score is 0. See `interventions` for how
    points that hold a value are drawn.

    Args:
        codes: `(N, D)`, the posterior's means.
        factors: `(N, F)`, integer labels.

    Returns:
        factor_vae; train_accuracy; votes `(D, F)`, the training votes; per_factor `(F,)`, the test
        accuracy of each factor's votes; active `(D,)`, the latents that were not pruned; std
        `(D,)`; chance; train, test, batch.
    """
    check_number("threshold", threshold, 0)
    check_seed("seed", seed)
    for name, value in (("train", train), ("test", test)):
        check_count(name, value)
    check_count("batch", batch, 2)
    z, v = check(codes, factors)
    std = np.where(constant(z), 0.0, z.std(0, ddof=1))
    z = z - z.mean(0)
    active = (std > 0) & (std >= threshold)
    found = groups(v)
    counts = [np.zeros((z.shape[1], v.shape[1])) for _ in range(2)]
    if active.any() and len(found.factors):
        rng = np.random.default_rng(seed)
        scaled = z[:, active] / std[active]
        for votes, table in zip((train, test), counts, strict=True):
            for start in range(0, votes, BLOCK):
                latent, factor = _votes(rng, scaled, found, min(BLOCK, votes - start), batch)
                np.add.at(table, (np.flatnonzero(active)[latent], found.factors[factor]), 1)
    learned, tested = counts
    right = np.zeros_like(tested)
    vote = learned.argmax(1), np.arange(z.shape[1])
    right[vote[1], vote[0]] = tested[vote[1], vote[0]]
    return {
        "factor_vae": float(right.sum() / test),
        "train_accuracy": float(learned.max(1).sum() / train),
        "votes": learned,
        "per_factor": right.sum(0) / np.maximum(tested.sum(0), 1),
        "active": active,
        "std": std,
        "chance": 1 / max(len(found.factors), 1),
        "train": train,
        "test": test,
        "batch": batch,
    }


def _votes(
    rng: np.random.Generator, scaled: Floats, found: Groups, votes: int, batch: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The latent (among those in `scaled`) and the factor of each vote."""
    factor = rng.integers(len(found.factors), size=votes)
    points = scaled[draw_rows(rng, found, draw_groups(rng, found, factor), batch)]
    return points.var(1, ddof=1).argmin(1), factor
