"""The targets that the folder of a run may have us call: the parts that conf/ names, optimisers,
and modules that the user trusts.

A configuration is a tree of calls, and one from elsewhere could name any function there is. A name
alone proves nothing: `jensen.run.os.system` begins well too.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jensen.base.errors import InputError, check_list
from jensen.base.memory import Fitting
from jensen.data.downloads import downloads
from jensen.run.conf import conf_folder
from jensen.run.given import TARGET
from jensen.run.targets import long
from jensen.run.words import explain, said

T = TypeVar("T")
GROUPS = ("algorithm", "data", "loader", "model", "objective", "schedule", "start", "transform")
"""Packages that conf/ names: their targets, called with any arguments, do no more than a run
does.
"""
_NAME = re.compile(r"\b_target_: *(jensen\.[\w.]+)")


def build(cfg: DictConfig, key: str, kind: type[T], trust: str | Sequence[str] = ()) -> T:
    """The `kind` that `cfg[key]`, of a run's configuration, describes; nothing is called before all
    of its targets are known.

    Args:
        trust: modules, or packages with all that is in them, whose own functions and classes may be
            called too.

    Raises:
        InputError: a target that is neither known nor trusted, values that cannot be resolved, or
            that build no `kind`.
    """
    check_list("trust", [trust] if isinstance(trust, str) else trust)
    trusted = [trust] if isinstance(trust, str) else [*trust]
    if not all(isinstance(module, str) for module in trusted):
        raise InputError(f"trust is {trusted}: expected names of modules, such as trust=[my]")
    try:
        tree = OmegaConf.to_container(cfg[key], resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, RecursionError, ValueError) as error:
        raise InputError(
            f"{key} of the run cannot be resolved ({said(error)}): expected what jensen.train wrote"
        ) from error
    for place, value in _leaves(tree, key):
        if place.endswith("._target_") and not _allowed(value, trusted):
            module = str(value).rpartition(".")[0]
            raise InputError(
                f"{place} of the run is {value!r}, which is no part of jensen: expected known"
                " code, since it would be run;"
                f" if you trust that of {module or value}, add trust=[{module or value}]"
            )
        if isinstance(value, str) and "${" in value:  # instantiate would resolve it once more
            raise InputError(
                f"{place} of the run is {value!r}: expected no interpolation within an"
                " interpolation"
            )
    try:
        with downloads(False), Fitting(f"'{key}'", total=True):
            built = instantiate(tree)
    except InstantiationException as error:
        raise InputError(f"in {key} of the run {explain(error)}") from error
    if not isinstance(built, kind):
        raise InputError(
            f"{key} of the run is {type(built).__name__}: expected {kind.__name__}, as"
            " jensen.train wrote it"
        )
    return built


def _leaves(tree: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _leaves(value, f"{place}.{key}")
    else:
        yield place, tree


def _allowed(target: object, trusted: Sequence[str]) -> bool:
    if not isinstance(target, str):
        return False
    return (
        target == TARGET
        or target in _parts()
        or _is_optimizer(target)
        or (_within(target, trusted) and _is_defined_in(target, trusted))
    )


@functools.cache
def _parts() -> frozenset[str]:
    """The targets that conf/ names, in both spellings: a run may be older than the short one."""
    files = (file for group in GROUPS for file in (conf_folder() / group).rglob("*.yaml"))
    named = {name for file in files for name in _NAME.findall(file.read_text())}
    return frozenset({*named, *map(long, named)})


def _is_optimizer(target: str) -> bool:
    module, _, name = target.rpartition(".")
    found = getattr(torch.optim, name, None) if module == "torch.optim" else None
    return isinstance(found, type) and issubclass(found, torch.optim.Optimizer)


def _within(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _is_defined_in(target: str, modules: Sequence[str]) -> bool:
    """And not only imported there. Imports the module, which is trusted."""
    try:
        return _within(str(getattr(get_object(target), "__module__", "")), modules)
    except Exception as error:  # whatever importing it raises
        raise InputError(
            f"{target} cannot be imported ({said(error)}): expected its module on PYTHONPATH"
        ) from error
