"""The loggers of a run, or a sentence where one cannot be made or two would write one file."""

import os
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig
from pytorch_lightning.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)

from jensen.base.errors import InputError
from jensen.callbacks.sinks import NAMES, left_out
from jensen.callbacks.table import CSV
from jensen.run.record import get_json
from jensen.run.words import said

PACKAGES = {WandbLogger: "wandb", MLFlowLogger: "mlflow"}
"""Packages that Lightning's loggers need; the extra of each has its name."""
_wandb: list[WandbLogger] = []


def make(cfg: DictConfig, folder: Path) -> list[Logger]:
    """The loggers of `cfg.logger`, which write to `folder` unless they are told otherwise.

    Raises:
        InputError: one that is none, whose package is missing, that cannot begin, or that would
            write another's file.
    """
    found: dict[str, Logger] = {}
    for name, part in cfg.logger.items():
        if part is not None:
            found[str(name)] = _one(str(name), part, folder.absolute())
    _refuse_shared(found)
    for name, logger in found.items():
        _begin(name, logger)
    return [*found.values()]


def _one(name: str, part: Any, folder: Path) -> Logger:
    if not isinstance(part, DictConfig) or "_target_" not in part:
        raise InputError(
            f"logger.{name} is {part!r}: expected loggers by name, such as logger=[tensorboard,csv]"
            " or +logger.mine._target_=my.Logger"
        )
    made = _known(part)
    for kind, package in PACKAGES.items():
        if made is kind and find_spec(package) is None:
            raise InputError(
                f"logger.{name} needs the package {package}, which is not installed: expected it;"
                f" pip install 'jensen[{package}]'"
            )
    given = {} if made is None else _places(made, part, folder)
    logger = instantiate(part, **given)
    if not isinstance(logger, Logger):
        raise InputError(
            f"logger.{name} is {part['_target_']}, which makes no logger of Lightning's: expected"
            " one, such as logger=tensorboard"
        )
    return logger


def _known(part: DictConfig) -> Any:
    """The class or function that makes a logger; None of one that cannot be found, of which Hydra
    says more.
    """
    try:
        return get_object(str(part["_target_"]))
    except Exception:
        return None


def _places(made: Any, part: DictConfig, folder: Path) -> dict[str, Any]:
    """The arguments that say where and as what a logger keeps this run, but for those that are
    set.
    """
    names = get_json(folder / NAMES)
    given: dict[str, Any] = {"save_dir": str(folder)}
    if made is WandbLogger:
        given |= {"name": folder.name, "id": names.get("WandbLogger")}
    if made is MLFlowLogger:
        local = (folder / "mlruns").as_uri()
        uri = part.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI") or local
        given |= {"run_name": folder.name, "run_id": names.get("MLFlowLogger")}
        given["tracking_uri"] = uri
        if uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # it asks for a database
    try:
        takes = signature(made).parameters
    except (TypeError, ValueError):
        return {}
    return {key: each for key, each in given.items() if key in takes and part.get(key) is None}


def _begin(name: str, logger: Logger) -> None:
    """Have a logger of others say now whether it can be reached; Lightning would, a moment later."""
    if not isinstance(logger, WandbLogger | MLFlowLogger):
        return
    try:
        if isinstance(logger, WandbLogger):
            _end_before()
            _wandb.append(logger)
        logger.experiment  # noqa: B018
    except Exception as error:
        raise InputError(
            f"logger.{name} cannot begin ({said(error)}): expected a place that it can write to;"
            " wandb writes to the run's folder by logger.wandb.offline=true, mlflow by"
            " logger.mlflow.tracking_uri=null"
        ) from error


def _end_before() -> None:
    """Ends the run of Weights & Biases that the run before in this process has begun: it would be
    taken for this one's.
    """
    import wandb

    for before in _wandb:
        if before._experiment is not None and before._experiment is wandb.run:
            wandb.finish()
    _wandb.clear()


def _refuse_shared(loggers: dict[str, Logger]) -> None:
    """Refuse two that write one file, or one run."""
    writers: dict[str, str] = {}
    for name, logger in loggers.items():
        target = _target(logger)
        if target and target in writers:
            raise InputError(
                f"logger.{writers[target]} and logger.{name} both write {target}: expected one of"
                f" them; leave the other out, as by logger.{name}=null"
            )
        writers[target] = name


def _target(logger: Logger) -> str:
    """The file that a logger writes; empty where it has its own in any case."""
    if isinstance(logger, TensorBoardLogger):
        suffix = logger._kwargs.get("filename_suffix", "")
        return str(Path(logger.log_dir) / f"events.out.tfevents.*{suffix}")
    if isinstance(logger, CSV):
        return str(logger.path)
    if isinstance(logger, CSVLogger):
        return str(Path(logger.log_dir) / "metrics.csv")
    return "the one run of wandb that a process has" if isinstance(logger, WandbLogger) else ""


def unkept(loggers: list[Logger]) -> str:
    """One sentence on what no logger of a run keeps, or does not keep exactly; empty where all
    is.
    """
    kinds = [type(logger).__name__ for logger in loggers]
    if not loggers:
        return (
            "there is no logger: numbers and pictures of the training are kept nowhere, the last"
            " validation's numbers in scores.json"
        )
    least = min((left_out(logger) for logger in loggers), key=len)
    exact = all(isinstance(logger, TensorBoardLogger | CSV) for logger in loggers)
    found = []
    if least:
        found.append(
            f"logger is {' and '.join(kinds)}, which keeps no {least}: they are left out;"
            " logger=[tensorboard,...] keeps them too"
        )
    if not exact:
        foreign = [
            type(logger).__name__
            for logger in loggers
            if not isinstance(logger, TensorBoardLogger | CSV)
        ]
        found.append(
            f"what {' and '.join(foreign)} has is not cut back when a killed run goes on: the steps"
            " after its checkpoint are there twice"
        )
    return "; and ".join(found)
