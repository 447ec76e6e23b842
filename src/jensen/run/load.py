"""A finished run, from its folder: its configuration is the constructor call, its checkpoint the
state.
"""

import pickle
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.nn import Module

from jensen.base.errors import InputError, check_choice
from jensen.callbacks.durable import read, within
from jensen.callbacks.events import files, rewind
from jensen.callbacks.last import previous
from jensen.model.vae import VAE
from jensen.run import expansion
from jensen.run.trust import build
from jensen.run.words import said, say

CHECKPOINTS = ("last", "best", "last.previous")


LARGEST = 1 << 20
"""Bytes of a file of settings. One of jensen.train's has some 10,000; reading takes seconds a
megabyte.
"""
_DEEPEST = 100


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """OmegaConf's reading of YAML by libyaml, where that is there: many times as fast."""

    yaml_implicit_resolvers = get_yaml_loader().yaml_implicit_resolvers
    yaml_constructors = get_yaml_loader().yaml_constructors

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if len({*keys}) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.YAMLError(f"it has {twice} twice")
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return found


def read_tree(path: Path) -> dict[Any, Any]:
    """The mapping that a file of settings holds, as it is written; empty where it holds another
    thing.

    Raises:
        InputError: the file is torn, or what jensen.train does not write and a few of which fill
            memory: aliases, deep nesting, or more than `LARGEST` bytes.
    """
    with _reading(path):
        if not path.is_file():
            raise OSError("it is no file")
        if (size := path.stat().st_size) > LARGEST:
            raise yaml.YAMLError(f"it has {size:,} bytes")
        text = path.read_text()
        depth = 0
        for event in _events(text):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
                event, yaml.CollectionEndEvent
            )
            if isinstance(event, yaml.AliasEvent):
                raise yaml.YAMLError("it has aliases")
            if depth > _DEEPEST:
                raise yaml.YAMLError("it is nested too deep")
        found = yaml.load(text, Loader=_Loader)
        if not isinstance(found, dict | list | str | None):
            raise yaml.YAMLError(f"it holds {found!r}")
        return found if isinstance(found, dict) else {}


def _events(text: str) -> Iterator[yaml.Event]:
    """The parts of a file of settings; libyaml has a limit of its own to their nesting."""
    try:
        yield from yaml.parse(text, Loader=_Loader)
    except yaml.YAMLError as error:
        if "increasing flow level" not in str(error):
            raise
        raise yaml.YAMLError("it is nested too deep") from error


def read_yaml(path: Path) -> DictConfig:
    """As `read_tree`; nothing in it is resolved."""
    tree = read_tree(path)
    with _reading(path):
        return OmegaConf.create(tree)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        OSError,
        ValueError,
        TypeError,
        AssertionError,
        RecursionError,
        yaml.YAMLError,
        OmegaConfBaseException,
    ) as error:
        raise InputError(
            f"{path} cannot be read ({said(error)}): expected what jensen.train wrote; take"
            " another folder"
        ) from error


def configuration(run: str | Path) -> DictConfig:
    """The choices that the run was composed of.

    Raises:
        InputError: `run` is not the folder of a run, or its configuration is torn.
    """
    path = Path(run).expanduser() / ".hydra" / "config.yaml"
    tree = written_tree(run)
    with _reading(path):
        return OmegaConf.create(tree)


def written_tree(run: str | Path) -> dict[Any, Any]:
    """The same as plain mappings and lists, which are read in a tenth of the time.

    Raises:
        InputError: as `configuration`.
    """
    path = Path(run).expanduser() / ".hydra" / "config.yaml"
    within(Path(run).expanduser(), path)
    if not path.is_file():
        raise InputError(
            f"run={run} has no .hydra/config.yaml: expected the folder of a run of jensen.train"
        )
    tree = read_tree(path)
    expansion.check(tree, path)
    if "algorithm" not in tree or "data" not in tree:
        raise InputError(
            f"{path} configures no algorithm and data: expected what jensen.train wrote; take"
            " another folder"
        )
    return tree


def state(run: str | Path, checkpoint: str = "last") -> dict[str, Any]:
    """A checkpoint of the run, `last`, `best` or `last.previous`, on the CPU; tensors and plain
    values only.

    Raises:
        InputError: another name, or no such file, or one that is torn.
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
    return read(path)


def saved_step(run: str | Path) -> int | None:
    """The step of `last.ckpt`, without reading its tensors; None where there is none, or one that
    is torn.
    """
    try:
        path = Path(run) / "checkpoints" / "last.ckpt"
        within(Path(run), path)
        with zipfile.ZipFile(path) as archive:
            (name,) = (each for each in archive.namelist() if each.endswith("/data.pkl"))
            with archive.open(name) as file:
                return int(_Outline(file).load()["global_step"])
    except Exception:  # a torn archive may fail anywhere in it
        return None


class _Blank(dict[Any, Any]):
    """Stands for whatever a pickle would make: it takes anything, and does nothing."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__()

    def __call__(self, *given: Any, **named: Any) -> "_Blank":
        return self

    def __setstate__(self, state: Any) -> None:
        pass


class _Outline(pickle.Unpickler):
    """The plain values of a checkpoint, by their keys; of tensors and all else that would be made
    by a call, blanks. Nothing of it is run, and what names other things than tensors is refused, as
    loading it would be.
    """

    def find_class(self, module: str, name: str) -> type[_Blank]:
        if module.partition(".")[0] not in ("torch", "collections"):
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _Blank

    def persistent_load(self, pid: Any) -> _Blank:
        return _Blank()


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
    """As of a checkpoint: None of those that do not know the event files."""
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
