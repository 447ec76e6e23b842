"""`checkpoints/last.ckpt`, from which the same command goes on, and the one before it."""

import contextlib
import os
import time
from pathlib import Path

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn

from jensen.base.errors import check_number
from jensen.callbacks.durable import Durable


class Last(Checkpoint):
    """Saves after each validation and, on steps that are logged, when `seconds` have passed since.

    A save that was slow is followed by none for long: at a `share` of 0.01 one that took 3 s by
    none for 5 minutes. The checkpoint before is kept as `last.previous.ckpt`. All checkpoints of
    the run, of other callbacks too, are written by `durable.Durable`.

    Args:
        seconds: between two saves within a validation interval.
        share: the most of the time that such saves may take.
    """

    def __init__(self, seconds: float = 60.0, share: float = 0.01) -> None:
        check_number("seconds", seconds, low=0)
        check_number("share", share, low=1e-6)
        self.seconds = seconds
        self.share = share
        self._saved = self._cost = 0.0
        self._step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        trainer.strategy.checkpoint_io = Durable()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved = time.monotonic()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if step == self._step or step % trainer.log_every_n_steps or not resumable(trainer):
            return
        passed = time.monotonic() - self._saved
        # Rank zero's clock is every rank's.
        if trainer.strategy.broadcast(passed >= max(self.seconds, self._cost / self.share)):
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """On all ranks, at a step that is `resumable` or after a validation."""
        start = time.monotonic()
        path = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        if trainer.is_global_zero:
            keep(path)
        trainer.save_checkpoint(path)
        self._saved = time.monotonic()
        self._cost = self._saved - start


def resumable(trainer: Trainer) -> bool:
    """Tell whether a checkpoint that a callback saves at the end of this training batch continues
    exactly.

    Not amid the batches of one step, and not where a validation comes next, which a continued run
    would leave out.
    """
    loop = trainer.fit_loop.epoch_loop
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return whole_step(trainer) and not loop._should_check_val_fx(fetcher)


def whole_step(trainer: Trainer) -> bool:
    """Tell whether the batch that ends is the last of its step: gradients and sums of a part of one
    are in no checkpoint.
    """
    mid_epoch = getattr(trainer.lightning_module, "mid_epoch", False)
    return not (mid_epoch or trainer.fit_loop.epoch_loop._should_accumulate())


def previous(path: Path) -> Path:
    """The place of the checkpoint before that of `path`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def keep(path: Path) -> None:
    """Gives the checkpoint of `path` its second name; the first keeps it too, until another takes
    its place.
    """
    if not path.exists():
        return
    previous(path).unlink(missing_ok=True)
    with contextlib.suppress(
        OSError
    ):  # a file system without hard links keeps one checkpoint, whole all the same
        os.link(path, previous(path))
