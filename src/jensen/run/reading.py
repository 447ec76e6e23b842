"""Files in which a run has written of itself: its choices, and the step that it was saved at.

Nothing here takes time to import.
"""

import pickle
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

from jensen.base.errors import InputError
from jensen.base.files import within
from jensen.run import expansion
from jensen.run.words import said

LARGEST = 1 << 20
"""Bytes of a file of settings. One of jensen.train's has some 10,000; reading takes seconds a
megabyte.
"""
_DEEPEST = 100


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
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


def parse(text: str) -> Any:
    """Read a text of YAML as OmegaConf would.

    Raises:
        YAMLError, ValueError: it is none, or has aliases, or is nested deep.
    """
    depth = 0
    for event in _events(text):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
            event, yaml.CollectionEndEvent
        )
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases")
        if depth > _DEEPEST:
            raise yaml.YAMLError("it is nested too deep")
    return yaml.load(text, Loader=Loader)


Parse = Callable[[str], Any]


def _events(text: str) -> Iterator[yaml.Event]:
    """The parts of a file of settings; libyaml has a limit of its own to their nesting."""
    try:
        yield from yaml.parse(text, Loader=Loader)
    except yaml.YAMLError as error:
        if "increasing flow level" not in str(error):
            raise
        raise yaml.YAMLError("it is nested too deep") from error


def read_yaml(path: Path) -> DictConfig:
    """Read as `read_tree` does; nothing in it is resolved."""
    tree = read_tree(path)
    with _reading(path):
        return OmegaConf.create(tree)


def read_tree(path: Path, parse: Parse = parse) -> dict[Any, Any]:
    """The mapping that a file of settings holds, as it is written; empty where it holds another
    thing.

    Args:
        parse: reads a text, where that is not `parse`.

    Raises:
        InputError: the file is torn, or what jensen.train does not write and a few of which fill
            memory: aliases, deep nesting, or more than `LARGEST` bytes.
    """
    with _reading(path):
        if not path.is_file():
            raise OSError("it is no file")
        if (size := path.stat().st_size) > LARGEST:
            raise yaml.YAMLError(f"it has {size:,} bytes")
        found = parse(path.read_text())
        if not isinstance(found, dict | list | str | None):
            raise yaml.YAMLError(f"it holds {found!r}")
        return found if isinstance(found, dict) else {}


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


def written_tree(run: str | Path, parse: Parse = parse) -> dict[Any, Any]:
    """The same as plain mappings and lists, which are read in a tenth of the time.

    Args:
        parse: as `read_tree`'s.

    Raises:
        InputError: as `configuration`.
    """
    path = Path(run).expanduser() / ".hydra" / "config.yaml"
    within(Path(run).expanduser(), path)
    if not path.is_file():
        raise InputError(
            f"run={run} has no .hydra/config.yaml: expected the folder of a run of jensen.train"
        )
    tree = read_tree(path, parse)
    expansion.check(tree, path)
    if "algorithm" not in tree or "data" not in tree:
        raise InputError(
            f"{path} configures no algorithm and data: expected what jensen.train wrote; take"
            " another folder"
        )
    return tree


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
