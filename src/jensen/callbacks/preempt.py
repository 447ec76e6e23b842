"""Ends a run that is asked to end where nothing is lost, and puts a SLURM job back in the queue."""

import os
import signal
import subprocess

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from jensen.base import signals
from jensen.base.ranks import Agreement, world
from jensen.base.signals import Stopped
from jensen.callbacks.last import Last, resumable

REQUEUE = {getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)}
"""Signals that say the time is up, so that the job should go on later; SIGTERM says that it should
end.
"""


class Preempt(Checkpoint):
    """Saves last.ckpt after the step in which a signal came (`base.signals`) and ends the process.

    The order of the data and all noise are functions of the seed and the step, so the run that
    continues equals one that was not stopped. Where a validation is due, it is waited for, since a
    continued run would leave it out. Ranks need not be told at the same step, nor all of them: they
    agree after each.

    A `Checkpoint`, because Lightning calls those last: after a validation, best.ckpt and last.ckpt
    are written by then.
    """

    def __init__(self) -> None:
        self._ranks: Agreement | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Before the first step Lightning sets a handler of SIGTERM that broadcasts inside it, so
        # that ranks could hang: no signal until ours has taken its place. Lightning itself gives
        # the handlers of before back when it ends.
        signals.hold(True)
        if self._ranks is None:
            self._ranks = Agreement()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hear()
        self._leave_if_asked(trainer, save=False)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if resumable(trainer):
            self._leave_if_asked(trainer, save=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._leave_if_asked(trainer, save=False)  # `Last` just did

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            self._hear()

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.state.fn != "fit":
            self._leave_at_interrupt(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hear()

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._leave_at_interrupt(trainer)

    def _leave_at_interrupt(self, trainer: Trainer) -> None:
        """After the training only a person stops a run, of one rank: all is saved but the last
        numbers.
        """
        if signals.asked() == signal.SIGINT and world()[1] == 1:
            signals.forget()
            sentence = f"stopped by SIGINT after step {trainer.global_step}, its last; the same command finishes it"
            raise Stopped(sentence, 128 + signal.SIGINT)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self.teardown(trainer, pl_module, "")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._ranks = None
        signals.hold(False)

    def _hear(self) -> None:
        signals.listen()
        signals.hold(False)

    def _leave_if_asked(self, trainer: Trainer, save: bool) -> None:
        """Raises `Stopped` on all ranks if a signal came to any of them."""
        number = self._agreed()
        over = trainer.should_stop and trainer.fit_loop._can_stop_early
        if not number or over:  # a run whose training is over is let finish
            return
        if save:
            Last().save(trainer)
        queued = requeue() if trainer.is_global_zero and number in REQUEUE else ""
        trainer.strategy.barrier()  # or a rank that has left would have SLURM end the one that saves
        signals.forget()
        sentence = f"stopped by {signal.Signals(number).name} at step {trainer.global_step}"
        code = 128 + number if trainer.is_global_zero else 0
        raise Stopped(f"{sentence}; {queued or 'the same command continues from there'}", code)

    def _agreed(self) -> int:
        """The signal that came to any rank; 0 if none did."""
        number = signals.asked()
        return number if self._ranks is None else self._ranks.most(number)


def requeue() -> str:
    """Puts this SLURM job back in the queue and says so; outside of SLURM, nothing."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return ""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        failure = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        failure = str(error)
    if failure:
        return f"SLURM did not queue job {job} again ({failure}): submit it again, it continues"
    return f"SLURM job {job} is queued again and continues from there"
