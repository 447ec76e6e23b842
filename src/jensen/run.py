"""A finished run, from its folder: its configuration is the constructor call, its checkpoint the state."""

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from jensen.core.errors import InputError, check_choice
from jensen.model.vae import VAE

CHECKPOINTS = ("last", "best")


def configuration(run: str | Path) -> DictConfig:
    """What the run was composed of.

    Raises:
        InputError: `run` is not the folder of a run.
    """
    path = Path(run).expanduser() / ".hydra" / "config.yaml"
    if not path.is_file():
        raise InputError(f"run={run} has no .hydra/config.yaml: expected the folder of a run of jensen.train")
    cfg = OmegaConf.load(path)
    if not isinstance(cfg, DictConfig) or "algorithm" not in cfg or "data" not in cfg:
        raise InputError(f"{path} configures no algorithm and data: expected what jensen.train wrote; take another folder")
    return cfg


def state(run: str | Path, checkpoint: str = "last") -> dict[str, Any]:
    """The run's `last` or `best` checkpoint, on the CPU; tensors and plain values only.

    Raises:
        InputError: another name, or no such file, or one that is torn.
    """
    check_choice("checkpoint", checkpoint, CHECKPOINTS)
    path = Path(run).expanduser() / "checkpoints" / f"{checkpoint}.ckpt"
    if not path.is_file():
        raise InputError(f"{path} is missing: expected a run that was validated at least once; run it again, it continues")
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a torn archive may fail anywhere in it
        found = type(error).__name__
        raise InputError(f"{path} cannot be read ({found}): expected a whole checkpoint; try the other one") from error


def restored(run: str | Path, checkpoint: str = "last") -> tuple[Any, int]:
    """The run's algorithm with the state of a checkpoint, in evaluation mode, and the checkpoint's step.

    Raises:
        InputError: as above, or the checkpoint is of another configuration.
    """
    algorithm = instantiate(configuration(run).algorithm)
    saved = state(run, checkpoint)
    try:
        algorithm.load_state_dict(saved["state_dict"])
    except (KeyError, RuntimeError) as error:
        raise InputError(
            f"{run}/checkpoints/{checkpoint}.ckpt does not fit the model of .hydra/config.yaml: expected the checkpoint of"
            " that configuration; restore the file that belongs to it"
        ) from error
    return algorithm.eval(), int(saved["global_step"])


def load(run: str | Path, checkpoint: str = "last") -> VAE:
    """The trained model of a run: `jensen.load("runs/...").encode(x)`."""
    model: VAE = restored(run, checkpoint)[0].model
    return model
