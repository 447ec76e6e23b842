"""TensorBoard's logger as a run has it."""

from lightning_fabric.loggers import TensorBoardLogger as Fabrics
from pytorch_lightning import loggers
from pytorch_lightning.utilities.rank_zero import rank_zero_only


class TensorBoardLogger(loggers.TensorBoardLogger):
    """Lightning's, without an empty `hparams.yaml`: what a run was composed of is in `.hydra`."""

    @rank_zero_only
    def save(self) -> None:
        if self.hparams:
            super().save()
        else:
            Fabrics.save(self)
