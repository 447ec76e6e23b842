"""The held-out set, encoded once, and what a diagnostic is."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from torch import Tensor

from jensen.core.bound import Bound, Inference
from jensen.core.gaussian import Gaussian
from jensen.core.mixture import Mixture


class Snapshot(NamedTuple):
    """What a model says of N held-out examples at one moment, on one device, in the order of the data set.

    bound: `(N,)` distortion and rate.
    posterior, z: `(N, D)`; z is a sample of the posterior.
    log_prior: `(N,)`, log p(z).
    latent_rate: `(N, D)`, KL of each latent to the prior's marginal.
    factors: `(N, F)` int64; `names`: of the F factors.
    images: `(P, *event)`, a few held-out observations, the same ones every time.
    encode: `(B, *event)` to the posterior; decode: `(B, D)` to the mean observation; draw: n to `(n, D)` samples of the prior.
    infer: observations and standard normal noise `(S B, D)` to the inference of each.
    prior: p(z), if it is a mixture; prior_factors: D mixtures of one dimension, if it is their product. Else it is N(0, I).
    """

    bound: Bound
    posterior: Gaussian
    z: Tensor
    log_prior: Tensor
    latent_rate: Tensor
    factors: Tensor
    names: tuple[str, ...]
    images: Tensor
    encode: Callable[[Tensor], Gaussian]
    decode: Callable[[Tensor], Tensor]
    draw: Callable[[int], Tensor]
    infer: Callable[[Tensor, Tensor], Inference]
    prior: Mixture | None = None
    prior_factors: tuple[Mixture, ...] | None = None


class Embedding(NamedTuple):
    """codes: `(N, D)`. labels: N rows of `columns`. thumbnails: `(N, 3, h, w)` uint8, or None."""

    codes: Tensor
    columns: tuple[str, ...]
    labels: list[list[str]]
    thumbnails: Tensor | None


Results = Mapping[str, Tensor | str | np.ndarray | Embedding]
"""What a value is says where it goes: a tensor `()` is a scalar, `(N,)` a histogram, `(3, H, W)` an image of uint8 or of
[0, 1]; a string is Markdown; an embedding is for the PROJECTOR; a numpy array is a detail, which `jensen.evaluate` keeps and
TensorBoard does not show."""

Diagnostic = Callable[[Snapshot], Results]
"""It is called on every rank with the same snapshot."""


def by_rate(snapshot: Snapshot) -> Tensor:
    """Latents `(D,)` by falling mean rate: the order of every table and picture."""
    return snapshot.latent_rate.mean(0).argsort(descending=True, stable=True)
