"""The outcome of a training, for its records."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

import jensen
from jensen.callbacks.best import Best
from jensen.callbacks.diagnose import Diagnose
from jensen.callbacks.tell import Tell
from jensen.diagnostics.snapshot import Embedding, Film, Results

_LISTED = 1000
"""Numbers of an array that scores.json still lists."""


def numbers(results: Results) -> dict[str, Any]:
    """Scalars and short arrays, as plain lists."""
    arrays = {
        key: value
        for key, value in results.items()
        if not isinstance(value, str | Embedding | Film)
    }
    small = {
        key: value
        for key, value in arrays.items()
        if value.ndim < 3 and math.prod(value.shape) <= _LISTED
    }
    return {
        key: (value if isinstance(value, np.ndarray) else value.cpu().numpy()).tolist()
        for key, value in small.items()
    }


def of_training(cfg: DictConfig, trainer: Any, folder: Path) -> dict[str, Any]:
    """Results of the last validation, as jensen.evaluate would write them."""
    chosen: Any = OmegaConf.to_container(cfg.diagnostics, resolve=True)
    results = {
        name: found
        for each in trainer.callbacks
        if isinstance(each, Diagnose)
        for name, found in each.results.items()
    }
    metrics = {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("val/")
    }
    return {
        "run": str(folder),
        "checkpoint": "last",
        "step": trainer.global_step,
        "split": "validation",
        "bound": {name.removeprefix("val/"): value for name, value in metrics.items()},
        "version": jensen.__version__,
        "diagnostics": {
            name: {"settings": chosen.get(name)} | numbers(found) for name, found in results.items()
        },
    }


def found(trainer: Any, validated: bool) -> tuple[dict[str, str], dict[str, Any]]:
    """The ills of the model at its last step, and what best.ckpt is the best by."""
    ills = [each.found for each in trainer.callbacks if isinstance(each, Tell)] if validated else []
    best = [each for each in trainer.callbacks if isinstance(each, Best)]
    numbers = {each.monitor: each.value for each in best}
    return next(iter(ills), {}), next(
        ({"monitor": name, "value": value} for name, value in numbers.items()), {}
    )
