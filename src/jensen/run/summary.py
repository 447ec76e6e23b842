"""The last lines of a run: what came of it, and where that is to be seen."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from jensen.callbacks.words import numbers
from jensen.run.folder import BEST, FINISHED, WARNINGS
from jensen.run.record import get_json

_ALWAYS = ("samples", "ventriloquism", "double_flash", "mcgurk")
_OF_IMAGES = ("reconstructions", "samples", "traversals", "traversal_film")
_OF_SEVERAL = ("samples", "traversals")


def brief(folder: Path, results: dict[str, float]) -> list[str]:
    """A run of a sweep in a line, and one for each thing that ails it."""
    return [numbers(results), *_warnings(get_json(folder / FINISHED))] if results else []


def summary(folder: Path, cfg: DictConfig, results: Mapping[str, float]) -> list[str]:
    """The lines of a run that ended: its bound, active latents and scores, what ails it, and where
    its pictures are.
    """
    finished = get_json(folder / FINISHED)
    bounds = {name: value for name, value in results.items() if name.startswith(("val/", "test/"))}
    width = max([16, *map(len, bounds)])
    lines = [f"{name:{width}} {value:10.3f} nats per example" for name, value in bounds.items()]
    lines += [line for line in (_latents(cfg, results), _best(finished)) if line]
    lines += _warnings(finished) if results else []
    return [*lines, *_places(folder, cfg, results)]


def _places(folder: Path, cfg: DictConfig, results: Mapping[str, float]) -> list[str]:
    """The places where the run is to be looked at, by what its loggers left."""
    table = folder / "metrics.csv"
    places = [f"its numbers are in {shlex.quote(str(table))}"] if table.is_file() else []
    if not any(folder.glob("events.out.tfevents.*")):
        return places
    drawn = [name for name in _pictures(cfg) if cfg.diagnostics.get(name) is not None]
    if drawn and results:
        places.append(f"pictures ({', '.join(drawn)}) are in TensorBoard's IMAGES")
    return [*places, f"tensorboard --logdir {shlex.quote(str(folder))}"]


def _pictures(cfg: DictConfig) -> tuple[str, ...]:
    """The diagnostics that draw an observation: an image, one of several modalities, or no image."""
    modalities = OmegaConf.select(cfg, "data.modalities")
    shape = OmegaConf.select(cfg, "data.x_shape")
    if modalities is None:
        return _OF_IMAGES if shape is None or len(shape) == 3 else _ALWAYS
    return _OF_SEVERAL if any(len(each) == 3 for each in modalities.values()) else _ALWAYS


def _latents(cfg: DictConfig, results: Mapping[str, float]) -> str:
    """Active latents and scores."""
    others = {name: value for name, value in results.items() if not name.startswith("val/")}
    line = numbers(others)
    dim = OmegaConf.select(cfg, "model.latent_dim")  # a mixture has none
    if dim:
        private = OmegaConf.select(cfg, "model.latent_private") or {}
        dim += sum(private.values())
    return line.replace(" latent", f" of {dim} latent", 1) if dim else line


def _best(finished: Mapping[str, Any]) -> str:
    best = finished.get(BEST) or {}
    value = best.get("value")
    known = isinstance(value, float) and math.isfinite(value) and "monitor" in best
    return f"best {best['monitor']} {value:.3f}, in checkpoints/best.ckpt" if known else ""


def _warnings(finished: Mapping[str, Any]) -> list[str]:
    return [f"warning: {sentence}" for sentence in (finished.get(WARNINGS) or {}).values()]
