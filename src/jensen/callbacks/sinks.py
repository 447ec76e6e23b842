"""The results of diagnostics, for loggers other than TensorBoard: to each what it can take.

Weights & Biases takes scalars, histograms, pictures, texts and tables; MLflow scalars, and pictures,
texts and tables as artifacts; every other logger scalars.
"""

import io
import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import Tensor

from jensen.base.files import write as write_file
from jensen.diagnostics.picture import gif
from jensen.diagnostics.snapshot import Embedding, Film, Results

NAMES = "loggers.json"
"""The file of a run with the names under which Weights & Biases and MLflow know it."""
LEFT_OUT = {
    TensorBoardLogger: "",
    WandbLogger: "",
    MLFlowLogger: "histograms",
    Logger: "pictures, histograms and texts",
}
"""Kinds of results that a logger has no place for."""


def left_out(logger: Logger) -> str:
    """The words for what `logger` cannot keep; empty where it keeps all."""
    return next(words for kind, words in LEFT_OUT.items() if isinstance(logger, kind))


def write(logger: Logger, name: str, results: Results, step: int) -> None:
    """Results to a logger; what a value is says what it means (`Diagnostic`)."""
    tagged = {f"{name}/{key}": value for key, value in results.items()}
    scalars = {
        tag: value.item()
        for tag, value in tagged.items()
        if isinstance(value, Tensor) and not value.dim()
    }
    if scalars:
        logger.log_metrics(scalars, step)
    put = {WandbLogger: _to_wandb, MLFlowLogger: _to_mlflow}
    for kind, to in put.items():
        if isinstance(logger, kind):
            for tag in tagged.keys() - scalars.keys():
                to(logger, tag, tagged[tag], step)


def settings(logger: Logger, entry: Mapping[str, float | str], configuration: str) -> None:
    """A run's settings by dotted key, and its whole configuration as YAML, to a logger."""
    if isinstance(logger, MLFlowLogger):
        entry = {re.sub(r"[^\w./ -]", "_", key): value for key, value in entry.items()}
    logger.log_hyperparams(dict(entry))
    if isinstance(logger, WandbLogger):
        logger.experiment.config.update({"configuration": configuration}, allow_val_change=True)
    if isinstance(logger, MLFlowLogger):
        logger.experiment.log_text(logger.run_id, configuration, "configuration.yaml")


def remember(folder: Path, loggers: Iterable[Logger]) -> None:
    """Write down the names that others have given the run in `folder`, so that it goes on under
    them.
    """
    found = {
        type(logger).__name__: logger.version
        for logger in loggers
        if isinstance(logger, WandbLogger | MLFlowLogger)
    }
    if found:
        text = json.dumps(found, indent=1) + "\n"
        write_file(folder / NAMES, lambda file: file.write(text.encode()))


def _dim(value: Any) -> int | None:
    return value.dim() if isinstance(value, Tensor) else None


def _to_wandb(logger: WandbLogger, tag: str, value: Any, step: int) -> None:
    import wandb

    if isinstance(value, str):
        logger.log_text(tag, columns=["text"], data=[[value]], step=step)
    elif isinstance(value, Embedding):
        columns, rows = _table(value)
        logger.log_table(tag, columns=columns, data=rows, step=step)
    elif isinstance(value, Film):
        film = wandb.Video(io.BytesIO(gif(value)), format="gif")
        logger.log_metrics({tag: film}, step)  # type: ignore[dict-item]
    elif _dim(value) == 1:
        logger.log_metrics({tag: wandb.Histogram(value.float().cpu().numpy())}, step)  # type: ignore[dict-item]
    elif _dim(value) == 3:
        logger.log_image(tag, [_pixels(value)], step=step)


def _to_mlflow(logger: MLFlowLogger, tag: str, value: Any, step: int) -> None:
    client = logger.experiment
    place = f"{tag}/{step:08d}"
    if isinstance(value, str):
        client.log_text(logger.run_id, value, f"{place}.md")
    elif isinstance(value, Embedding):
        columns, rows = _table(value)
        lines = ("\t".join(map(str, row)) + "\n" for row in (columns, *rows))
        client.log_text(logger.run_id, "".join(lines), f"{place}.tsv")
    elif isinstance(value, Film):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{step:08d}.gif"
            file.write_bytes(gif(value))
            client.log_artifact(logger.run_id, str(file), tag)
    elif _dim(value) == 3:
        client.log_image(logger.run_id, _pixels(value), f"{place}.png")


def _pixels(image: Tensor) -> np.ndarray:
    """`(3, H, W)` of uint8 or of [0, 1] as `(H, W, 3)` of uint8."""
    scaled = image if not image.is_floating_point() else (image * 255).round().clamp(0, 255)
    pixels: np.ndarray = scaled.byte().permute(1, 2, 0).cpu().numpy()
    return pixels


def _table(embedding: Embedding) -> tuple[list[str], list[list[Any]]]:
    """The columns and rows of an embedding: the latents, then what labels say."""
    latents = [f"z{latent}" for latent in range(embedding.codes.shape[1])]
    codes = embedding.codes.tolist()
    rows = [[*code, *label] for code, label in zip(codes, embedding.labels, strict=True)]
    return [*latents, *embedding.columns], rows
