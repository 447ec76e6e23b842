"""The names of the folders of a sweep's jobs."""

import functools
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from jensen.run.compose import given_words
from jensen.run.identity import LOCATION


class Names:
    """Names each job by what the command sweeps over.

    Args:
        config: of the sweep.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config

    def of(self, config: DictConfig) -> list[Path]:
        """Folders for a job, the first of which is to be its: named with what is swept; with what is
        constant too; and with no places of data, or with all.
        """
        above = Path(config.hydra.sweep.dir).absolute()
        naming = config.hydra.job.config.override_dirname
        asked = [*naming.exclude_keys]
        names = []
        places = [key for key in LOCATION if key not in self.swept]
        # In a folder of its own experiment a job need not say which.
        if "experiment" not in self.swept or above.name == _experiment(config):
            asked.append("experiment")
        constant = [key for key in self.given if key not in self.swept] if self.swept else []
        for excluded in ([*constant, *places], places, LOCATION, ()):
            naming.exclude_keys = [*asked, *excluded]
            names.append(above / str(config.hydra.sweep.subdir))
        return [*dict.fromkeys(names)]

    @functools.cached_property
    def given(self) -> dict[str, bool]:
        """Keys that the command overrides, and whether it sweeps over them."""
        given = OverridesParser.create().parse_overrides(given_words(self.config.hydra))
        return {_key(str(override.input_line)): override.is_sweep_override() for override in given}

    @functools.cached_property
    def swept(self) -> set[str]:
        """Keys over which the command sweeps, or its sweeper's own settings."""
        of_sweeper = OmegaConf.select(self.config, "hydra.sweeper.params") or {}
        return {key for key, sweeps in self.given.items() if sweeps} | {
            _key(str(key)) for key in of_sweeper
        }


def _experiment(config: DictConfig) -> str:
    return str(config.hydra.runtime.choices.get("experiment"))


def _key(override: str) -> str:
    """The key of an override, without what adds or removes it."""
    return override.lstrip("+~").partition("=")[0]
