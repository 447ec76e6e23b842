"""Lightning's trainer as a run needs it, or a sentence where it would do something else than was
asked.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from torch import Tensor

from jensen.base.errors import InputError, RefusedError
from jensen.base.ranks import processes
from jensen.callbacks.agree import Agree
from jensen.callbacks.best import Best
from jensen.callbacks.end import End
from jensen.callbacks.events import Events
from jensen.callbacks.last import Last
from jensen.callbacks.preempt import Preempt
from jensen.callbacks.sought import Sought
from jensen.callbacks.tell import Tell
from jensen.callbacks.words import RANKS
from jensen.launch import conflicts, elastic, slurm
from jensen.launch.loggers import make as loggers_of
from jensen.launch.loggers import unkept
from jensen.run.words import rank, say

_TOLD = ("experiment", "data", "model", "objective")
"""Groups that a run's first line names."""


def make(cfg: DictConfig, folder: Path, end: End) -> Trainer:
    """A trainer with the callbacks of `cfg`, `end`, and those without which a run loses
    work.

    Raises:
        InputError: ranks that are not those of the job, or would repeat a sweep; a precision that
            there is not here.
        RefusedError: the environment has the rank of another process.
    """
    told = rank()  # before Lightning may set another
    loggers = loggers_of(cfg, folder)
    chosen = {
        str(name): each for name, each in instantiate(cfg.callbacks).items() if each is not None
    }
    conflicts.check(chosen)
    sought = [] if cfg.maximise is None else [Sought(str(cfg.maximise))]
    callbacks = in_order([*chosen.values(), *sought], end)
    slurm.check_tasks()
    elastic.join()
    given: dict[str, Any] = {
        "default_root_dir": folder,
        "logger": loggers or False,
        "callbacks": callbacks,
    }
    if not any(isinstance(each, ProgressBar) for each in callbacks):
        given |= {"enable_progress_bar": cfg.trainer.get("enable_progress_bar", False)}
    trainer: Trainer = instantiate(
        cfg.trainer, **given, _convert_="all"
    )  # a duration is a dict, devices are a list
    slurm.check_ranks(trainer)
    check_left(trainer)
    refuse_stray_rank(trainer, told)
    check_precision(trainer, cfg.trainer.precision)
    check_batch_norm(trainer, cfg.trainer.get("sync_batchnorm", False))
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        refuse_ranks(trainer)
    for sentence in unread(cfg, trainer):
        say(sentence)
    return trainer


def in_order(chosen: Sequence[Callback], end: End) -> list[Callback]:
    """Callbacks as Lightning is to call them: a user's `Checkpoint` may ask for an end, on which the
    ranks agree before `end` looks, and its state is in the last.ckpt that comes after it.
    """
    own = [each for each in chosen if isinstance(each, Checkpoint) and not _is_ours(each)]
    ours = [each for each in chosen if each not in own]
    callbacks = [*own, Agree(), end, *ours, telling()]
    for kind in (Last, Events, Preempt):
        if not any(isinstance(each, kind) for each in callbacks):
            callbacks.append(kind())
    return callbacks


def _is_ours(each: Callback) -> bool:
    """Tell whether a checkpoint is one that knows of `End`, or a subclass that must come after it."""
    return isinstance(each, (Last, Preempt)) or type(each) is Best


def refuse_stray_rank(trainer: Trainer, told: str) -> None:
    """Refuse a process that the environment calls another rank than zero, and the trainer zero: half
    of what writes would not.
    """
    if told == "0" or trainer.global_rank:
        return
    name = next((each for each in RANKS if os.environ.get(each) == told), "the rank")
    raise RefusedError(
        f"{name} is {told} in the environment, but the trainer takes this process for rank 0"
        f" (trainer.devices={trainer.num_devices}): expected one number; unset {name}, or start all"
        " ranks by srun or torchrun"
    )


def telling() -> Tell:
    """The lines of a run; of one in a sweep they go to its log."""
    started = HydraConfig.get() if HydraConfig.initialized() else None
    chosen = started.runtime.choices if started else {}
    task = started.overrides.task if started else ()
    words = dict(word.partition("=")[::2] for word in task)
    own = {group: words.get(f"{group}._target_") for group in _TOLD}
    named = [f"{group}={own[group] or chosen[group]}" for group in _TOLD if chosen.get(group)]
    return Tell(" ".join(named), started is not None and started.mode == RunMode.MULTIRUN)


