"""TensorBoard's event files as a function of the checkpoint: however often a run is killed, no record is missing or twice."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from jensen.callbacks.diagnose import writers
from jensen.callbacks.durable import sync

SUFFIX = ".train"
"""Ends the names of the event files that training writes (`conf/logger/tensorboard.yaml`). No others are touched."""


class Events(Callback):
    """Puts into each checkpoint how long each event file was, with all that was logged until then on the disk.

    A run that goes on from there cuts its files to that length (`rewind`) and computes again what is gone. A TensorBoard
    that was open meanwhile shows what it has read of it until it is reloaded.
    """

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["events"] = {}
        for writer in writers(trainer):
            writer.flush()
            for file in files(Path(writer.log_dir)):
                sync(file)
                checkpoint["events"][file.name] = file.stat().st_size


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"events.out.tfevents.*{SUFFIX}"))


def rewind(folder: Path, sizes: Mapping[str, int]) -> None:
    """Cuts the event files in `folder` to `sizes`, by name, and removes those that are not named."""
    for file in files(folder):
        if file.name not in sizes:
            file.unlink()
        elif file.stat().st_size > sizes[file.name]:
            os.truncate(file, sizes[file.name])
