"""Optuna's choice of jobs, through hydra-optuna-sweeper."""

from typing import Any

from hydra.errors import CompactHydraException
from hydra.plugins.sweeper import Sweeper
from hydra.utils import instantiate

from jensen.base.errors import InputError


def sweeper(settings: dict[str, Any]) -> Sweeper:
    """Raises:
    InputError: hydra-optuna-sweeper is not installed.
    """
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
    return made


def sweep(sweeper: Any, arguments: list[str]) -> None:
    """Raises:
    CompactHydraException: runs failed; the others were made all the same.
    """
    launched = sweeper.sweeper.launcher.sweep
    try:
        sweeper.sweep(arguments)
    except ValueError:  # Optuna's, if no run of all has a result
        if not launched.failures:
            raise
    if failed := launched.summary():
        raise CompactHydraException(failed)
