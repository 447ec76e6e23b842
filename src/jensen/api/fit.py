"""Training by a function call: the run of `python -m jensen.train`, by the same code."""

import time
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf, open_dict
from pytorch_lightning import Callback
from torch import nn

from jensen.api.data import kind, source
from jensen.api.run import Run, objects_of
from jensen.api.vae import PARTS, described
from jensen.base.errors import InputError, check_count, check_list
from jensen.data.torch_dataset import Stream, drawing, given
from jensen.launch.training import train
from jensen.model.vae import VAE
from jensen.run import load as runs
from jensen.run.compose import chosen, compose
from jensen.run.given import giving, node
from jensen.run.words import explain

MOST_HELD_OUT = 8192


def fit(
    model: VAE,
    data: Any,
    objective: str | nn.Module = "beta",
    *,
    validation: Any = None,
    max_steps: int = 4000,
    batch_size: int = 64,
    seed: int = 0,
    folder: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    overrides: Sequence[str] = (),
) -> Run:
    """Train `model`, in place, and leave a run in `folder`; the same call with a folder that is
    there continues that run.

    Args:
        model: of `jensen.VAE`.
        data: `(N, *event)` tensor, array or frame, `(x, factors)` of them, or a torch `Dataset` or
            `IterableDataset`.
        objective: a name of `conf/objective`, or an object.
        validation: how many examples to hold out, or which share of them, by default a tenth; or
            other data to validate on.
        max_steps: optimiser steps.
        batch_size: examples of a step.
        seed: of the order and the noise.
        folder: of the run; a new `runs/<date>` by default, which is said.
        callbacks: Lightning's, beside those that a run has.
        overrides: anything else that the command takes: `["optimizer.lr=1e-4",
            "diagnostics=[rate]", "trainer.devices=2"]`.

    Raises:
        InputError: whatever the command would refuse.
    """
    check_count("max_steps", max_steps)
    check_list("overrides", overrides)
    if not isinstance(model, VAE):
        raise InputError(
            f"model is a {type(model).__name__}: expected a jensen.VAE; a jensen.GMM has a fit of"
            " its own"
        )
    objects = objects_of(model, None if isinstance(objective, str) else objective)
    objects["data"] = source(data, validation)
    shape, held_out = _look(objects["data"], validation)
    words = [
        f"latent_dim={model.latent_dim}",
        f"data.x_shape=[{','.join(map(str, shape))}]",
        f"data.validation={held_out}",
    ]
    words += [f"seed={seed}", f"trainer.max_steps={max_steps}", f"data.batch_size={batch_size}"]
    words += [] if held_out else ["data.splits=[train,test]"]
    if isinstance(objective, str):
        chosen("objective", objective, "objective")
        words.append(f"objective={objective}")
    cfg = compose("train", ["data=torch_dataset", "model=mlp", *words, *overrides])
    with open_dict(cfg):
        cfg.data.source = node("data", kind(data))
        cfg.model = _model(model, shape)
        if not isinstance(objective, str):
            cfg.objective = node("objective", _class(objective))
        for place, callback in enumerate(callbacks):
            cfg.callbacks[f"given_{place}"] = node(f"callback_{place}", _class(callback))
    calls = {f"callback_{place}": callback for place, callback in enumerate(callbacks)}
    where = _new() if folder is None else Path(folder).expanduser()
    with giving(objects | calls), drawing(seed):
        _train(cfg, where, model)
    model.x_shape = tuple(cfg.data.x_shape)
    return Run(where, _trained(model, where), (), objects)


def _train(cfg: Any, folder: Path, model: VAE) -> None:
    try:
        train(cfg, folder, model)
    except Exception as error:
        if isinstance(error, InputError) or (sentence := explain(error)) is None:
            raise
        raise InputError(sentence) from error


def _trained(model: VAE, folder: Path) -> VAE:
    """The model as the last checkpoint has it, of a run that was finished before too."""
    if runs.is_double(runs.configuration(folder)):
        runs.take_float32(model.double())
    saved = runs.state(folder)["state_dict"]
    model.load_state_dict(
        {
            key.removeprefix("model."): value
            for key, value in saved.items()
            if key.startswith("model.")
        }
    )
    return model.eval()


def _look(data: Any, validation: Any) -> tuple[tuple[int, ...], int]:
    """The shape of an observation, and how many examples to hold out."""
    found = given(data(), survey=False)
    shape = tuple(found.decode(found.first().stored).shape[1:])
    if isinstance(validation, Integral):
        count = validation if isinstance(validation, bool) else int(validation)
        check_count("validation", count)
        return shape, count
    if not isinstance(validation, Real | None):
        return shape, 0
    if isinstance(found, Stream):
        raise InputError(
            f"validation is {validation} and {found.name} is a stream: expected other data to validate"
            " on"
        )
    if validation is None:
        return shape, min(max(1, len(found) // 10), MOST_HELD_OUT)
    share = float(validation)
    if not 0 < share < 1:
        raise InputError(
            f"validation is {validation}: expected a number of examples, a share of them between 0 and"
            " 1, or other data to validate on"
        )
    return shape, max(1, round(share * len(found)))


def _model(model: VAE, shape: tuple[int, ...]) -> Any:
    """The model as the configuration has it: the calls of its named parts, and of others that they
    were given.
    """
    if type(model) is not VAE:
        return node("model", _class(model))
    names = getattr(model, "chosen", {})
    others = {
        part: node(part, _class(own))
        for part in PARTS
        if part not in names and (own := getattr(model, part)) is not None
    }
    return OmegaConf.create(described(names, model.latent_dim, shape, others))


def _class(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _new() -> Path:
    """A folder that is not there yet."""
    first = Path("runs") / time.strftime("%Y-%m-%d_%H-%M-%S")
    found = first
    count = 1
    while found.exists():
        count += 1
        found = first.with_name(f"{first.name}_{count}")
    return found
