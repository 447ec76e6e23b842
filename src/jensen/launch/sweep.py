"""The common part of a sweep's launchers: which jobs are to do, and how all of them ended."""

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from jensen.launch.compositions import Compositions
from jensen.launch.done import Done
from jensen.launch.job import Job
from jensen.launch.places import Places
from jensen.run.folder import marker
from jensen.run.identity import leaves
from jensen.run.record import maximised, put
from jensen.run.words import leads, say

_NAMED = 3
"""Keys that a sentence names."""


class Sweep:
    """One sweep, as long as this process lives: no other one works in its folders meanwhile.

    Args:
        retry_failed: whether jobs that failed before are to do.
    """

    def __init__(self, context: HydraContext, config: DictConfig, retry_failed: bool) -> None:
        self.context = context
        self.config = config
        self.retry_failed = retry_failed
        self.compositions = Compositions(context.config_loader, config)
        self.places = Places(config)
        self.done = Done(config)
        self.failures: dict[str, str] = {}
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
            job = self._known(tuple(overrides)) or self._placed(tuple(overrides), number, jobs)
            if job.folder in jobs:
                _tell_one_run(jobs[job.folder], job)
            planned.append(jobs.setdefault(job.folder, job))
        self._remember()
        return planned

    def _known(self, overrides: tuple[str, ...]) -> Job | None:
        """A job that was found finished before, and is so still."""
        known = self.done.find(overrides)
        compose = functools.partial(self._composed, overrides)
        return known and self.places.known(overrides, known, compose)

    def _placed(self, overrides: tuple[str, ...], number: int, jobs: dict[Path, Job]) -> Job:
        config = self.compositions.of(overrides)
        with open_dict(config):  # hydra.sweep.subdir may ask for it
            config.hydra.job.id = config.hydra.job.num = number
        job = self.places.place(overrides, config, jobs)
        if job.before == "finished":
            self.done.add(overrides, self.places.finding(job))
        return job

    def _composed(self, overrides: tuple[str, ...]) -> DictConfig:
        config = self.compositions.of(overrides)
        with open_dict(config):
            del config["hydra"]
        return config

    def _remember(self) -> None:
        if leads():
            self.done.write()

    def to_do(self, jobs: Sequence[Job]) -> list[Job]:
        """Each job once that is neither finished nor, unless it is to be retried, failed."""
        distinct = {job.folder: job for job in jobs}.values()
        left = {"finished"} if self.retry_failed else {"finished", "failed"}
        return [job for job in distinct if job.before not in left]

    def report(self, jobs: Sequence[Job]) -> None:
        """Lists what became of each job, and the first line of the error of those that failed."""
        outcomes = {job.said(): job.outcome() for job in jobs}
        count = Counter(outcome for outcome, _ in outcomes.values())
        say(
            f"sweep of {len(outcomes)}:"
            f" {', '.join(f'{number} {outcome}' for outcome, number in count.items())}"
        )
        for folder, (outcome, error) in outcomes.items():
            say(f"{outcome:11} {folder}{': ' if error else ''}{error}")
            if outcome == "failed":
                self.failures[folder] = error
        if any(job.before == "failed" for job in jobs) and not self.retry_failed:
            say("hydra.launcher.retry_failed=true tries again what failed before")
        for job in jobs:
            if outcomes[job.said()][0] in ("trained", "continued", "retried"):
                self.done.add(job.overrides, self.places.finding(job))
        self._remember()

    def returns(self, jobs: Sequence[Job]) -> list[JobReturn]:
        """The return that Hydra's sweepers expect: the result to maximise of each job, or why there
        is none.
        """
        return [self._return(job) for job in jobs]

    def _return(self, job: Job) -> JobReturn:
        """Raises:
        InputError: the run has no result that `maximise` names, and so no other of its sweep has.
        """
        outcome, _ = job.outcome()
        found = JobReturn(job.overrides, working_dir=job.said(), status=JobStatus.COMPLETED)
        results = marker(job.folder).get("results")
        # A run may fail by that very key, after it is finished.
        value = None if results is None else maximised(job.maximise, results)
        if outcome in ("failed", "interrupted", "not started"):
            found.status = JobStatus.FAILED
            found.return_value = CompactHydraException(
                self.summary() or f"{job.folder} was stopped: the same command continues"
            )
        else:
            found.return_value = value
        return found

    def summary(self) -> str:
        """A sentence on all that failed; empty if nothing did."""
        if not self.failures:
            return ""
        each = "; ".join(f"{folder}: {error}" for folder, error in self.failures.items())
        return f"{len(self.failures)} of the sweep's runs failed: {each}"


def _tell_one_run(one: Job, other: Job) -> None:
    """Say of two jobs, of which the first alone will be trained, in what they differ all the same."""
    if one.overrides == other.overrides:
        return
    trees: list[Any] = [OmegaConf.to_container(each.cfg) for each in (one, other)]
    mine, its = (dict(leaves(tree)) for tree in trees)
    keys = [key for key in mine | its if key not in mine or key not in its or mine[key] != its[key]]
    if not keys:
        return
    parts = [*dict.fromkeys(".".join(key.split(".")[:3]) for key in keys)]
    more = f" and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    say(
        f"{other.said()} is trained once, as the first of its jobs has it: another differs in"
        f" {', '.join(parts[:_NAMED])}{more}, which makes no other run;"
        " 'hydra.sweep.subdir=${hydra.job.num}' gives each job a folder"
    )
