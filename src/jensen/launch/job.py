"""One job of a sweep: its folder, and what became of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from jensen.launch.console import quoted
from jensen.run.folder import FAILED, FINISHED, Standing
from jensen.run.identity import identity
from jensen.run.record import get_json


@dataclass
class Job:
    """before: what its folder was to it when the sweep began. problem: how its process ended, where
    its folder does not say. composed: its configuration, or what composes it.
    """

    overrides: tuple[str, ...]
    composed: DictConfig | Callable[[], DictConfig]
    folder: Path
    before: Standing = "new"
    problem: str = ""
    stopped: bool = False
    maximise: str | None = None

    @property
    def cfg(self) -> DictConfig:
        """Its configuration, which is composed when it is first asked for."""
        if not isinstance(self.composed, DictConfig):
            self.composed = self.composed()
        return self.composed

    @property
    def placed(self) -> list[str]:
        """Its overrides, with its place."""
        place = {"hydra.sweep.dir": self.folder.parent, "hydra.sweep.subdir": self.folder.name}
        return [*self.overrides, *(f"{key}={quoted(value)}" for key, value in place.items())]

    def outcome(self) -> tuple[str, str]:
        """The word for what became of it, and the error of one that failed, or how it was ended."""
        if self.before == "finished":
            return "skipped", ""
        done = get_json(self.folder / FINISHED).get("identity") == identity(self.cfg)
        if done and not self.problem:
            word = {"interrupted": "continued", "failed": "retried"}.get(self.before, "trained")
            return word, ""
        began = (self.folder / ".hydra").is_dir()
        if error := get_json(self.folder / FAILED).get("error"):
            return "failed", error
        if self.problem and not (self.stopped and began):
            return "failed", self.problem
        return ("interrupted", self.problem) if began else ("not started", "")

    def said(self) -> str:
        """Its folder, as one would type it from here."""
        here = Path.cwd()
        return str(
            self.folder.relative_to(here) if self.folder.is_relative_to(here) else self.folder
        )