def unread(cfg: DictConfig, trainer: Trainer) -> list[str]:
    """Parts that are configured but nothing makes use of, and what the run will not leave for want
    of a part; a sentence each.

    Raises:
        InputError: `maximise` names what is then not there.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    run = {name for each in callbacks for name in getattr(each, "diagnostics", ())}
    own = any(
        not type(each).__module__.startswith(("jensen.", "pytorch_lightning."))
        for each in callbacks
    )
    idle = (
        []
        if own
        else [
            name for name, each in cfg.diagnostics.items() if each is not None and name not in run
        ]
    )
    sought = str(cfg.maximise).split("/")[0]
    if sought in idle or (sought == "val" and not trainer.limit_val_batches):
        why = (
            "trainer.limit_val_batches is 0"
            if sought == "val"
            else "callbacks has no diagnose to run it"
        )
        raise InputError(
            f"maximise is {cfg.maximise} but {why}: expected a result of this run; change one of"
            " them"
        )
    found = []
    if idle:
        found.append(
            f"diagnostics has {', '.join(idle)} but callbacks has no diagnose to run them: none is"
            " run; add it to callbacks=[...] or set diagnostics=[], and python -m jensen.evaluate"
            " runs any of them afterwards"
        )
    if sentence := unkept(trainer.loggers):
        found.append(sentence)
    if not any(
        isinstance(each, Checkpoint) and not isinstance(each, (Agree, End, Last, Preempt))
        for each in callbacks
    ):
        found.append(
            "callbacks has no best: last.ckpt is kept alone, and no best.ckpt;"
            " callbacks=[checkpoint,...] keeps both"
        )
    return found


def check_precision(trainer: Trainer, asked: str) -> None:
    """Refuse what the accelerator cannot do: Lightning would do something else and warn."""
    if asked == "16-mixed" != trainer.precision:
        raise InputError(
            f"trainer.precision is {asked} but the {trainer.strategy.root_device.type} would"
            f" compute in {trainer.precision}:"
            f" expected trainer.precision={trainer.precision}, 32-true, or a GPU"
        )


def check_batch_norm(trainer: Trainer, shared: bool) -> None:
    """Refuse ranks on CPUs that are to share their batch norm, of which torch has none."""
    if shared and trainer.world_size > 1 and trainer.strategy.root_device.type == "cpu":
        raise InputError(
            "trainer.sync_batchnorm is true but the ranks are on CPUs: expected GPUs, of which torch"
            " alone has a batch norm of all ranks; leave it out, or take one rank"
        )


def check_left(trainer: Trainer) -> None:
    """Refuse another number of ranks than an earlier fit has left: each of them goes on with the
    program, and each would train.
    """
    rank, left = processes()
    if left not in (1, trainer.world_size):
        raise InputError(
            f"trainer.devices asks for {trainer.world_size} rank{'s' * (trainer.world_size > 1)} but"
            f" this process is rank {rank} of {left} that an earlier fit of this program has left:"
            f" expected {left} again; make this fit in a program of its own"
        )


def refuse_ranks(trainer: Trainer) -> None:
    """A process that starts its own ranks repeats its whole command line in each, and so the
    sweep.
    """
    environment = getattr(
        trainer.strategy, "cluster_environment", None
    )  # SLURM and torchrun have started the ranks
    if trainer.strategy.launcher is None or (
        environment and environment.creates_processes_externally
    ):
        return
    raise InputError(
        "trainer.strategy starts ranks of its own, and in a sweep each would repeat the whole"
        " sweep: expected"
        " hydra/launcher=subprocess, or ranks that SLURM or torchrun start, or trainer.devices=1"
    )


def validate_again(
    trainer: Trainer, algorithm: LightningModule, data: LightningDataModule
) -> dict[str, Tensor]:
    """The results of a validation that are logged already."""
    loggers = trainer.loggers
    trainer.loggers = []
    trainer.validate(algorithm, data, verbose=False)
    trainer.loggers = loggers
    return dict(trainer.callback_metrics)


def check_end(trainer: Trainer, end: End) -> None:
    """Raises: InputError: the training ended without a step, or before its end."""
    if trainer.global_step and end.reason:
        return
    ends = ("max_steps", "max_epochs", "limit_train_batches")
    found = ", ".join(f"trainer.{name} {getattr(trainer, name)}" for name in ends)
    raise InputError(
        f"training ended at step {trainer.global_step} ({found}): expected at least one step, and"
        " the end that is configured; raise what ends it"
    )
