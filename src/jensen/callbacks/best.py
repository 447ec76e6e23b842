"""`checkpoints/best.ckpt`, by a number of the validation."""

import math
from pathlib import Path

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn

from jensen.base.errors import InputError, check_choice, check_text


class Best(Checkpoint):
    """Saves after a validation that is better than all before it; one that gives NaN is not.

    Its state is the best value, and no path: a run's folder may be moved, and goes on there.

    Args:
        monitor: the number, as a validation or a diagnostic tags it.
        mode: `max` where more is better, else `min`.
    """

    def __init__(self, monitor: str, mode: str = "max") -> None:
        check_text("monitor", monitor)
        check_choice("mode", mode, ("max", "min"))
        self.monitor = monitor
        self.mode = mode
        self.value = math.nan

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a number of a diagnostic that is not run; which numbers those give that are, only
        a validation tells.
        """
        run = [
            "val",
            *(name for each in trainer.callbacks for name in getattr(each, "diagnostics", ())),
        ]
        foreign = any(
            not type(each).__module__.startswith(("jensen.", "pytorch_lightning."))
            for each in trainer.callbacks
        )
        if self.monitor.split("/")[0] not in run and not foreign:
            given = ", ".join(f"{name}/..." for name in run)
            raise InputError(
                f"callbacks.best.monitor is {self.monitor}: expected one of what this run gives,"
                f" {given}"
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise InputError(
                f"callbacks.best.monitor is {self.monitor}: expected one of what a validation"
                f" gives, {known}"
            )
        value = float(trainer.callback_metrics[self.monitor])  # of all ranks, so they agree
        better = value > self.value if self.mode == "max" else value < self.value
        if better or (math.isnan(self.value) and not math.isnan(value)):
            self.value = value
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / "best.ckpt")

    def state_dict(self) -> dict[str, float]:
        return {"value": self.value}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.value = state_dict["value"]
