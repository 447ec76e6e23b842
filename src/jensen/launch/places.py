"""The folders of a sweep's jobs: each job where it was trained already, else where no other run
is.
"""

import glob
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from jensen.base.errors import InputError
from jensen.launch.done import Known
from jensen.launch.job import Job
from jensen.launch.names import Names
from jensen.run import seal
from jensen.run.folder import DATA, lock, standing
from jensen.run.identity import identity
from jensen.run.record import get_json, put_json
from jensen.run.words import leads, say

_SERVING = ("seed", "batch_size", "validation", "shuffle", "device", "workers", "transform")
"""Keys of `data` that change no example (jensen/data/module.py)."""


class Places:
    """Finds each job its folder, and lets no other sweep work there as long as this process lives.

    Args:
        config: of the sweep.
    """

    def __init__(self, config: DictConfig) -> None:
        self.names = Names(config)
        self.held = ExitStack()
        self._experiments: dict[Path, str | None] = {}
        self._sweeps: dict[Path, Path] = {}
        self._data: dict[str, str] = {}
        self._read: dict[str, str] = {}
        self._trained: dict[Path, dict[str, list[Path]]] = {}

    def place(self, overrides: tuple[str, ...], config: DictConfig, jobs: dict[Path, Job]) -> Job:
        """The job of one composed configuration, beside `jobs` that have their folders.

        A folder that is another run's is left to it: beside such ones the job's own is named by
        what it is.

        Raises:
            InputError: another sweep works in the folder, or it holds another experiment; the data
                cannot be read.
        """
        sweep = Path(config.hydra.sweep.dir).absolute()
        self._hold(sweep, config.hydra.runtime.choices.get("experiment"))
        folders = self.names.of(config)
        with open_dict(config):
            del config["hydra"]
        job = self._choose(
            Job(overrides, config, folders[0], maximise=config.maximise), folders, jobs
        )
        self._sweeps[job.folder] = sweep
        return job

    def known(
        self, overrides: tuple[str, ...], known: Known, compose: Callable[[], DictConfig]
    ) -> Job | None:
        """The job of a run that was found finished; None where its data are others now.

        Args:
            compose: makes its configuration, which is asked for once for all that share the data.
        """
        if known.source not in self._data:
            config = compose()
            if _source(config) != known.source:
                return None
            if known.read and _evidence(known.source) == known.read:
                self._data[known.source] = known.data
                self._read[known.source] = known.read
            elif self._data_of(config) != known.data:
                return None
        if self._data[known.source] != known.data:
            return None
        self._hold(known.sweep, known.experiment)
        self._sweeps[known.folder] = known.sweep
        return Job(overrides, compose, known.folder, "finished", maximise=known.maximise)

    def finding(self, job: Job) -> Known:
        """All there is to know of a job that was placed and is finished."""
        sweep = self._sweeps[job.folder]
        return Known(
            job.folder,
            sweep,
            self._experiments.get(sweep),
            _source(job.cfg),
            self._fingerprint(job.cfg),
            self._read[_source(job.cfg)],
            job.maximise,
        )

    def _choose(self, job: Job, folders: list[Path], jobs: dict[Path, Job]) -> Job:
        """The job in one of the folders that may be its, or beside them."""
        places = []
        for place in itertools.chain(
            (self._in(folder, job, jobs) for folder in folders),
            self._beside(folders, job, jobs),
            self._elsewhere(folders[0].parent, job, jobs),
        ):
            if place.before in ("finished", "interrupted"):
                return place
            places.append(place)
        for place in places[: len(folders)]:
            if place.before != "other":
                return place
        own = self._own(folders[0], job)
        say(f"{folders[0]} is another run's: {own.name} is this one's")
        return self._in(own, job, jobs)

    def _beside(self, folders: list[Path], job: Job, jobs: dict[Path, Job]) -> Iterator[Job]:
        """The job in folders that are named by what it is, where the plain name was another run's."""
        for folder in folders:
            if any(folder.parent.glob(f"{glob.escape(folder.name)}~*")):
                yield self._in(self._own(folder, job), job, jobs)

    def _elsewhere(self, above: Path, job: Job, jobs: dict[Path, Job]) -> Iterator[Job]:
        """The job in folders that say to hold it, whatever they are named: another sweep may have
        swept over more keys, or fewer. Of data that cannot be read, in none: it fails by itself.
        """
        for folder in self._before(above, job):
            with suppress(InputError, InstantiationException):
                yield self._in(folder, job, jobs)

    def _before(self, above: Path, job: Job) -> list[Path]:
        """Folders of runs with the identity of this one, as they were before the first job."""
        if above not in self._trained:
            found = self._trained[above] = {}
            for file in sorted(above.glob(f"*/{DATA}")):
                found.setdefault(str(get_json(file).get("identity")), []).append(file.parents[1])
        return self._trained[above].get(identity(job.cfg), [])

    def _hold(self, folder: Path, experiment: str | None) -> None:
        if folder in self._experiments or not leads():
            return
        self.held.enter_context(lock(folder, f"another sweep works in {folder}"))
        self._experiments[folder] = experiment
        mark = {"experiment": experiment}
        before = get_json(folder / "sweep.json") or mark
        if "experiment" not in before:
            raise InputError(
                f"{folder / 'sweep.json'} names no experiment: expected what a sweep of"
                " jensen.train wrote; remove it, or set hydra.sweep.dir to another folder"
            )
        if before["experiment"] != experiment:
            raise InputError(
                f"{folder} holds the sweep of experiment={before['experiment']} and this is"
                f" experiment={experiment}: expected"
                " one experiment a folder; set hydra.sweep.dir to another one"
            )
        put_json(folder / "sweep.json", mark | {"swept": sorted(self.names.swept)})

    def _in(self, folder: Path, job: Job, jobs: dict[Path, Job]) -> Job:
        """The job in `folder`, with what it is to it; where one of `jobs` will be it is another
        run's, or the same job.
        """
        beside = jobs.get(folder)
        taken = beside is not None and not self._same(beside.cfg, job.cfg)
        before = "other" if taken else standing(folder, job.cfg, lambda: self._fingerprint(job.cfg))
        return replace(job, folder=folder, before=before)

    def _own(self, folder: Path, job: Job) -> Path:
        own = hashlib.sha256((identity(job.cfg) + self._data_of(job.cfg)).encode()).hexdigest()[:8]
        return folder.with_name(f"{folder.name}~{own}")

    def _same(self, one: DictConfig, other: DictConfig) -> bool:
        """Tell whether two configurations are one run: the same keys with effect, on the same
        data.
        """
        if identity(one) != identity(other):
            return False
        return _source(one) == _source(other) or self._data_of(one) == self._data_of(other)

    def _data_of(self, cfg: DictConfig) -> str:
        """The fingerprint; of data that cannot be read, where they should be: that job fails by
        itself.
        """
        try:
            return self._fingerprint(cfg)
        except (InputError, InstantiationException):
            return _source(cfg)

    def _fingerprint(self, cfg: DictConfig) -> str:
        """The fingerprint of the data, which are read once for all jobs that share them."""
        key = _source(cfg)
        if key not in self._data:
            from jensen.run.fingerprint import fingerprint  # its imports take seconds

            read = _evidence(key)
            self._data[key] = fingerprint(instantiate(cfg.data))
            self._read[key] = read
        return self._data[key]


def _evidence(source: str) -> str:
    """The files that the data of a `_source` are read from, as a hash."""
    return seal.evidence({"data": json.loads(source)}, ("data",))


def _source(cfg: DictConfig) -> str:
    """The settings that say which examples there are."""
    settings: Any = OmegaConf.to_container(cfg.data, resolve=True)
    return json.dumps(
        {name: value for name, value in settings.items() if name not in _SERVING}, default=str
    )
