"""Settings that Lightning, torch and Hydra would take and then fail at, train for ever with, or
read otherwise.
"""

import types
from collections.abc import Iterable, Iterator, Mapping
from inspect import signature
from itertools import product
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig

from jensen.base.errors import (
    LARGEST,
    InputError,
    check_choice,
    check_count,
    check_flag,
    check_number,
    check_seed,
)
from jensen.callbacks.events import SUFFIX

CONVERSIONS = ("none", "partial", "object", "all")
"""Hydra's `_convert_`."""

OWN = ("jensen.", "hydra.")
"""Packages whose parts check their own arguments."""


def check(cfg: DictConfig) -> None:
    """Raises: InputError: the seed, or a setting of Lightning's, torch's or Hydra's, is none that a
    run can have.
    """
    check_seed("seed", cfg.seed)
    _check_trainer(cfg.trainer)
    _check_events(cfg)
    for place, part in _parts(cfg):
        _check_hydras(place, part)
        _check_arguments(place, part)


def _check_events(cfg: DictConfig) -> None:
    """Refuse event files elsewhere or of another name than those that are cut back when a run goes
    on.
    """
    places = {
        "name": ("", None),
        "version": ("",),
        "sub_dir": (None, ""),
        "filename_suffix": (SUFFIX,),
    }
    tensorboard = {
        name: part
        for name, part in cfg.logger.items()
        if isinstance(part, DictConfig) and str(part.get("_target_")).endswith("TensorBoardLogger")
    }
    for name, key in product(tensorboard, places):
        expected, *same = places[key]
        found = tensorboard[name].get(key, expected)
        if not any(type(found) is type(each) and found == each for each in (expected, *same)):
            raise InputError(
                f"logger.{name}.{key} is {found!r}: expected {expected!r}, since only the event files of"
                " the run's own folder that end"
                f" in {SUFFIX} are cut back when a killed run goes on; leave it out"
            )


def _check_trainer(trainer: DictConfig) -> None:
    for key in ("log_every_n_steps", "accumulate_grad_batches", "num_nodes"):
        check_count(f"trainer.{key}", trainer[key])
    _check_intervals(trainer)
    if trainer.gradient_clip_val is not None:
        check_number("trainer.gradient_clip_val", trainer.gradient_clip_val, low=0)
    if trainer.max_epochs not in (None, -1):
        check_count("trainer.max_epochs", trainer.max_epochs)
    if trainer.max_steps != -1:
        check_count("trainer.max_steps", trainer.max_steps)
    elif trainer.max_epochs in (None, -1) and trainer.get("max_time") is None:
        raise InputError(
            "trainer.max_steps and trainer.max_epochs are -1: expected one that ends the training;"
            " set it"
        )
    _refuse_other_loops(trainer)


def _check_intervals(trainer: DictConfig) -> None:
    """Validate by steps, where `check_val_every_n_epoch` is null, or by epochs and parts of one."""
    interval = trainer.val_check_interval
    epochs = trainer.check_val_every_n_epoch
    if epochs is None:
        check_count("trainer.val_check_interval", interval)
        return
    check_count("trainer.check_val_every_n_epoch", epochs)
    if isinstance(interval, float):
        check_number("trainer.val_check_interval", interval, low=1e-9, high=1)
    else:
        check_count("trainer.val_check_interval", interval)


def _refuse_other_loops(trainer: DictConfig) -> None:
    """Settings that would take the order of the data, or the checkpoints, from a run that is to be
    continued exactly.
    """
    check_count("trainer.num_sanity_val_steps", trainer.num_sanity_val_steps, least=-1)
    reasons = {
        "overfit_batches": "0, since it would put another order of the data in the place of the run's; for so few examples hold"
        " out the others with data.validation",
        "fast_dev_run": "false, since such a run keeps nothing; set trainer.max_steps=1",
        "use_distributed_sampler": "false, since the data module shares out the batches itself",
    }
    if trainer.get("limit_train_batches") == 0:
        raise InputError(
            "trainer.limit_train_batches is 0: expected more, since nothing would be trained"
        )
    for key, reason in reasons.items():
        if trainer.get(key):
            raise InputError(f"trainer.{key} is {trainer[key]!r}: expected {reason}")


