"""Lightning's trainer as a run needs it, or a sentence where it would do something else than was asked."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning import Callback, Trainer

from jensen import elastic, slurm
from jensen.base.errors import InputError
from jensen.callbacks.end import End
from jensen.callbacks.events import Events
from jensen.callbacks.last import Last
from jensen.callbacks.preempt import Preempt


def make(cfg: DictConfig, folder: Path, end: End) -> Trainer:
    """A trainer with the callbacks of `cfg`, `end` before them, and those without which a run loses work.

    Raises:
        InputError: ranks that are not those of the job, or would repeat a sweep; a precision that there is not here.
    """
    logger = instantiate(cfg.logger, save_dir=folder)
    callbacks: list[Callback] = [end, *instantiate(cfg.callbacks).values()]
    for kind in (Last, Events, Preempt):
        if not any(isinstance(each, kind) for each in callbacks):
            callbacks.append(kind())
    slurm.check_tasks()
    elastic.join()
    trainer: Trainer = instantiate(cfg.trainer, default_root_dir=folder, logger=logger, callbacks=callbacks)
    slurm.check_ranks(trainer)
    check_precision(trainer, cfg.trainer.precision)
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        refuse_ranks(trainer)
    return trainer


def check_precision(trainer: Trainer, asked: str) -> None:
    """Where an accelerator cannot do what was asked, Lightning does something else and warns."""
    if asked == "16-mixed" != trainer.precision:
        raise InputError(
            f"trainer.precision is {asked} but the {trainer.strategy.root_device.type} would compute in {trainer.precision}:"
            f" expected trainer.precision={trainer.precision}, 32-true, or a GPU"
        )


def refuse_ranks(trainer: Trainer) -> None:
    """A process that starts its own ranks repeats its whole command line in each, and so the sweep."""
    environment = getattr(trainer.strategy, "cluster_environment", None)  # SLURM and torchrun have started the ranks
    if trainer.strategy.launcher is None or (environment and environment.creates_processes_externally):
        return
    raise InputError(
        "trainer.strategy starts ranks of its own, and in a sweep each would repeat the whole sweep: expected"
        " hydra/launcher=subprocess, or ranks that SLURM or torchrun start, or trainer.devices=1"
    )
