"""The number that a sweeper raises, `maximise`, refused as soon as it is known that there is none."""

from typing import Any, cast

from pytorch_lightning import Callback, LightningModule, Trainer

from jensen.base.errors import InputError, check_choice

_OURS = ("jensen.", "pytorch_lightning.")


class Sought(Callback):
    """Refuses a `maximise` that the run will not have.

    Before the first step, where it is one of `val/...` or `test/...`. Which numbers a diagnostic gives
    only a validation tells: the first does, and the checkpoint that follows it is where the run goes on
    under another `maximise`. Where a callback or an algorithm of a user's may log numbers of its own,
    that is so of all.

    Args:
        maximise: the number, as a validation or a diagnostic tags it.
    """

    def __init__(self, maximise: str) -> None:
        self.maximise = maximise
        self._validated = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        group = self.maximise.partition("/")[0]
        if group not in ("val", "test") or not _is_ours(trainer):
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        tested = data.source.validation and "test" in data.source.splits
        groups = ("val", "test") if tested else ("val",)
        if group not in groups:
            raise InputError(
                f"maximise is {self.maximise} but the data have no test split beside what is validated"
                f" on: expected a result of the validation; set maximise={self.maximise.replace('test', 'val', 1)}"
            )
        names = cast(Any, pl_module).held_out_names(data.show(1))
        check_choice(
            "maximise", self.maximise, [f"{each}/{name}" for each in groups for name in names]
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Look at the first validation once what it leads to is saved."""
        if not self._validated:
            return
        self._validated = False
        if not self.maximise.startswith("test/"):
            known = [name for name in trainer.callback_metrics if not name.startswith("train/")]
            check_choice("maximise", self.maximise, known)


def _is_ours(trainer: Trainer) -> bool:
    """Tell whether no part of a user's own may log numbers."""
    parts = [trainer.lightning_module, *trainer.callbacks]  # type: ignore[attr-defined]
    return all(type(each).__module__.startswith(_OURS) for each in parts)
