"""A snapshot of codes from elsewhere, without a model."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.bound.bound import Bound
from jensen.data.arrays import arrays as inside
from jensen.data.arrays import in_words
from jensen.data.codes import read
from jensen.diagnostics.snapshot import STANDARD_NORMAL, Snapshot
from jensen.family.codes import Codes
from jensen.family.gaussian import STANDARD, Gaussian, kl, sample
from jensen.family.unknown import Unknown


def read_codes(path: Path) -> Snapshot:
    """A snapshot without a model.

    Raises:
        InputError: no such file, not an npz without pickles, arrays that are missing or do not fit
            each other.
    """
    arrays = read(path)
    for name in ("codes", "factors"):
        if name not in arrays:
            raise InputError(
                f"{path} holds {in_words(inside(path))}: expected arrays codes (N, D) and factors"
                " (N, F)"
            )
    codes = arrays["codes"]
    factors = arrays["factors"]
    log_var = arrays.get("log_var")
    if (
        codes.ndim != 2
        or factors.ndim != 2
        or len(codes) != len(factors)
        or (log_var is not None and log_var.shape != codes.shape)
    ):
        noise = "none" if log_var is None else log_var.shape
        shapes = f"codes {codes.shape}, factors {factors.shape}, log_var {noise}"
        raise InputError(
            f"{path} has {shapes}: expected (N, D), (N, F) and (N, D) with one N; write arrays"
            " that belong together"
        )
    if (
        not codes.size
        or not np.issubdtype(codes.dtype, np.floating)
        or not np.isfinite(codes).all()
    ):
        raise InputError(
            f"{path} has codes of {codes.dtype} {codes.shape} that are empty, NaN or infinite, or"
            " no floats: expected finite floating-point numbers; encode again"
        )
    if not np.issubdtype(factors.dtype, np.integer):
        raise InputError(
            f"{path} has factors of {factors.dtype}: expected integer labels; number the values of"
            " each factor"
        )
    names = arrays.get("names", np.arange(factors.shape[1]))
    if (factors < 0).any() or names.shape != factors.shape[1:]:
        raise InputError(
            f"{path} has factors from {factors.min(initial=0)} and names of shape {names.shape}:"
            " expected labels of at least 0"
            f" and ({factors.shape[1]},), a name for each factor; number the values of each factor"
        )
    posterior = _posterior(path, codes, log_var)
    prior = _prior(path, arrays.get("prior"))
    rate = (
        kl(posterior, prior)
        if isinstance(prior, Gaussian) and isinstance(posterior, Gaussian)
        else torch.full_like(posterior.mean, math.nan)
    )
    nothing = torch.full((len(codes),), math.nan)
    return Snapshot(
        bound=Bound(nothing, nothing),
        posterior=posterior,
        z=_drawn(posterior),
        log_prior=nothing,
        latent_rate=rate,
        factors=torch.from_numpy(factors).long(),
        names=tuple(map(str, names)),
        images=torch.empty(0, 0),
        encode=_no_model,
        decode=_no_model,
        draw=_no_model,
        infer=_no_model,
        prior=prior,
    )


def _posterior(path: Path, codes: np.ndarray, log_var: np.ndarray | None) -> Gaussian | Codes:
    """Gaussians, or where the file has no log_var, or NaN alone in its place, the codes alone.

    Raises:
        InputError: some log-variances are not finite numbers.
    """
    mean = torch.from_numpy(codes).double()
    if log_var is None or (np.issubdtype(log_var.dtype, np.floating) and np.isnan(log_var).all()):
        return Codes(mean)
    if not np.issubdtype(log_var.dtype, np.number) or not np.isfinite(log_var).all():
        raise InputError(
            f"{path} has a log_var of {log_var.dtype} that holds NaN or infinite values, or no"
            " numbers: expected finite log-variances; encode again, or leave log_var out"
        )
    return Gaussian(mean, torch.from_numpy(log_var).double())


def _prior(path: Path, said: np.ndarray | None) -> Gaussian | Unknown:
    """N(0, I) where the file of codes says that they were made under it.

    Raises:
        InputError: what the file says is no word.
    """
    absent = f"expected {STANDARD_NORMAL} for rates, dimension_wise_kl and marginal_kl, which are left out"
    if said is None:
        return Unknown(
            f"{path} does not say which prior its codes were made under: {absent}; encode again"
            f" with jensen.encode, or add prior={STANDARD_NORMAL!r} to the file if it was N(0, I)"
        )
    if said.shape != () or said.dtype.kind != "U":
        raise InputError(
            f"{path} has a prior of {said.dtype} {said.shape}: expected a word; write"
            f" prior={STANDARD_NORMAL!r} if it was N(0, I), or leave it out"
        )
    word = str(said)[:40]
    if word == STANDARD_NORMAL:
        return STANDARD
    return Unknown(
        f"{path} says that its codes were made under the prior {word!r}: {absent}; evaluate"
        " run=FOLDER, which has it"
    )


def _drawn(posterior: Gaussian | Codes) -> Tensor:
    """A sample of the posterior `(N, D)`, always the same; its means, where they have no
    variance.
    """
    if isinstance(posterior, Codes):
        return posterior.mean
    generator = torch.Generator().manual_seed(0)
    return sample(
        posterior, torch.randn(posterior.mean.shape, generator=generator, dtype=torch.float64)
    )


def _no_model(*_: object) -> Any:
    raise InputError(
        "codes=... names codes without a model, which this diagnostic needs: expected run=..."
        " instead"
    )
