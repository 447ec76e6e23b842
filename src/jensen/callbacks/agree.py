"""Ranks that end a training together."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from jensen.base.ranks import Agreement


class Agree(Callback):
    """An end that a callback asks for on one rank, by its clock or its memory, is that of all: they agree
    after each batch, epoch and validation, where the others would wait for ever.

    It must come after the callbacks that may ask and before `End` (`jensen.launch.trainer.make` sees to
    that; Lightning calls each `Checkpoint`, which that is, after the others).
    """

    def __init__(self) -> None:
        self._ranks: Agreement | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._ranks = Agreement()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self._agree(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)

    def _agree(self, trainer: Trainer) -> None:
        assert self._ranks is not None
        trainer.should_stop = bool(self._ranks.most(int(trainer.should_stop)))