def _parts(node: DictConfig, place: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Every mapping of the configuration under its key; what is one by interpolation has its own
    place.
    """
    if place:
        yield place, node
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_interpolation() and not child._is_none():
            yield from _parts(child, f"{place}.{key!s}" if place else str(key))


def _check_hydras(place: str, part: DictConfig) -> None:
    written = part.keys()  # `key in part` takes ten times as long where it is absent
    for key in ("_partial_", "_recursive_"):
        if key in written and key in part:
            check_flag(f"{place}.{key}", part[key])
    if "_convert_" in written and "_convert_" in part:
        check_choice(f"{place}._convert_", part["_convert_"], CONVERSIONS)


def _check_arguments(place: str, part: DictConfig) -> None:
    """Hold the arguments of others' functions and classes to what these say they take."""
    target = part.get("_target_") if "_target_" in part.keys() else None  # noqa: SIM118
    if not isinstance(target, str):
        return
    try:
        function: Any = get_object(target)
        made = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
        if f"{made.__module__}.".startswith(OWN):  # which check themselves
            return
        hints = get_type_hints(made)
        parameters = signature(function).parameters
    except Exception:
        # of what cannot be found Hydra says more; some say nothing of their arguments
        return
    for key in [key for key in part if key in hints and key in parameters]:
        value = part[key]
        if not _fits(value, hints[key]) and not _same(value, parameters[key].default):
            raise InputError(
                f"{place}.{key} is {value!r}: expected {' or '.join(_words(hints[key]))}"
            )


def _same(value: object, other: object) -> bool:
    return type(value) is type(other) and value == other


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value of a configuration is of a type; so is any that is not known here, and
    whatever is yet to be made.
    """
    if isinstance(value, Mapping) and "_target_" in value:
        return True
    kind = get_origin(hint) or hint
    if kind in (Union, types.UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if kind is Literal:
        return any(_same(value, each) for each in get_args(hint))
    if kind is float:
        return (
            isinstance(value, float | int) and not isinstance(value, bool) and abs(value) <= LARGEST
        )
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is Path:
        return isinstance(value, str)
    if not isinstance(kind, type):
        return True
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    if issubclass(kind, Iterable) and kind is not str:
        return isinstance(value, ListConfig) and _all_fit(value, get_args(hint))
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol
        return True


def _all_fit(values: ListConfig, hints: tuple[Any, ...]) -> bool:
    """The elements of `list[hint]` or `tuple[hint, ...]`, or each of `tuple[one, another]`."""
    many = [hint for hint in hints if hint is not Ellipsis]
    if len(many) == 1:
        return all(_fits(value, many[0]) for value in values)
    return not many or (len(values) == len(many) and all(map(_fits, values, many)))


def _words(hint: Any) -> list[str]:
    """A type as a person would write it."""
    kind = get_origin(hint) or hint
    if kind in (Union, types.UnionType):
        return [*dict.fromkeys(word for each in get_args(hint) for word in _words(each))]
    if kind is Literal:
        return [str(value) for value in get_args(hint)]
    plain = {
        bool: "true or false",
        int: "an integer",
        float: "a number",
        str: "a text",
        Path: "a path",
        types.NoneType: "null",
    }
    if kind in plain:
        return [plain[kind]]
    if isinstance(kind, type) and issubclass(kind, Iterable) and not issubclass(kind, Mapping):
        return ["a list" if len(get_args(hint)) < 2 else f"a list of {len(get_args(hint))}"]
    return [f"a {getattr(kind, '__name__', kind)}"]
