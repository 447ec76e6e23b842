"""The bar: how far the training is, what it has come to, and how long it will take."""

import sys
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from jensen.base.errors import check_count

SHOWN = ("loss", "elbo", "rate")
_KNOWN_END = "step {n_fmt}/{total_fmt} |{bar:20}| {remaining} left{postfix}"
_OPEN_END = "step {n_fmt}, {elapsed}{postfix}"


class Progress(ProgressBar):
    """One bar for the whole training, on standard error where that is a terminal, from rank zero.

    Its numbers are of the last step that was logged (`trainer.log_every_n_steps`).

    Args:
        refresh_rate: batches from one look at the clock to the next; 0 shows no bar.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        check_count("refresh_rate", refresh_rate, least=0)
        self.refresh_rate = refresh_rate
        self._bar: tqdm[Any] | None = None

    def disable(self) -> None:
        self._close()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seen = trainer.is_global_zero and sys.stderr.isatty()
        if not seen or not self.refresh_rate:
            return
        total = last_step(trainer)
        self._bar = tqdm(
            total=total,
            initial=trainer.global_step,
            bar_format=_KNOWN_END if total else _OPEN_END,
            dynamic_ncols=True,
            leave=False,
        )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._bar is None or (batch_idx + 1) % self.refresh_rate:
            return
        terms = getattr(pl_module, "latest", {})
        told = [f"{name} {terms[name]:.2f}" for name in SHOWN if name in terms]
        self._bar.set_postfix_str(", ".join(told), refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def last_step(trainer: Trainer) -> int | None:
    """The step at which the training ends at the latest; None where only another thing ends it."""
    steps = [trainer.max_steps] if trainer.max_steps > 0 else []
    epoch = trainer.num_training_batches / trainer.accumulate_grad_batches
    if trainer.max_epochs is not None and trainer.max_epochs > 0 and epoch < float("inf"):
        steps.append(int(trainer.max_epochs * epoch))
    return min(steps, default=None)
