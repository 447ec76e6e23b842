"""What a model is refused for before its first step: parts that do not fit each other or the data.

Sizes that differ need not fail. A single latent beside two would be broadcast: one draw, used twice, trains without a word.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from jensen.base.errors import InputError, check_choice
from jensen.bound.bound import Inference
from jensen.bound.divergence import rate
from jensen.family.family import is_standard
from jensen.family.gaussian import Gaussian
from jensen.model.vae import VAE
from jensen.objective.objective import Objective

T = TypeVar("T")
PRECISIONS = ("32-true", "64-true", "16-mixed", "bf16-mixed")
"""Of networks; parameters and data are float32, or float64, and no density or divergence is less."""


def check_precision(precision: object) -> None:
    """Refuse parameters of half precision."""
    check_choice("trainer.precision", precision, PRECISIONS)


def check_stated(parts: dict[str, nn.Module], latent_dim: int, x_shape: tuple[int, ...]) -> None:
    """Refuse a part whose own `latent_dim` or `x_shape` is not that of the model and the data.

    Args:
        parts: by the key of the configuration that makes them.
    """
    for name, part in parts.items():
        stated = getattr(part, "latent_dim", latent_dim)
        if stated != latent_dim:
            raise InputError(
                f"{name}.latent_dim is {stated} but model.latent_dim is {latent_dim}: expected one number of latents in all"
                " parts; set latent_dim alone, which all of them take"
            )
        shape = getattr(part, "x_shape", x_shape)
        if shape != x_shape:
            raise InputError(
                f"{name}.x_shape is {list(shape)} but examples have shape {list(x_shape)}: expected one shape in all parts;"
                " set data.x_shape alone, which all of them take"
            )


@torch.no_grad()
def check_shapes(model: VAE, x: Tensor) -> None:
    """Refuse a model whose parts, ours or a user's, give other shapes for `x` `(B, *event)` than its bound is made of."""
    examples = f"{len(x)} examples of shape {list(x.shape[1:])}"
    codes = f"{len(x)} codes of {model.latent_dim} latents"
    latents = (len(x), model.latent_dim)

    posterior = _tried("model.encoder", examples, lambda: model.encode(x))
    for part in posterior if isinstance(posterior, Gaussian) else (posterior.mean,):
        _check_shape("model.encoder", examples, part, latents)
    z = posterior.mean
    output = _tried("model.decoder", codes, lambda: model.decoder(z))
    _check_shape("model.decoder", codes, output, tuple(x.shape))
    p = model.prior.distribution()
    bounds = {
        "model.likelihood.distortion": lambda: model.likelihood.distortion(output, x),
        "model.prior's rate": lambda: rate(posterior, p, z, bounded=model.prior.rate_is_bound),
        "model.prior's log_prob": lambda: p.log_prob(z),
    }
    for name, bound in bounds.items():
        _check_shape(name, codes, _tried(name, codes, bound), (len(x),))


@torch.no_grad()
def check_objective(objective: Objective, model: VAE, inference: Inference, step: Tensor) -> None:
    """Refuse an objective whose formula does not hold for the model's posterior or prior; nothing is kept of the trial.

    Raises:
        InputError: what the objective refuses (`family.family.diagonal`), or a prior that it would take for N(0, I).
    """
    prior = model.prior.distribution()
    if objective.for_standard_normal and not is_standard(prior):
        raise InputError(
            f"objective is {type(objective).__name__} and model.prior a {type(model.prior).__name__}: expected"
            " model/prior=standard_normal, which its formula is of; choose that, or another objective"
        )
    objective(inference, step)
    objective.terms(inference, step)


def _tried(name: str, told: str, part: Callable[[], T]) -> T:
    """What the part makes of it; torch's own words are the reason where it makes nothing."""
    try:
        return part()
    except (RuntimeError, IndexError, TypeError) as error:
        why = str(error).strip().partition("\n")[0]
        raise InputError(f"{name} cannot take {told} ({why}): expected parts of one size; change its sizes") from error


def _check_shape(name: str, told: str, found: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(found.shape) != expected:
        raise InputError(f"{name} gives shape {list(found.shape)} for {told}: expected {list(expected)}; change its sizes")
