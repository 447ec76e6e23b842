"""The end of training: its last step is validated and saved, and it has a reason."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, Timer
from pytorch_lightning.trainer.states import TrainerFn

from jensen.callbacks.last import Last, whole_step
from jensen.callbacks.reasons import CALLBACK, EARLY, EPOCHS, STEPS, TIME


class TimeUpError(Exception):
    """`trainer.max_time` ended this attempt at a step from which the same command continues."""


class End(Checkpoint):
    """Has the last step validated and saved, and knows what ended the training.

    Ends are `trainer.max_steps`, `trainer.max_epochs`, an algorithm that has converged, a callback
    that sets `should_stop`, and `trainer.max_time` where none of the first two is set: it is then
    the time of all attempts together. Beside one of them it is the time of one attempt, which saves
    its last step without a validation that an uninterrupted run would not make, and raises
    `TimeUpError`.

    Lightning validates the last step only if an interval ends there. What cannot be validated is
    saved all the same. The reason is in the checkpoint, so that a run that was killed after its
    last step does not go on.

    It must come after `Agree` and before `Last` and `Preempt` (`jensen.launch.trainer.make` sees to that).

    `reason`: what ended the training; empty until then. `validated`: the step of the last
    validation, -1 before it. `epochs`: how many it has trained, a part of one counted as one.

    Args:
        stopping: the settings of what may end it early, in words. A run that a callback has ended
            goes on under others.
        goes_on: whether it goes on in any case, as where no checkpoint knows those settings.
        begin: called once, when nothing refuses the training any more and before anything of it is
            written.
    """

    def __init__(
        self, stopping: str = "", goes_on: bool = False, begin: Callable[[], None] = lambda: None
    ) -> None:
        self.stopping = stopping
        self.goes_on = goes_on
        self._begin: Callable[[], None] | None = begin
        self.reason = ""
        self.validated = -1
        self.epochs = 0
        self._asked = self._leaving = False
        self._interval = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        other = self.goes_on and self.reason.startswith((CALLBACK, EARLY))
        if other or self.reason in (
            STEPS,
            EPOCHS,
            TIME,
        ):  # as the configuration now says, which may have been raised
            self.reason = ""
        if self.reason:
            _stop(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins; lightning calls every other callback before a `Checkpoint`, so that all of them
        have refused what they do.

        A run that goes on from the last step of a shorter one goes on with the next epoch, where
        that step ended one.

        Lightning takes an epoch for ended only once the validation at its end has run in this
        process, and would take one more batch into the old one. Validated by steps, the loop begins
        anew; by epochs, it finds its validation due.
        """
        self._now()
        loop = trainer.fit_loop.epoch_loop
        if not loop.batch_progress.is_last_batch or not self.validated == trainer.global_step > 0:
            return
        if trainer.check_val_every_n_epoch is None:
            loop.restarting = False
        else:
            self._interval = trainer.check_val_every_n_epoch
            trainer.check_val_every_n_epoch = 1

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._interval:
            trainer.check_val_every_n_epoch = self._interval
            self._interval = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        if self._leaving:
            raise _time_up(trainer)
        _count_epochs(trainer)
        self.epochs = trainer.fit_loop.epoch_progress.current.processed + 1

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        self._asked |= trainer.should_stop
        trainer.should_stop = self._asked and whole_step(
            trainer
        )  # no checkpoint holds a part of a step
        loop = trainer.fit_loop
        epochs = (
            loop.epoch_progress.current.processed + loop.epoch_loop._num_ready_batches_reached()
        )
        reason = why(trainer, epochs) if whole_step(trainer) else ""
        if reason == TIME and _ends_otherwise(trainer):
            self._pause(trainer)
        elif reason:
            self.reason = reason
            _stop(trainer)
            if not trainer.enable_validation:
                Last().save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self.validated = trainer.global_step
        # a callback that looks at validations
        if not self.reason and not self._leaving and trainer.should_stop:
            self.reason = why(trainer, trainer.fit_loop.epoch_progress.current.processed)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that ended at the end of an epoch has seen neither a validation nor a
        checkpoint.
        """
        if self.reason:
            return
        self.reason = why(trainer, trainer.fit_loop.epoch_progress.current.processed)
        if self.reason == TIME and _ends_otherwise(trainer):
            self.reason = ""
            Last().save(trainer)
            raise _time_up(trainer)
        if not self._validate(trainer):
            Last().save(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """For a run that had come to its end already, nothing else is called; it may be that it was
        not validated there.
        """
        self.reason = self.reason or why(trainer, trainer.fit_loop.epoch_progress.current.processed)
        if self.reason and trainer.global_step:
            self._now()
            self._validate(trainer)

    def _now(self) -> None:
        begin = self._begin
        self._begin = None
        if begin is not None:
            begin()

    def _validate(self, trainer: Trainer) -> bool:
        """Validates the step that the training is at, unless that is done or turned off; whether it
        did.
        """
        if not trainer.enable_validation or self.validated == trainer.global_step:
            return False
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.run()
        trainer.training = True
        return True

    def _pause(self, trainer: Trainer) -> None:
        """Ends this attempt, after the validation if one is due at this step."""
        loop = trainer.fit_loop
        trainer.should_stop = self._asked = False
        assert loop._data_fetcher is not None
        self._leaving = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
        if not self._leaving:
            Last().save(trainer)
            raise _time_up(trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if _ends_otherwise(trainer):
            for timer in _timers(trainer):
                checkpoint["callbacks"].pop(timer.state_key, None)

    def state_dict(self) -> dict[str, Any]:
        return {
            "reason": self.reason,
            "validated": self.validated,
            "epochs": self.epochs,
            "stopping": self.stopping,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.reason = state_dict["reason"]
        self.validated = state_dict["validated"]
        self.epochs = state_dict.get("epochs", 0)
        self.goes_on |= state_dict.get("stopping", self.stopping) != self.stopping


def why(trainer: Trainer, epochs: int) -> str:
    """The key that ends the training after so many epochs; empty if nothing does."""
    loop = trainer.fit_loop
    if 0 <= trainer.max_steps <= trainer.global_step:
        return STEPS
    if 0 <= (-1 if trainer.max_epochs is None else trainer.max_epochs) <= epochs:
        return EPOCHS
    if not (trainer.should_stop and loop._can_stop_early):
        return ""
    for each in trainer.callbacks:
        if isinstance(each, EarlyStopping) and each.stopping_reason_message:
            return f"{EARLY}: {each.stopping_reason_message.removesuffix(' Signaling Trainer to stop.')}"
    if ended_by := getattr(trainer.lightning_module, "ended_by", ""):
        return str(ended_by)
    return (
        TIME if any((timer.time_remaining() or 0) <= 0 for timer in _timers(trainer)) else CALLBACK
    )


def _count_epochs(trainer: Trainer) -> None:
    """Lightning's count of epochs falls behind with each continuation at an epoch's end; that of
    batches does not.
    """
    loop = trainer.fit_loop
    if loop.max_batches == float("inf"):
        return
    finished = int(loop.epoch_loop.total_batch_idx // loop.max_batches)
    for progress in (loop.epoch_progress.total, loop.epoch_progress.current):
        progress.ready = progress.started = finished + 1
        progress.processed = progress.completed = finished


def _stop(trainer: Trainer) -> None:
    """Makes this step the last, with a validation, whatever the intervals and the least numbers of
    steps are.
    """
    trainer.should_stop = True
    trainer.check_val_every_n_epoch = 1
    trainer.fit_loop.min_epochs = None
    trainer.fit_loop.epoch_loop.min_steps = None


def _ends_otherwise(trainer: Trainer) -> bool:
    return trainer.max_steps >= 0 or (trainer.max_epochs is not None and trainer.max_epochs >= 0)


def _timers(trainer: Trainer) -> list[Timer]:
    return [
        each for each in trainer.callbacks if isinstance(each, Timer) and each._duration is not None
    ]


def _time_up(trainer: Trainer) -> TimeUpError:
    until = (
        f"{STEPS}={trainer.max_steps}"
        if trainer.max_steps >= 0
        else f"{EPOCHS}={trainer.max_epochs}"
    )
    sentence = f"stopped by {TIME} at step {trainer.global_step}, before {until}; the same command continues from there"
    return TimeUpError(sentence)
