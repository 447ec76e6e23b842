"""Encodes the held-out set once per validation, runs the diagnostics on it, and writes what they
return to TensorBoard and the other loggers.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from jensen.base.batch import Batch
from jensen.base.errors import InputError, check_list, check_text
from jensen.base.ranks import gather_rows
from jensen.base.tree import tree_map
from jensen.bound.bound import Inference
from jensen.callbacks import sinks
from jensen.callbacks.projector import project
from jensen.data.module import DataModule
from jensen.diagnostics.picture import gif
from jensen.diagnostics.preview import Preview, check_settings
from jensen.diagnostics.snapshot import Diagnostic, Embedding, Film, Results, check_families

STANDARD_ERROR = "~standard_error"
HISTOGRAM = "~histogram"
"""First parts of tags that are to come last."""

PICTURED = 256
"""Held-out observations in a snapshot's `images`."""


class _Encoded(NamedTuple):
    row: Tensor
    factors: Tensor
    inference: Inference


class Diagnose(Callback):
    """Runs `diagnostics`, by name, at the end of each validation; results are tagged
    `<name>/<key>`.

    The forward pass is the validation's own: nothing is encoded twice. Under DDP each rank encodes
    its share, the codes are gathered and put back in the order of the data set, every rank runs the
    diagnostics (which may share out their work, `base.ranks`) and rank zero writes.

    Args:
        diagnostics: functions of a snapshot, by name.
        charts: TensorBoard's CUSTOM SCALARS: headings, below each titles and the tags that share
            axes.
        on_encoded: told how many examples were encoded and in how many seconds.

    `results`: of the last validation, by the name of the diagnostic.
    """

    def __init__(
        self,
        diagnostics: Mapping[str, Diagnostic],
        charts: Mapping[str, Mapping[str, list[str]]] | None = None,
        on_encoded: Callable[[int, float], None] | None = None,
    ) -> None:
        for heading, chart in (charts or {}).items():
            check_charts(heading, chart)
        self.diagnostics = {
            name: each for name, each in diagnostics.items() if each is not None
        }  # null leaves one out
        self.charts = dict(charts or {})
        self.on_encoded = on_encoded
        self.results: dict[str, Results] = {}
        self._start = 0.0
        self._parts: list[_Encoded] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses data that cannot be shown: those of a user's own loaders."""
        if not isinstance(trainer.datamodule, DataModule):
            raise InputError(
                "the callback Diagnose has no jensen.data.module.DataModule: expected one, since"
                " it shows examples by their"
                " place and names their factors; pass your data as one, or leave the callback out"
            )

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        layout = {
            heading: {title: ["Multiline", tags] for title, tags in charts.items()}
            for heading, charts in self.charts.items()
        }
        for writer in writers(trainer):
            writer.add_custom_scalars(layout)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses what holds for other posteriors than the model's, which the algorithm has looked
        at by now, or for none.
        """
        posterior = getattr(pl_module, "posterior_family", None)
        if posterior is not None:
            check_families(self.diagnostics, posterior)
        if self.diagnostics and hasattr(pl_module, "known"):
            self._check_settings(trainer, pl_module)

    def _check_settings(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """On every rank, with what is known of the data and the model before the first step."""
        data = trainer.datamodule
        training = pl_module.training
        images = data.show(PICTURED).to(pl_module.device, pl_module.dtype)
        pl_module.eval()  # a look leaves no trace in running statistics
        known = cast(Any, pl_module).known(images)
        check_settings(
            self.diagnostics, Preview(names=data.examples("train").names, images=images, **known)
        )
        pl_module.train(training)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.perf_counter()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Inference,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._parts.append(_Encoded(batch.row, batch.factors, outputs))

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        parts = self._parts
        self._parts = []
        if trainer.sanity_checking or not self.diagnostics:
            return
        row, factors, inference = tree_map(lambda *rows: gather_rows(torch.cat(rows)), *parts)
        order = row.argsort()
        factors, inference = tree_map(lambda rows: rows[order], (factors, inference))
        if self.on_encoded is not None:
            self.on_encoded(len(order), time.perf_counter() - self._start)
        data = trainer.datamodule
        images = data.show(PICTURED).to(pl_module.device)
        snapshot = cast(Any, pl_module).snapshot(
            inference, factors, data.examples("train").names, images
        )
        for name, diagnostic in self.diagnostics.items():
            self.results[name] = results = diagnostic(snapshot)
            scalars = {
                f"{name}/{key}": value
                for key, value in results.items()
                if isinstance(value, Tensor) and not value.dim()
            }
            pl_module.log_dict(
                scalars, logger=False
            )  # for callbacks that monitor them, and for whoever called train
            for writer in writers(trainer):
                write(writer, name, results, trainer.global_step)
            for logger in others(trainer):
                sinks.write(logger, name, results, trainer.global_step)


def check_charts(heading: str, charts: object) -> None:
    """Refuse charts below a heading that are not titles and lists of tags."""
    if not isinstance(charts, Mapping):
        raise InputError(
            f"charts.{heading} is {charts!r}: expected a title and a list of tags for each chart below"
            " that heading"
        )
    for title, tags in charts.items():
        check_list(f"charts.{heading}.{title}", tags)
        for tag in tags:
            check_text(f"charts.{heading}.{title}", tag)


def writers(trainer: Trainer) -> list[SummaryWriter]:
    """TensorBoard's; none on ranks other than zero."""
    loggers = trainer.loggers if trainer.is_global_zero else []
    return [logger.experiment for logger in loggers if isinstance(logger, TensorBoardLogger)]


