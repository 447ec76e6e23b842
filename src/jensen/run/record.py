"""The records of a run, as JSON: whole or not at all, and read as nothing where it is torn."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

import jensen
from jensen.base.errors import check_choice
from jensen.callbacks.best import Best
from jensen.callbacks.diagnose import Diagnose
from jensen.callbacks.durable import write
from jensen.callbacks.tell import Tell
from jensen.diagnostics.snapshot import Embedding, Film, Results

_LISTED = 1000
"""Numbers of an array that scores.json still lists."""
_LARGEST = 1 << 24
"""Bytes of a record that is read."""


def put(path: Path, text: str) -> None:
    """Raises:
    InputError: the file cannot be written; what was there is there still.
    """
    write(path, lambda file: file.write(text.encode()))


def put_json(path: Path, entry: dict[str, Any]) -> None:
    """As `put`."""
    put(path, json.dumps(entry, indent=1) + "\n")


def get_json(path: Path) -> dict[str, Any]:
    """Empty where there is no such file, or one that is cut short, or that no run wrote: a link,
    nested deep, or huge.
    """
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST:
            return {}
        entry = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


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


def maximised(maximise: str | None, results: dict[str, float]) -> float | None:
    """The result that a sweeper is to raise; None where `maximise` names none."""
    if maximise is None:
        return None
    check_choice("maximise", maximise, [*results])
    return results[maximise]


def put_scores(path: Path, entry: dict[str, Any]) -> None:
    """Writes scores; diagnostics of the same subject that are there already are kept."""
    before = get_json(path)
    if "diagnostics" in before and _subject(before) == _subject(entry):
        entry = entry | {"diagnostics": before["diagnostics"] | entry["diagnostics"]}
    put_json(path, entry)


def _subject(entry: dict[str, Any]) -> list[Any]:
    run = entry.get("run")
    return [
        run and Path(run).resolve(),
        *(entry.get(key) for key in ("codes", "checkpoint", "step", "split", "version")),
    ]
