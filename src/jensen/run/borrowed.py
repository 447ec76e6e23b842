"""Settings of diagnostics that are values of the run they are asked of, such as the variances of its
data.
"""

from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from jensen.run.reading import written_tree
from jensen.run.typos import choices_with
from jensen.run.words import lacking


class Settings(NamedTuple):
    """Settings by the name of the diagnostic, and of those that cannot be asked why not."""

    settings: dict[str, dict[str, Any]]
    absent: dict[str, str]


def borrowed(diagnostics: DictConfig, run: Path | str | None) -> Settings:
    """The settings of `diagnostics` with what is that of `run` in its place.

    Nothing can be made of what a run's folder holds: names of classes stay behind.
    """
    tree = {} if run is None else _plain(written_tree(run))
    own = OmegaConf.to_container(diagnostics)
    whole = OmegaConf.create({**tree, "diagnostics": own})
    found = Settings({}, {})
    for name, each in whole.diagnostics.items():
        if each is None:
            continue
        try:
            settings: Any = OmegaConf.to_container(each, resolve=True)
            found.settings[name] = settings
        except InterpolationKeyError as error:
            group, key = lacking(error)
            having = [f"{group}={choice}" for choice in choices_with(group, key)]
            found.absent[name] = (
                f"diagnostics.{name} asks for {group}.{key}, which"
                f" {'codes alone have not' if run is None else f'run={run} has not'}: expected a run"
                f" of {' or '.join(having) or 'a configuration that has it'}"
            )
    return found


def _plain(tree: Any) -> Any:
    """The same without the keys by which something would be made of it."""
    if isinstance(tree, dict):
        return {key: _plain(each) for key, each in tree.items() if not str(key).startswith("_")}
    return [_plain(each) for each in tree] if isinstance(tree, list) else tree
