"""A finished run, from its folder: its configuration is the constructor call, its checkpoint the
state.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.nn import Module

from jensen.base.errors import InputError, check_choice
from jensen.base.files import within
from jensen.callbacks.durable import read
from jensen.callbacks.events import files, rewind
from jensen.callbacks.last import previous
from jensen.model.vae import VAE
from jensen.run.reading import configuration
from jensen.run.trust import build
from jensen.run.words import say

CHECKPOINTS = ("last", "best", "last.previous")


def state(run: str | Path, checkpoint: str = "last") -> dict[str, Any]:
    """A checkpoint of the run, `last`, `best` or `last.previous`, on the CPU; tensors and plain
    values only.

    Raises:
        InputError: another name, or no such file, or one that is torn; it names one that is whole.
    """
    check_choice("checkpoint", checkpoint, CHECKPOINTS)
    path = Path(run).expanduser() / "checkpoints" / f"{checkpoint}.ckpt"
    within(Path(run).expanduser(), path)
    if not path.is_file():
        how = (
            "a run that was validated, with callbacks.best"
            if checkpoint == "best"
            else "a run that was trained a step"
            if checkpoint == "last"
            else "a run that was saved twice"
        )
        raise InputError(
            f"{path} is missing: expected {how}; train it further, or take another of"
            f" {', '.join(CHECKPOINTS)}"
        )
    try:
        return read(path)
    except InputError as error:
        if whole := [name for name in CHECKPOINTS[::-1] if _is_whole(path.parent / f"{name}.ckpt")]:
            raise InputError(f"{error}, or take checkpoint={whole[0]}") from error
        raise


def _is_whole(path: Path) -> bool:
    """Tell whether a checkpoint can be read."""
    try:
        read(path)
    except InputError:
        return False
    return True


class Resumed(NamedTuple):
    """The place that training goes on from.

    checkpoint: None starts it. set_back: sets the event files that there are by now back to the
        checkpoint, and puts a torn
    `last.ckpt` aside as `last.torn.ckpt`; to be called once it is sure that training goes on.
    """

    checkpoint: Path | None
    set_back: Callable[[], None]


def resume_from(folder: Path) -> Resumed:
    """The place that training in `folder` goes on from: `last.ckpt`, or the one before it where
    that is torn. Nothing is changed.

    Raises:
        InputError: there are checkpoints and all are torn.
    """
    last = folder / "checkpoints" / "last.ckpt"
    torn: list[str] = []
    for path in filter(Path.exists, (last, previous(last))):
        try:
            saved = read(path)
        except InputError as error:
            torn.append(str(error).partition(": expected")[0])
            continue
        if torn:
            say(f"{torn[0]}: going on from {path.name}, of step {saved['global_step']}")
        return Resumed(
            path, partial(_set_back, files(folder), saved.get("events"), last if torn else None)
        )
    if torn:
        raise InputError(
            f"{' and '.join(torn)}: expected a whole checkpoint; restore one, or train in another"
            " folder"
        )
    return Resumed(None, partial(_set_back, files(folder), {}))


@rank_zero_only
def _set_back(before: list[Path], sizes: dict[str, int] | None, torn: Path | None = None) -> None:
    """Set back to a checkpoint: None of those that do not know the event files."""
    if sizes is not None:
        rewind(before, sizes)
    if torn is not None and torn.exists():
        torn.replace(torn.with_name(f"{torn.stem}.torn{torn.suffix}"))


def restored(
    run: str | Path, checkpoint: str = "last", trust: str | Sequence[str] = ()
) -> tuple[LightningModule, int]:
    """The run's algorithm with the state of a checkpoint, in evaluation mode, and the checkpoint's
    step.

    `trust` names modules of yours that the run is made of (`trust.build`).

    Raises:
        InputError: as above, or the checkpoint is of another configuration.
    """
    cfg = configuration(run)
    algorithm = build(cfg, "algorithm", LightningModule, trust)
    saved = state(run, checkpoint)
    if is_double(cfg):
        algorithm.double()
    try:
        algorithm.load_state_dict(saved["state_dict"])
    except (KeyError, RuntimeError, TypeError) as error:
        raise InputError(
            f"{run}/checkpoints/{checkpoint}.ckpt does not fit the model of .hydra/config.yaml:"
            " expected the checkpoint of that configuration; restore the file that belongs to it"
        ) from error
    return algorithm.eval(), int(saved["global_step"])


def load(
    run: str | Path, checkpoint: str = "last", trust: str | Sequence[str] = ()
) -> tuple[VAE, int]:
    """The trained model of a run, and the step of its checkpoint.

    Of `trainer.precision=64-true` it computes in float64, and takes float32 too.
    """
    algorithm: Any
    algorithm, step = restored(run, checkpoint, trust)
    model: VAE = algorithm.model
    return take_float32(model) if is_double(configuration(run)) else model, step


def take_float32(model: VAE) -> VAE:
    """Have a model of float64 take numbers of float32 too."""
    for network in filter(None, (getattr(model, name, None) for name in ("encoder", "decoder"))):
        network.register_forward_pre_hook(_as_double)
    return model


def is_double(cfg: DictConfig) -> bool:
    """Tell whether the run computes in float64."""
    return str(OmegaConf.select(cfg, "trainer.precision")) == "64-true"


def _as_double(network: Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The rounding of a float64 model's inputs that come as float32."""
    return tuple(each.double() for each in given)
