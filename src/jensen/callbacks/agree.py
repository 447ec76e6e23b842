"""Ranks that end a training together."""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from jensen.base.ranks import Agreement


class Agree(Checkpoint):
    """An end that a callback asks for on one rank, by its clock or its memory, is that of all: they agree
    at the start and the end of the training and of each epoch, after each batch and validation, where
    the others would wait for ever.

    It must come after the callbacks that may ask, a user's `Checkpoint` among them, and before `End`
    (`jensen.launch.trainer.make` sees to that). A `Checkpoint` itself, because Lightning calls those
    last.
    """

    def __init__(self) -> None:
        self._ranks: Agreement | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._ranks = Agreement()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self._agree(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)

    def _agree(self, trainer: Trainer) -> None:
        assert self._ranks is not None
        trainer.should_stop = bool(self._ranks.most(int(trainer.should_stop)))
