"""The configuration of a command, composed in Python."""

from collections.abc import Sequence
from typing import Any

import hydra
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from jensen.base.errors import InputError, check_choice
from jensen.run.additions import gathered
from jensen.run.conf import conf_folder
from jensen.run.typos import explain_overrides


def compose(name: str, overrides: Sequence[str]) -> DictConfig:
    """`conf/<name>.yaml` with overrides, within a program of Hydra's or without one.

    Raises:
        InputError: overrides that Hydra refuses.
    """
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            try:
                return hydra.compose(name, gathered(overrides))
            except HydraException as error:
                raise InputError(explain_overrides(name, overrides, error)) from error
    finally:
        GlobalHydra.instance().hydra = before


def chosen(group: str, name: object, key: str) -> None:
    """Refuse a `name` that is no choice of a group of `conf/`."""
    check_choice(key, name, sorted(file.stem for file in (conf_folder() / group).glob("*.yaml")))


def given_words(settings: Any) -> list[str]:
    """The overrides of a command in its settings of Hydra, as they were written: a word may hold
    `${...}`, which OmegaConf would resolve.
    """
    words: list[str] = OmegaConf.to_container(settings.overrides.task, resolve=False)  # type: ignore[assignment]
    return words
