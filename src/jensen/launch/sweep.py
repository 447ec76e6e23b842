"""The common part of a sweep's launchers: which jobs are to do, where each belongs, and how all of
them ended.
"""

import functools
import glob
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import HydraContext
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from jensen.base.errors import InputError
from jensen.launch.console import quoted
from jensen.run.folder import FAILED, FINISHED, Standing, lock, standing
from jensen.run.identity import LOCATION, fingerprint, identity
from jensen.run.record import get_json, maximised, put, put_json
from jensen.run.words import leads, say

_SERVING = ("seed", "batch_size", "validation", "shuffle", "device", "workers", "transform")
"""Keys of `data` that change no example (jensen/data/module.py)."""


@dataclass
class Job:
    """before: what its folder was to it when the sweep began. problem: how its process ended, where
    its folder does not say.
    """

    overrides: tuple[str, ...]
    cfg: DictConfig
    folder: Path
    before: Standing = "new"
    problem: str = ""

    @property
    def placed(self) -> list[str]:
        """Its overrides, with its place."""
        place = {"hydra.sweep.dir": self.folder.parent, "hydra.sweep.subdir": self.folder.name}
        return [*self.overrides, *(f"{key}={quoted(value)}" for key, value in place.items())]


class Sweep:
    """One sweep, as long as this process lives: no other one works in its folders meanwhile.

    Args:
        retry_failed: whether jobs that failed before are to do.
    """

    def __init__(self, context: HydraContext, config: DictConfig, retry_failed: bool) -> None:
        self.context = context
        self.config = config
        self.retry_failed = retry_failed
        self.failures: dict[Path, str] = {}
        self._held = ExitStack()
        self._folders: set[Path] = set()
        self._data: dict[str, str] = {}
        # The sweeper would write this next, and not in one sentence where it cannot.
        if leads():
            put(Path(config.hydra.sweep.dir) / "multirun.yaml", OmegaConf.to_yaml(config))

    def plan(self, job_overrides: Sequence[Sequence[str]], first: int = 0) -> list[Job]:
        """The jobs, each with its place; two that are the same run are one and the same job.

        Raises:
            InputError: another sweep works in a folder, or it holds another experiment; the data
                cannot be read.
        """
        jobs: dict[Path, Job] = {}
        planned = []
        for number, overrides in enumerate(job_overrides, first):
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = (
                    number  # hydra.sweep.subdir may ask for it
                )
            self._hold(
                Path(config.hydra.sweep.dir).absolute(),
                config.hydra.runtime.choices.get("experiment"),
            )
            folders = self._names(config)
            with open_dict(config):
                del config["hydra"]
            job = self._place(Job(tuple(overrides), config, folders[0]), folders, jobs)
            planned.append(jobs.setdefault(job.folder, job))
        return planned

    def _names(self, config: DictConfig) -> list[Path]:
        """Folders for a job: named with the places of data that are swept, and as other sweeps name
        it: with none, with all.
        """
        above = Path(config.hydra.sweep.dir).absolute()
        naming = config.hydra.job.config.override_dirname
        asked = [*naming.exclude_keys]
        names = []
        for excluded in ([key for key in LOCATION if key not in self._swept], LOCATION, ()):
            naming.exclude_keys = [*asked, *excluded]
            names.append(above / str(config.hydra.sweep.subdir))
        return [*dict.fromkeys(names)]

    @functools.cached_property
    def _swept(self) -> set[str]:
        """Keys over which the command sweeps, or its sweeper's own settings."""
        given = OverridesParser.create().parse_overrides(list(self.config.hydra.overrides.task))
        of_sweeper = OmegaConf.select(self.config, "hydra.sweeper.params") or {}
        return {override.key_or_group for override in given if override.is_sweep_override()} | {
            *map(str, of_sweeper)
        }

    def _hold(self, folder: Path, experiment: str | None) -> None:
        if folder in self._folders or not leads():
            return
        self._held.enter_context(lock(folder, f"another sweep works in {folder}"))
        self._folders.add(folder)
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
        put_json(folder / "sweep.json", mark | {"swept": sorted(self._swept)})

    def _place(self, job: Job, folders: Sequence[Path], jobs: dict[Path, Job]) -> Job:
        """The job where it was trained already, else in the first of `folders` that is free.

        A folder that is another run's is left to it: beside such ones the job's own is named by
        what it is.
        """
        places = [self._in(folder, job, jobs) for folder in folders]
        beside = [
            folder for folder in folders if any(folder.parent.glob(f"{glob.escape(folder.name)}~*"))
        ]
        places += [self._in(self._own(folder, job), job, jobs) for folder in beside]
        for place in places:
            if place.before in ("finished", "interrupted"):
                return place
        for place in places[: len(folders)]:
            if place.before != "other":
                return place
        own = self._own(folders[0], job)
        say(f"{folders[0]} is another run's: {own.name} is this one's")
        return self._in(own, job, jobs)

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
            self._data[key] = fingerprint(instantiate(cfg.data))
        return self._data[key]

    def to_do(self, jobs: Sequence[Job]) -> list[Job]:
        """Each job once that is neither finished nor, unless it is to be retried, failed."""
        distinct = {job.folder: job for job in jobs}.values()
        left = {"finished"} if self.retry_failed else {"finished", "failed"}
        return [job for job in distinct if job.before not in left]

    def report(self, jobs: Sequence[Job]) -> None:
        """Lists what became of each job, and the first line of the error of those that failed."""
        outcomes = {job.folder: self._outcome(job) for job in jobs}
        count = Counter(outcome for outcome, _ in outcomes.values())
        say(
            f"sweep of {len(outcomes)}:"
            f" {', '.join(f'{number} {outcome}' for outcome, number in count.items())}"
        )
        for folder, (outcome, error) in outcomes.items():
            say(f"{outcome:11} {shown(folder)}{': ' if error else ''}{error}")
            if outcome == "failed":
                self.failures[folder] = error
        if any(job.before == "failed" for job in jobs) and not self.retry_failed:
            say("hydra.launcher.retry_failed=true tries again what failed before")

    def _outcome(self, job: Job) -> tuple[str, str]:
        if job.before == "finished":
            return "skipped", ""
        if not job.problem and get_json(job.folder / FINISHED).get("identity") == identity(job.cfg):
            return {"interrupted": "continued", "failed": "retried"}.get(job.before, "trained"), ""
        if error := get_json(job.folder / FAILED).get("error") or job.problem:
            return "failed", error
        return ("interrupted", "") if (job.folder / ".hydra").is_dir() else ("not started", "")

    def returns(self, jobs: Sequence[Job]) -> list[JobReturn]:
        """The return that Hydra's sweepers expect: the result to maximise of each job, or why there
        is none.
        """
        return [self._return(job) for job in jobs]

    def _return(self, job: Job) -> JobReturn:
        outcome, _ = self._outcome(job)
        if outcome in ("failed", "interrupted", "not started"):
            value: Any = CompactHydraException(
                self.summary() or f"{job.folder} was stopped: the same command continues"
            )
            return JobReturn(job.overrides, job.cfg, status=JobStatus.FAILED, _return_value=value)
        value = maximised(job.cfg, get_json(job.folder / FINISHED)["results"])
        return JobReturn(job.overrides, job.cfg, status=JobStatus.COMPLETED, _return_value=value)

    def summary(self) -> str:
        """A sentence on all that failed; empty if nothing did."""
        if not self.failures:
            return ""
        each = "; ".join(f"{shown(folder)}: {error}" for folder, error in self.failures.items())
        return f"{len(self.failures)} of the sweep's runs failed: {each}"


def _source(cfg: DictConfig) -> str:
    """The settings that say which examples there are."""
    settings: Any = OmegaConf.to_container(cfg.data, resolve=True)
    return json.dumps(
        {name: value for name, value in settings.items() if name not in _SERVING}, default=str
    )


def shown(folder: Path) -> str:
    """As one would type it from here."""
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)
