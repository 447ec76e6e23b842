"""What Hydra finds by itself: jensen's launchers, and its sweepers. All it does is in
jensen/launch.

Every command of jensen imports this file: it imports nothing that takes time.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins import basic_sweeper
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from jensen.base import signals


class _SweepLauncher(Launcher):
    """Plans the jobs, has `work` do those that are to do, and reports."""

    def __init__(self, retry_failed: bool = False, **settings: Any) -> None:
        self.retry_failed = retry_failed
        self.settings: dict[str, Any] = {
            key: OmegaConf.to_container(value, resolve=True)
            if OmegaConf.is_config(value)
            else value
            for key, value in settings.items()
        }

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from jensen.base.errors import check_flag
        from jensen.launch import optuna
        from jensen.launch.console import one_sentence
        from jensen.launch.sweep import Sweep

        self.task = task_function
        with one_sentence():
            optuna.refuse_its_own(config)
            check_flag("hydra.launcher.retry_failed", self.retry_failed)
            self.sweep = Sweep(hydra_context, config, self.retry_failed)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from jensen.launch.console import one_sentence

        with one_sentence():
            jobs = self.sweep.plan(job_overrides, initial_job_idx)
            try:
                self.work(self.sweep.to_do(jobs))
            finally:
                self.sweep.report(jobs)
            return self.sweep.returns(jobs)

    @abstractmethod
    def work(self, jobs: Sequence[Any]) -> None:
        """Do the jobs. Where there are none, it imports nothing that takes time."""


class Sequential(_SweepLauncher):
    def work(self, jobs: Sequence[Any]) -> None:
        if not jobs:
            return
        with signals.importing():
            from jensen.launch import sequential

        sequential.launch(self.sweep, jobs, self.task)


class Stacked(_SweepLauncher):
    def work(self, jobs: Sequence[Any]) -> None:
        with signals.importing():
            from jensen.launch import stacked

        stacked.launch(self.sweep, jobs, self.task, **self.settings)


class Subprocess(_SweepLauncher):
    def work(self, jobs: Sequence[Any]) -> None:
        if not jobs:
            return
        with signals.importing():
            from jensen.launch import processes

        processes.launch(self.sweep, jobs, **self.settings)


class Slurm(_SweepLauncher):
    def work(self, jobs: Sequence[Any]) -> None:
        with signals.importing():
            from jensen.launch import slurm

        slurm.launch(self.sweep, jobs, self.task, self.settings)


class Grid(basic_sweeper.BasicSweeper):
    """Hydra's own, whose launcher composes the jobs before the first begins: once is enough."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        if not isinstance(self.launcher, _SweepLauncher):
            super().validate_batch_is_legal(batch)


class Optuna(Sweeper):
    """hydra-optuna-sweeper's, which ends in an error if any of its runs failed."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from jensen.launch.console import one_sentence

        with signals.importing():
            from jensen.launch import optuna

        with one_sentence():
            optuna.check(self.settings, config)
            self.sweeper = optuna.sweeper(self.settings)
        self.sweeper.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        from jensen.launch import optuna
        from jensen.launch.console import one_sentence

        with one_sentence():
            optuna.sweep(self.sweeper, arguments)
