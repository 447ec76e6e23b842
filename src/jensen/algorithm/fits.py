"""Whether the parts of a model fit each other, the objective and the data, tried on a few examples.

Sizes that differ need not fail. A single latent beside two would be broadcast: one draw, used
twice, trains without a word.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from jensen.algorithm.step import infer, loss_of
from jensen.base.errors import InputError
from jensen.base.random import key
from jensen.bound.bound import Inference
from jensen.bound.rate import BoundedBelow, log_density, rate
from jensen.family.family import is_standard
from jensen.family.gaussian import Gaussian
from jensen.model.vae import VAE
from jensen.objective.objective import Objective

T = TypeVar("T")


def check_fit(model: VAE, objective: Objective, x: Tensor) -> type:
    """Refuse parts that do not fit each other or the examples `x` `(B, *event)`; else the family of
    the posterior.

    Nothing is left of the trial in running statistics.

    Raises:
        InputError: sizes that differ, or an objective whose formula does not hold here.
    """
    parts = {f"model.{name}": part for name, part in model.named_children()} | {
        "objective": objective
    }
    if hasattr(model.likelihood, "output_shape"):
        del parts["model.decoder"]  # whose shape may be another, and is looked at below
    check_stated(parts, model.latent_dim, tuple(x.shape[1:]))
    model.check_samples(objective.samples)
    row = torch.zeros(1, dtype=torch.int64, device=x.device)
    with _evaluating(model, objective), torch.no_grad():
        check_shapes(model, x)
        inference = infer(model, x[:1], row, key(0, "checks", device=x.device), objective.samples)
        check_objective(objective, model, inference, torch.zeros_like(row[0]))
    return type(inference.posterior)


@contextmanager
def _evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards that in which each module was."""
    training = [part for module in modules for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def check_stated(parts: dict[str, nn.Module], latent_dim: int, x_shape: tuple[int, ...]) -> None:
    """Refuse a part whose own `latent_dim` or `x_shape` is not that of the model and the data.

    Args:
        parts: by the key of the configuration that makes them.
    """
    for name, part in parts.items():
        stated = getattr(part, "latent_dim", latent_dim)
        if stated != latent_dim:
            raise InputError(
                f"{name}.latent_dim is {stated} but model.latent_dim is {latent_dim}: expected one"
                " number of latents in all parts; set latent_dim alone, which all of them take"
            )
        shape = getattr(part, "x_shape", x_shape)
        if [*shape] != [*x_shape]:  # a conf file's is a list
            raise InputError(
                f"{name}.x_shape is {list(shape)} but examples have shape {list(x_shape)}:"
                " expected one shape in all parts; set data.x_shape alone, which all of them take"
            )


@torch.no_grad()
def check_shapes(model: VAE, x: Tensor) -> None:
    """Refuse a model whose parts, ours or a user's, give other shapes for `x` `(B, *event)` than
    its bound is made of.
    """
    examples = f"{len(x)} examples of shape {list(x.shape[1:])}"
    codes = f"{len(x)} codes of {model.latent_dim} latents"
    latents = (len(x), model.latent_dim)

    posterior = _tried("model.encoder", examples, lambda: model.encoded(x))
    for part in posterior if isinstance(posterior, Gaussian) else (posterior.mean,):
        _check_shape("model.encoder", examples, part, latents)
    z = posterior.mean
    output = _tried("model.decoder", codes, lambda: model.decoded(z, x))
    event = tuple(x.shape[1:])
    expected = getattr(model.likelihood, "output_shape", lambda event: event)(event)
    _check_shape("model.decoder", codes, output, (len(x), *expected))
    p = model.prior_of(x)
    bounds = {
        "model.likelihood.distortion": lambda: model.likelihood.distortion(output, x),
        "model.prior's log_prob": lambda: log_density(p, z, z),
        "model.prior's rate": lambda: rate(
            posterior, p, z, log_density(p, z, z), bounded=model.prior.rate_is_bound
        ),
    }
    for name, bound in bounds.items():
        _check_shape(name, codes, _tried(name, codes, bound), (len(x),))


@torch.no_grad()
def check_objective(objective: Objective, model: VAE, inference: Inference, step: Tensor) -> None:
    """Refuse an objective whose formula does not hold for the model's posterior or prior; nothing
    is kept of the trial.

    Raises:
        InputError: what the objective refuses (`family.family.diagonal`), a prior that it would
            take for N(0, I), or a size of the data that it needs and nobody has told it.
    """
    if objective.needs_dataset_size and not objective.dataset_size:
        raise InputError(
            f"objective is {type(objective).__name__} and its dataset_size is 0: expected at least"
            " 1, the number of training examples, which is not known of a stream or of loaders of"
            " your own; set objective.dataset_size, or train on map-style data of a"
            " jensen.data.module.DataModule, which tells it"
        )
    prior = model.prior.distribution()
    if objective.for_standard_normal and not is_standard(prior):
        raise InputError(
            f"objective is {type(objective).__name__} and model.prior a"
            f" {type(model.prior).__name__}: expected model/prior=standard_normal, which its"
            " formula is of; choose that, or another objective"
        )
    if objective.needs_density and isinstance(prior, BoundedBelow):
        raise InputError(
            f"objective is {type(objective).__name__} and model.prior a"
            f" {type(model.prior).__name__}, of whose density a bound is known: expected a prior"
            " with an exact one, such as model/prior=flow; choose that, or another objective"
        )
    loss_of(objective, inference, step)
    objective.terms(inference, step)


def _tried(name: str, told: str, part: Callable[[], T]) -> T:
    """Call a part; torch's own words are the reason where it fails."""
    try:
        return part()
    except (RuntimeError, IndexError, TypeError) as error:
        why = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{name} cannot take {told} ({why}): expected parts of one size; change its sizes"
        ) from error


def _check_shape(name: str, told: str, found: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(found.shape) != expected:
        raise InputError(
            f"{name} gives shape {list(found.shape)} for {told}: expected {list(expected)}; change"
            " its sizes"
        )
