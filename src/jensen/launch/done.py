"""The jobs of a sweep that are known to be finished, so that the same command again need not compose
and read each one to say so.
"""

import hashlib
import itertools
import os
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from jensen.run import seal
from jensen.run.record import get_json, put_json

NAME = "done.json"
_LIBRARIES = ("jensen", "hydra-core", "omegaconf")
_HYDRAS = (("pkg", "hydra"), ("structured", "schema"))
"""Kinds and owners of what is known by Hydra's version."""
_MOST = 2000
"""Files of a person's own that are read at most."""
_HOW = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper")
"""Keys that only say how jobs are chosen and started, and not what one is."""
_ENVIRONMENT = re.compile(r"\benv:\s*(\w+)").findall
_ASKS = re.compile(r"\$\{|^hydra\.searchpath").search
"""Finds words that mean another thing at another time, or in another folder."""


class Known(NamedTuple):
    """A finished run: its folder and that of its sweep, which experiment has; the settings and the
    fingerprint of its data, and what these were read from (`seal.evidence`); the name of the result
    that a sweeper asks for.
    """

    folder: Path
    sweep: Path
    experiment: str | None
    source: str
    data: str
    read: str
    maximise: str | None


class Done:
    """The index of a sweep's folder: by what a job is composed of, the run that it was found to be.

    It is believed where nothing has changed that the finding came from: the files of `conf/`, the
    package, the environment they ask for, the words, and those files of the run that say what it
    is. Of the data, whose reading is another's matter, it has the fingerprint.
    """

    def __init__(self, config: DictConfig) -> None:
        self.above = Path(config.hydra.sweep.dir).absolute()
        self.ground = _ground(config)
        before = get_json(self.above / NAME)
        same = bool(self.ground) and before.get("ground") == self.ground
        self._sources: list[list[str]] = before.get("sources", []) if same else []
        self._runs: dict[str, dict[str, Any]] = before.get("runs", {}) if same else {}
        self._is_new = False

    def find(self, overrides: Sequence[str]) -> Known | None:
        """The finished run of a job, by its words; None where none is known, or it has changed."""
        entry = self._runs.get(_words(overrides))
        try:
            if entry is None or seal.stamps(self.above / entry["folder"]) != entry["stamps"]:
                return None
            source, data, read = self._sources[entry["source"]]
            return Known(
                self.above / entry["folder"],
                self.above / entry["sweep"],
                entry["experiment"],
                source,
                data,
                read,
                entry["maximise"],
            )
        except (KeyError, IndexError, TypeError, ValueError):  # not what was written here
            return None

    def add(self, overrides: Sequence[str], known: Known) -> None:
        """Remember the run of a job that was found finished."""
        stamps = seal.stamps(known.folder)
        if not self.ground or not stamps or any(map(_ASKS, overrides)):
            return
        of = [known.source, known.data, known.read]
        if of not in self._sources:
            self._sources.append(of)
        entry = {
            "folder": os.path.relpath(known.folder, self.above),
            "sweep": os.path.relpath(known.sweep, self.above),
            "experiment": known.experiment,
            "source": self._sources.index(of),
            "maximise": known.maximise,
            "stamps": stamps,
        }
        key = _words(overrides)
        self._is_new = self._is_new or self._runs.get(key) != entry
        self._runs[key] = entry

    def write(self) -> None:
        """Write down what is new."""
        if self._is_new:
            put_json(
                self.above / NAME,
                {"ground": self.ground, "sources": self._sources, "runs": self._runs},
            )
            self._is_new = False


def _words(overrides: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(overrides).encode()).hexdigest()[:32]


def _ground(config: DictConfig) -> str:
    """SHA-256 of all that a job is composed of but its own words; empty where that is not known."""
    hydra = config.hydra
    given: Any = OmegaConf.to_container(hydra.overrides.hydra, resolve=False)
    words = [word for word in given if not word.startswith(_HOW)]
    settings = [words, hydra.job.config_name]
    found = hashlib.sha256(repr([str(Path.cwd()), settings, *map(version, _LIBRARIES)]).encode())
    names: set[str] = set()
    files = _files([dict(source) for source in hydra.runtime.config_sources])
    if not 0 < len(files) <= _MOST:
        return ""
    for file in files:
        try:
            text = file.read_bytes()
        except OSError:
            return ""
        found.update(hashlib.sha256(text).digest())
        names |= {*_ENVIRONMENT(text.decode(errors="replace"))}
    found.update(repr([(name, os.environ.get(name)) for name in sorted(names)]).encode())
    return found.hexdigest()


def _files(sources: Sequence[dict[str, str]]) -> list[Path]:
    """The files that jobs are composed of, and the code that says what a run is; none where some of
    them are in a place that cannot be listed.
    """
    own = Path(__file__).parents[1]
    folders = [(own / "run", "*.py"), (own / "launch", "*.py")]
    for source in sources:
        if source["schema"] == "file":
            folders.append((Path(source["path"]), "**/*.yaml"))
        elif (source["schema"], source["provider"]) not in _HYDRAS:
            return []
    found: list[Path] = []
    for folder, pattern in folders:
        found += itertools.islice(folder.glob(pattern), _MOST)
    return sorted(found)
