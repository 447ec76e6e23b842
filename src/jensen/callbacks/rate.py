"""The learning rate as a curve."""

from pytorch_lightning import Callback, LightningModule, Trainer


class LearningRate(Callback):
    """Logs the learning rate of each group of parameters on steps that are logged, as `train/lr`,
    `train/lr_1` and so on.

    Lightning's `LearningRateMonitor` counts batches that have stepped, which falls behind the steps
    where a run goes on from its end.
    """

    def __init__(self) -> None:
        self._step = -1

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step % trainer.log_every_n_steps or step == self._step:  # one of several batches
            return
        self._step = step
        groups = (group for each in trainer.optimizers for group in each.param_groups)
        rates = [float(group["lr"]) for group in groups if "lr" in group]
        tagged = {
            f"train/lr_{place}" if place else "train/lr": lr for place, lr in enumerate(rates)
        }
        for logger in trainer.loggers if rates else ():
            logger.log_metrics(tagged, step)