def animated(tag: str, film: Film) -> Summary:
    """An image summary of an animated GIF, which the browser shows moving; torch's `add_video` needs
    moviepy for the same.
    """
    height, width = film.frames.shape[2:]
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif(film))
    return Summary(value=[Summary.Value(tag=tag, image=image)])


def place(name: str, key: str, value: Tensor) -> str:
    """The tag of a scalar or a histogram. TensorBoard sorts groups of tags by their first part, so
    what few look at gets one that comes after all letters: standard errors and histograms.
    """
    tag = f"{name}/{key}"
    if value.dim() == 1:
        return f"{HISTOGRAM}/{tag}"
    return f"{STANDARD_ERROR}/{tag}" if key.endswith("_se") else tag


def others(trainer: Trainer) -> list[Logger]:
    """The loggers that are not TensorBoard's; none on ranks other than zero."""
    loggers = trainer.loggers if trainer.is_global_zero else []
    found = [logger for logger in loggers if isinstance(logger, Logger)]
    return [logger for logger in found if not isinstance(logger, TensorBoardLogger)]


def write(writer: SummaryWriter, name: str, results: Results, step: int) -> None:
    """Results to TensorBoard; what a value is says what it means (`Diagnostic`)."""
    for key, value in results.items():
        tag = f"{name}/{key}"
        if isinstance(value, np.ndarray):
            continue
        if isinstance(value, str):
            writer.add_text(tag, value, step)
        elif isinstance(value, Embedding):
            project(Path(writer.log_dir), tag, value)
        elif isinstance(value, Film):
            writer.file_writer.add_summary(animated(tag, value), step)
        elif value.dim() == 0:
            if value or not key.endswith("_se"):  # exact numbers have no error to draw
                writer.add_scalar(place(name, key, value), value, step)
        elif value.dim() == 1:
            writer.add_histogram(place(name, key, value), value.float().cpu(), step)
        elif value.dim() == 3 and value.shape[0] == 3:
            writer.add_image(tag, value, step)
        else:
            raise TypeError(
                f"diagnostic {tag} returned shape {list(value.shape)}: expected (), (N,) or (3, H,"
                " W)"
            )
