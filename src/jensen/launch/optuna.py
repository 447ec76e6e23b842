"""Optuna's choice of jobs, through hydra-optuna-sweeper."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException, ConfigCompositionException
from hydra.plugins.sweeper import Sweeper
from hydra.utils import instantiate
from omegaconf import DictConfig

from jensen.base.errors import InputError, check_choice, check_count, check_number
from jensen.run.typos import explain_overrides

_OPENING = ("Study name", "Storage", "Sampler", "Directions")
"""The first words of lines that repeat the settings."""

NOT_OURS = (
    "hydra/sweeper is optuna, which does not know which runs are finished and which have failed:"
    " expected hydra/sweeper=maximise, which has Optuna raise what maximise=... names; write that"
)


def refuse_its_own(config: DictConfig) -> None:
    """Raises:
    InputError: a sweep is Optuna's without what jensen adds.
    """
    if str(config.hydra.sweeper.get("_target_")).startswith("hydra_plugins.hydra_optuna_sweeper."):
        raise InputError(NOT_OURS)


def sweeper(settings: dict[str, Any]) -> Sweeper:
    """Raises:
    InputError: hydra-optuna-sweeper is not installed.
    """
    # Of its plugins it says that they are there.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper
    except ImportError as error:
        raise InputError(
            f"hydra/sweeper=maximise needs a package that is not installed ({error}): expected"
            " hydra-optuna-sweeper; pip install 'jensen[optuna]'"
        ) from error
    made: Sweeper = OptunaSweeper(
        **settings | {"sampler": instantiate(settings["sampler"])},
        search_space=None,
        custom_search_space=None,
    )
    _quieten()
    return made


def _quieten() -> None:
    """Leave out what only repeats the settings; warnings, and what was found, are said."""
    from optuna.logging import WARNING, set_verbosity

    set_verbosity(WARNING)
    ours = logging.getLogger("hydra_plugins.hydra_optuna_sweeper._impl")
    ours.addFilter(lambda record: not record.getMessage().startswith(_OPENING))


def check(settings: dict[str, Any], config: DictConfig) -> None:
    """Refuse, before the first trial, what no trial could be counted by.

    Args:
        config: of the sweep.
    """
    check_count("hydra.sweeper.n_trials", settings["n_trials"])
    check_count("hydra.sweeper.n_jobs", settings["n_jobs"])
    check_number("hydra.sweeper.max_failure_rate", settings["max_failure_rate"], 0, 1)
    check_choice("hydra.sweeper.direction", settings["direction"], ("maximize", "minimize"))
    if config.maximise is None:
        raise InputError(
            "maximise is not set: expected the result that Optuna is to raise, a tag of TensorBoard;"
            " add maximise=val/elbo"
        )


def sweep(sweeper: Any, arguments: list[str]) -> None:
    """Raises:
    InputError: there is nothing to choose, or the launcher is none of ours.
    CompactHydraException: runs failed, or none has a score; the others were made all the same.
    """
    own = sweeper.sweeper
    if not hasattr(own.launcher, "sweep"):
        raise InputError(
            f"hydra/launcher is {own.config.hydra.runtime.choices['hydra/launcher']}, which does not say"
            " how its runs ended: expected one of jensen's with hydra/sweeper=maximise; write"
            " hydra/launcher=sequential, subprocess, stacked or slurm"
        )
    _check_chosen([*own._parse_sweeper_params_config(), *arguments])
    trials = Trials(own.launcher.launch, own.launcher.sweep, str(own.config.maximise))
    own.launcher.launch = trials.launch
    try:
        sweeper.sweep(arguments)
    except ValueError as error:  # Optuna's, if no run of all has a result
        if not trials.failures:
            raise
        if not own.launcher.sweep.failures:
            raise CompactHydraException("; ".join(trials.failures)) from error
    if failed := own.launcher.sweep.summary():
        raise CompactHydraException(failed)


def _check_chosen(words: list[str]) -> None:
    """Refuse overrides, those of `params` first, by which all trials would be one run."""
    parsed = OverridesParser.create().parse_overrides(words)
    swept = {each.get_key_element() for each in parsed if each.is_sweep_override()}
    fixed = {each.get_key_element() for each in parsed if not each.is_sweep_override()}
    if swept - fixed:  # what is both is fixed, by hydra-optuna-sweeper
        return
    why = f"the command fixes {', '.join(sorted(swept))}" if swept else "no key is swept"
    raise InputError(
        f"hydra.sweeper.params leaves nothing to choose, and {why}: expected a key of several values;"
        " add 'hydra.sweeper.params={objective.beta: \"interval(1, 8)\"}'"
    )


class Trials:
    """The jobs that a launcher is given by Optuna, and why some of them are none for it.

    failures: a sentence for each.

    Args:
        launch: the launcher's own.
        key: of the score.
    """

    def __init__(self, launch: Callable[..., Sequence[JobReturn]], sweep: Any, key: str) -> None:
        self.given = launch
        self.sweep = sweep
        self.key = key
        self.failures: list[str] = []

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Raises:
        CompactHydraException: `hydra.sweeper.params` names a key that there is not.
        """
        try:
            returns = self.given(job_overrides, initial_job_idx=initial_job_idx)
        except ConfigCompositionException as error:
            raise CompactHydraException(
                explain_overrides("train", job_overrides[0], error)
            ) from error
        return [self._return(each) for each in returns]

    def _return(self, found: JobReturn) -> JobReturn:
        """The return that a launcher has of a job, but for one that failed or whose score is NaN, which
        Optuna takes no more than none.

        Raises:
            CompactHydraException: no run gives the score.
        """
        folder = str(found.working_dir)
        if found.status == JobStatus.FAILED:
            why = self.sweep.failures.get(folder) or str(found._return_value)
            if why.startswith("maximise is "):  # which no other trial has either
                raise CompactHydraException(why)
        elif math.isnan(found.return_value):
            why = f"maximise={self.key} is NaN"
        else:
            return found
        self.failures.append(f"{folder}: {why}")
        return Failed(folder, self.failures[-1])


class Failed(JobReturn):
    """A trial without a score, of which Optuna says a sentence and nothing else."""

    def __init__(self, folder: str, why: str) -> None:
        super().__init__(working_dir=folder, status=JobStatus.FAILED)
        self.why = why

    @property  # type: ignore[misc]  # nobody sets it
    def return_value(self) -> Any:
        raise CompactHydraException(self.why)
