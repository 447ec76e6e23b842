"""TensorBoard's event files, and `metrics.csv`, as a function of the checkpoint: however often a run
is killed, no record is missing or twice.
"""

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from tensorboard.summary.writer import event_file_writer

from jensen.base.files import sync
from jensen.callbacks import sinks
from jensen.callbacks.diagnose import writers
from jensen.callbacks.table import FILE, ours

SUFFIX = ".train"
"""Ends the names of the event files that training writes (`conf/logger/tensorboard.yaml`). No
others are touched.
"""


class Events(Callback):
    """Puts into each checkpoint how long each event file and `metrics.csv` were, with all that was
    logged until then on the disk, also of loggers that the run had before.

    A run that goes on from there cuts its files to that length (`rewind`) and computes again what
    is gone. A TensorBoard that was open meanwhile shows what it has read of it until it is
    reloaded.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the names under which others know this run."""
        if trainer.is_global_zero:
            sinks.remember(Path(trainer.default_root_dir), trainer.loggers)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["events"] = {}
        if not trainer.is_global_zero:
            return
        for writer in writers(trainer):
            writer.flush()
        for file in files(Path(trainer.default_root_dir)):
            sync(file)
            checkpoint["events"][file.name] = file.stat().st_size


def files(folder: Path) -> list[Path]:
    """The event files and the table that training has written to `folder`."""
    found = [*folder.glob(f"events.out.tfevents.*{SUFFIX}"), *folder.glob(FILE)]
    return sorted(
        file for file in found if not file.is_symlink() and (file.name != FILE or ours(file))
    )


class _Clock:
    """`time`, set forward where it would begin before `first` seconds."""

    def __init__(self, first: float) -> None:
        self.ahead = max(0.0, first - time.time())

    def time(self) -> float:
        return time.time() + self.ahead


def go_after(folder: Path) -> None:
    """Gives event files from now on names after those in `folder`, also where the clock was set
    back.

    TensorBoard reads files by the time in their names: steps of a later attempt would come first,
    and be dropped.
    """
    times = [file.name.split(".")[3] for file in files(folder) if file.name != FILE]
    event_file_writer.time = _Clock(
        max((int(each) + 1 for each in times if each.isdecimal()), default=0)
    )


def rewind(before: Iterable[Path], sizes: Mapping[str, int]) -> None:
    """Cuts the `files` that were there `before` to `sizes`, by name, and removes those that are not
    named.
    """
    for file in before:
        if file.name not in sizes:
            file.unlink()
        elif file.stat().st_size > sizes[file.name]:
            os.truncate(file, sizes[file.name])
