"""The held-out set, encoded once, and what a diagnostic is."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.bound.bound import Bound, Inference
from jensen.family.codes import Codes
from jensen.family.family import Family, Posterior, giver, is_standard, noun, remedy
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian


class Snapshot(NamedTuple):
    """A model's word on N held-out examples at one moment, on one device, in the order of the data
    set.

    bound: `(N,)` distortion and rate.
    posterior, z: `(N, D)`; z is a sample of the posterior, which may be of any family
        (`family.family.diagonal`, `marginals`).
    log_prior: `(N,)`, log p(z).
    latent_rate: `(N, D)`, KL of each latent to the prior's marginal; NaN where that is unknown.
    factors: `(N, F)` int64; `names`: of the F factors.
    images: `(P, *event)`, a few held-out observations, the same ones every time.
    encode: `(B, *event)` to the posterior; decode: `(B, D)` to the mean observation; draw: n to
        `(n, D)` samples of the prior.
    infer: observations and standard normal noise `(S B, D)` to the inference of each.
    prior: p(z), always a distribution: N(0, I) only where it is that, `Unknown` where nobody says.
    beliefs: the model, where that keeps beliefs of its parameters: a `jensen.BayesianGMM`.
    senses: the model, where that takes several modalities: a `jensen.model.MultimodalVAE`.
    observe: `(B, D)`, a temperature, a top_k and a top_p to observations drawn given each code;
        None where nothing draws them.
    alike: where `decode` gives a draw of each code, as of an autoregressive decoder: the same by the
        chances of one draw, so that they differ in what the codes change alone (`decoded_alike`).
    """

    bound: Bound
    posterior: Posterior
    z: Tensor
    log_prior: Tensor
    latent_rate: Tensor
    factors: Tensor
    names: tuple[str, ...]
    images: Tensor
    encode: Callable[[Tensor], Posterior]
    decode: Callable[[Tensor], Tensor]
    draw: Callable[[int], Tensor]
    infer: Callable[[Tensor, Tensor], Inference]
    prior: Family
    beliefs: Any = None
    senses: Any = None
    observe: Callable[[Tensor, float, int | None, float | None], Tensor] | None = None
    alike: Callable[[Tensor], Tensor] | None = None


def decoded_alike(snapshot: Snapshot, z: Tensor) -> Tensor:
    """Observations of codes that are to be compared, `(B, D)` to `(B, *event)`."""
    return (snapshot.alike or snapshot.decode)(z)


STANDARD_NORMAL = "standard_normal"
"""The kind of the prior N(0, I)."""


def kind(prior: Family) -> str:
    """The word for a prior that a file of codes holds: "standard_normal" for N(0, I) alone."""
    return STANDARD_NORMAL if is_standard(prior) else type(prior).__name__.lower()


class Embedding(NamedTuple):
    """codes: `(N, D)`. labels: N rows of `columns`. thumbnails: `(N, 3, h, w)` uint8, or None."""

    codes: Tensor
    columns: tuple[str, ...]
    labels: list[list[str]]
    thumbnails: Tensor | None


class Film(NamedTuple):
    """frames: `(T, 3, H, W)` uint8, shown over and over. seconds: how long each is seen."""

    frames: Tensor
    seconds: float


Results = Mapping[str, Tensor | str | np.ndarray | Embedding | Film]
"""Results by name, whose shape says where they go: a tensor `()` is a scalar, `(N,)` a histogram,
`(3, H, W)` an image of uint8 or of [0, 1]; a string is Markdown; an embedding is for the PROJECTOR;
a film is an animated image; a numpy array is a detail, which `jensen.evaluate` keeps and TensorBoard
does not show."""

Diagnostic = Callable[[Snapshot], Results]
"""It is called on every rank with the same snapshot."""


D = TypeVar("D", bound=Callable[..., Any])


def takes(
    *families: type, where: Callable[[Mapping[str, Any]], bool] | None = None
) -> Callable[[D], D]:
    """Mark a diagnostic that holds for posteriors of these families alone, so that others are
    refused before training; if it depends on its options, `where` they say so.
    """

    def chosen(options: Mapping[str, Any]) -> tuple[type, ...]:
        return families if where is not None and where(options) else ()

    def mark(diagnostic: D) -> D:
        cast(Any, diagnostic).families = families if where is None else chosen
        return diagnostic

    return mark


def needs_density(diagnostic: D) -> D:
    """Mark a diagnostic that holds for posteriors of any family, but not for `Codes` alone."""
    cast(Any, diagnostic).needs_density = True
    return diagnostic


def check_families(diagnostics: Mapping[str, Diagnostic], posterior: type) -> None:
    """Refuse diagnostics, by name, that do not hold for the model's posteriors: all of them at once."""
    refused = {
        name: families
        for name, diagnostic in diagnostics.items()
        if (families := _families(diagnostic, posterior)) and not issubclass(posterior, families)
    }
    if not refused:
        return
    taken = [
        each for each in (Gaussian, FullGaussian) if all(each in own for own in refused.values())
    ]
    those = "that diagnostic" if len(refused) == 1 else "those diagnostics"
    raise InputError(
        f"diagnostics holds {', '.join(refused)}, and {giver(posterior)} gives"
        f" {noun(posterior)}: expected a {' or a '.join(family.__name__ for family in taken)};"
        f" leave {those} out, or {remedy(posterior)}"
    )


def _families(diagnostic: Diagnostic, posterior: type) -> tuple[type, ...]:
    """The families of posteriors that it holds for; of any, such as this one, nothing."""
    bare: Any = diagnostic
    options: dict[str, Any] = {}
    while isinstance(bare, partial):
        options = bare.keywords | options
        bare = bare.func
    if getattr(bare, "needs_density", False) and issubclass(posterior, Codes):
        return (Gaussian, FullGaussian)
    families = getattr(bare, "families", ())
    return tuple(families(options) if callable(families) else families)


def told(snapshot: Snapshot) -> Tensor:
    """Nats that each latent may tell of x, `(D,)`: its mean rate, or where that is unknown the
    least of any Gaussian prior.

    E KL(q(z_d|x) || p) is least for the p with the moments of q(z_d), and even then at least I(x;
    z_d).
    """
    rate = snapshot.latent_rate.mean(0).double()
    if not rate.isnan().any() or not isinstance(snapshot.posterior, Gaussian | FullGaussian):
        return rate
    mean, log_var = (part.double() for part in snapshot.posterior.marginals())
    spread = mean.var(0, correction=0) + log_var.exp().mean(0)
    return torch.where(rate.isnan(), 0.5 * (spread.log() - log_var.mean(0)), rate)


def by_rate(snapshot: Snapshot) -> Tensor:
    """Latents `(D,)` by falling mean rate, by the variance of their codes where it is unknown: the
    order of every picture.
    """
    rate = snapshot.latent_rate.mean(0)
    size = torch.where(rate.isnan(), snapshot.posterior.mean.var(0, correction=0), rate)
    return size.argsort(descending=True, stable=True)
