"""Importance matrices by trees, and what DCI reads from them (Eastwood & Williams 2018)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from tqdm import tqdm

from jensen.base.errors import check_count
from jensen.base.waiting import each, runs
from jensen.scores.constant import varying as varying_latents
from jensen.scores.information import divide, entropies
from jensen.scores.inputs import Floats, check, numbered, split_rows, standardised
from jensen.scores.linear import quiet

Model = Callable[[int], Any]
"""A scikit-learn classifier with `feature_importances_`, for a seed."""

LONG = 20_000
"""Classes times training points from which other processes are worth starting (a second or two)."""


def concentration(weights: Floats) -> Floats:
    """1 - entropy of each row in base (number of columns), `(A, B)` to `(A,)`; 0 for a row of
    zeros, or one column.

    1 if one column holds all the weight, 0 if all hold the same.
    """
    columns = weights.shape[1]
    share = divide(weights, weights.sum(1, keepdims=True))
    nats = -(share * np.log(np.where(share > 0, share, 1.0))).sum(1)
    return np.where(weights.sum(1) > 0, divide(np.log(columns) - nats, np.log(columns)), 0.0).clip(
        0, 1
    )


def disentanglement(importances: Floats) -> tuple[float, Floats]:
    """D of an importance matrix `(D, K)` and D_j of each latent `(D,)`; latents weigh by their
    share of all importance.
    """
    per_latent = concentration(importances)
    return float(divide(importances.sum(1) @ per_latent, importances.sum())), per_latent


def completeness(importances: Floats) -> tuple[float, Floats]:
    """C of an importance matrix `(D, K)` and C_k of each factor `(K,)`: `disentanglement` of the
    transpose.
    """
    return disentanglement(importances.T)


def dci_by(
    name: str,
    model: Model,
    codes: npt.ArrayLike | Tensor,
    factors: npt.ArrayLike | Tensor,
    *,
    train: int,
    test: int,
    seed: int,
    jobs: int | None,
) -> dict[str, Any]:
    """The DCI scores with `model`, one fit a factor: see `dci`, whose dictionary this returns, with
    `name` as its first key.

    `jobs` processes; None takes one where the work is small, else as many as there are cores. The
    result does not depend on it. A progress bar appears when it takes more than a few seconds.
    """
    from joblib import Parallel, cpu_count, delayed

    if jobs is not None:
        check_count("jobs", jobs)
    z, v = check(codes, factors, least=4)
    rows, held_out = split_rows(len(z), train, test, seed)
    labels = numbered(v)
    latents = varying_latents(z[rows])
    learned = z[rows][:, latents]
    x = standardised(learned)  # trees compute in float32: spend it on the data
    x_test = standardised(z[held_out][:, latents], like=learned)
    varying = np.flatnonzero(entropies(v) > 0)
    classes = {int(k): len(np.unique(labels[rows, k])) for k in varying}
    several = [
        k for k, count in sorted(classes.items(), key=lambda item: -item[1]) if count > 1
    ]  # no long one starts last
    total = sum(classes[k] for k in several)
    if jobs is None:  # of all runs that share a thread the same, and so the same processes
        most = min(cpu_count(), max(len(several), 1) * runs())
        jobs = most if total * len(rows) > LONG else 1

    importances = np.zeros((z.shape[1], v.shape[1]))
    accuracy = np.zeros(v.shape[1])
    for k in set(classes) - set(
        several
    ):  # one value among the training points: scikit-learn would refuse
        accuracy[k] = (labels[held_out, k] == labels[rows[0], k]).mean()
    # The other processes get scikit-learn's own method, so that they need not import torch.
    fits = Parallel(jobs, return_as="generator")(
        delayed(model(seed).fit if jobs > 1 else quiet()(model(seed).fit))(x, labels[rows, k])
        for k in several
    )
    found = each(fits) if jobs > 1 else fits
    shown = {"desc": name, "unit": " classes", "delay": 5, "leave": False, "disable": runs() > 1}
    with tqdm(total=total, **shown) as bar:
        for k, fitted in zip(several, found, strict=True):
            importances[latents, k] = fitted.feature_importances_
            accuracy[k] = quiet()(fitted.score)(x_test, labels[held_out, k])
            bar.update(classes[k])

    importances = np.maximum(importances, 0)  # rounding in the trees leaves some at -1e-17
    score, per_latent = (
        disentanglement(importances[:, varying]) if len(varying) else (0.0, np.zeros(z.shape[1]))
    )
    complete, per_factor = (
        completeness(importances[:, varying]) if len(varying) else (0.0, np.zeros(0))
    )
    spread = np.zeros(v.shape[1])
    spread[varying] = per_factor
    return {
        name: score,
        "disentanglement": score,
        "completeness": complete,
        "informativeness": float(accuracy[varying].mean()) if len(varying) else 0.0,
        "per_latent": per_latent,
        "per_factor": spread,
        "accuracy": accuracy,
        "importances": importances,
        "train": len(rows),
        "test": len(held_out),
    }
