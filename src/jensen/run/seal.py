"""The seal of a finished run: all that a command found it finished from, as one hash.

Where it is whole, nothing has changed that the finding came of: the configuration, the package and
what it stands on, the files that the configuration names, and those of the run that say what it is.
Then the same command need neither import what trains, nor make a model, nor read the data. Where
any of that cannot be told there is no seal, and it does.

Nothing here takes time to import.
"""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jensen
from jensen.base.errors import InputError
from jensen.run.given import TARGET
from jensen.run.record import get_json, put_json

NAME = ".hydra/seal.json"
OF_A_RUN = (
    "finished.json",
    "checkpoints/last.ckpt",
    ".hydra/config.yaml",
    ".hydra/identity.json",
)
"""Files of a run that say whether it is finished, and which one it is."""
_LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "numpy")
_PARTS = ("data", "model", "objective", "algorithm")
"""Keys of what is made before a run is known to be finished."""
_KNOWN = ("jensen.", "torch.", "torchvision.", "pytorch_lightning.")
"""Packages whose code is as their version says, or is looked at here."""
_MOST = 2000
"""Files below the folders of a configuration that are looked at."""


class _DoubtError(Exception):
    """The grounds of a finding cannot be told."""


def evidence(tree: dict[str, Any], parts: Sequence[str] = _PARTS) -> str:
    """SHA-256 of all but the run's own files that a run is found finished from; empty where that
    cannot be told: code of one's own, folders of thousands of files, links.

    Args:
        tree: the resolved configuration.
        parts: its keys whose values may name files.
    """
    try:
        for target in _targets(tree):
            if not target.startswith(_KNOWN) or target == TARGET:
                raise _DoubtError
        files = [
            each for key in parts for text in _texts(tree.get(key)) for each in _named(Path(text))
        ]
    except (_DoubtError, OSError):
        return ""
    found = [tree, files, _package()]
    return hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode()).hexdigest()


def stamps(folder: Path) -> str:
    """Size and time of the files that say what a run is; empty where one is absent."""
    try:
        found = [(folder / name).stat() for name in OF_A_RUN]
    except OSError:
        return ""
    return " ".join(f"{each.st_size}@{each.st_mtime_ns}" for each in found)


def put(folder: Path, of: str) -> None:
    """Seal a run that was found finished from the evidence `of`, if there is any and it can be
    written.
    """
    entry = {"evidence": of, "stamps": stamps(folder)}
    if of and entry["stamps"] and get_json(folder / NAME) != entry:
        with suppress(InputError):
            put_json(folder / NAME, entry)


def is_whole(folder: Path, of: str) -> bool:
    """Tell whether a run was found finished from the evidence `of`, and its files are as then."""
    entry = get_json(folder / NAME)
    return bool(of) and entry == {"evidence": of, "stamps": stamps(folder)} and stamps(folder) != ""


def _targets(tree: Any) -> Iterator[str]:
    """Every `_target_` of a tree of mappings and lists; in the place of Hydra's, which get a
    function by its name, that name.
    """
    if isinstance(tree, dict):
        target = str(tree.get("_target_", "jensen."))
        yield str(tree.get("path")) if target.startswith("hydra.utils.") else target
        for each in tree.values():
            yield from _targets(each)
    for each in tree if isinstance(tree, list) else ():
        yield from _targets(each)


def _texts(tree: Any) -> Iterator[str]:
    """Every text in a tree that may be the name of a file."""
    if isinstance(tree, dict | list):
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from _texts(each)
    elif isinstance(tree, str) and tree and "\0" not in tree:
        yield tree


def _named(path: Path) -> list[tuple[str, int, int, int]]:
    """The stamps of a file that is there, or of all files below a folder; none of what is not."""
    with suppress(RuntimeError):  # of ~nobody
        path = path.expanduser()
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return []
    here = _stamp(str(path.absolute()), found)
    return [here, *_below(path)] if stat.S_ISDIR(found.st_mode) else [here]


def _below(top: Path) -> list[tuple[str, int, int, int]]:
    """The stamps of the files and folders below one, in the order of their names."""
    found: list[tuple[str, int, int, int]] = []
    for folder, folders, files in os.walk(top, onerror=_refuse):
        folders.sort()
        for name in [*folders, *sorted(files)]:
            path = Path(folder, name)
            if path.is_symlink() or len(found) >= _MOST:
                raise _DoubtError
            found.append(_stamp(str(path.relative_to(top)), path.stat()))
    return found


def _refuse(error: OSError) -> None:
    raise error


def _stamp(name: str, found: os.stat_result) -> tuple[str, int, int, int]:
    """Size, and both times: a file that was replaced may have the time of what it was copied from."""
    return name, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _package() -> list[Any]:
    """The code that this is found by: of jensen its files, of others their versions."""
    top = Path(jensen.__file__).parent
    files = [path for path in sorted(top.rglob("*.py")) if "__pycache__" not in path.parts]
    own = [_stamp(str(path.relative_to(top)), path.stat()) for path in files]
    return [sys.version, *map(_version, _LIBRARIES), own]


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"
