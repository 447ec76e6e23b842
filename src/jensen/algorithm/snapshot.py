"""The word of a model on the held-out set, as the diagnostics read it.

Each is a function of the kind of model: what is known before any example is encoded, and the
snapshot.
"""

from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn

from jensen.base.random import fold
from jensen.bound.bound import Inference
from jensen.bound.rate import latent_rates
from jensen.diagnostics.snapshot import Snapshot
from jensen.family.codes import Codes
from jensen.family.draw import draw as draws_of
from jensen.family.unknown import Unknown
from jensen.model.bayesian_gmm import BayesianGMM
from jensen.model.likelihood import drawn
from jensen.model.multimodal import MultimodalVAE
from jensen.model.scored import Scored
from jensen.model.vae import VAE


@singledispatch
def known(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """The part of a model's snapshot that is there before any example is encoded; `images` `(P,
    *event)`.
    """
    raise TypeError(f"no snapshot of a {type(model).__name__}")


@singledispatch
def snapshot(
    model: nn.Module, inference: Inference, factors: Tensor, names: tuple[str, ...], images: Tensor
) -> Snapshot:
    """The model's word on the held-out set, whose fields `Snapshot` explains."""
    raise TypeError(f"no snapshot of a {type(model).__name__}")


@known.register
def known_of_vae(model: VAE, images: Tensor) -> dict[str, Any]:
    def observe(z: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
        index = torch.arange(len(z), device=z.device)
        key = fold(0, "observations")
        return drawn(model.likelihood, model.decoded(z), key, index, temperature, top_k, top_p)

    def alike(z: Tensor) -> Tensor:
        index = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        return drawn(model.likelihood, model.decoded(z), 0, index)

    return {
        "encode": model.encoded,
        "decode": model.decode,
        "observe": observe,
        "alike": alike if getattr(model.likelihood, "mean_is_drawn", False) else None,
        "infer": model,
        "prior": model.prior.distribution(),
        "senses": model if isinstance(model, MultimodalVAE) else None,
        "beliefs": None,
    }


@snapshot.register
def snapshot_of_vae(
    model: VAE, inference: Inference, factors: Tensor, names: tuple[str, ...], images: Tensor
) -> Snapshot:
    like = inference.z
    p = model.prior.distribution()
    unknown = isinstance(p, Unknown)
    latent_rate = None if unknown else latent_rates(inference.posterior, p)

    def draw(count: int) -> Tensor:
        index = torch.arange(count, device=like.device)
        p = model.prior.distribution()
        return draws_of(p, fold(0, "samples"), index, model.latent_dim, like.dtype)

    return Snapshot(
        bound=inference.bound,
        posterior=inference.posterior,
        z=inference.z,
        log_prior=inference.log_prior,
        latent_rate=torch.full_like(inference.z, torch.nan) if latent_rate is None else latent_rate,
        factors=factors,
        names=names,
        images=images.to(like.dtype),
        draw=draw,
        **known_of_vae(model, images),
    )


def point_inference(model: Scored, x: Tensor) -> Inference:
    """Points `(B, *event)` as their own codes, without uncertainty, and what the mixture says of
    them.
    """
    flat = x.flatten(1)
    z = model.in_order(flat)
    bound = model.bound(flat)
    return Inference(bound, Codes(z), z, bound.elbo)


@known.register
def known_of_mixture(model: Scored, images: Tensor) -> dict[str, Any]:
    event = images.shape[1:]
    return {
        "encode": lambda x: Codes(model.in_order(x.flatten(1))),
        "decode": lambda z: model.as_given(z).unflatten(1, event),
        "infer": lambda x, noise: point_inference(model, x),
        "prior": model.mixture,
        "beliefs": model if isinstance(model, BayesianGMM) else None,
        "senses": None,
        "observe": None,
        "alike": None,
    }


@snapshot.register
def snapshot_of_mixture(
    model: Scored, inference: Inference, factors: Tensor, names: tuple[str, ...], images: Tensor
) -> Snapshot:
    return Snapshot(
        bound=inference.bound,
        posterior=inference.posterior,
        z=inference.z,
        log_prior=inference.log_prior,
        latent_rate=torch.full_like(inference.z, torch.nan),  # pictures go by variance
        factors=factors,
        names=names,
        images=images.to(inference.z.dtype),
        draw=lambda count: model.in_order(model.sample(count)),
        **known_of_mixture(model, images),
    )
