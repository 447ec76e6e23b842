"""Overrides that Hydra refuses, as one sentence that says what was meant."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from inspect import signature
from typing import Any, cast

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException, OverrideParseException
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from jensen.run.additions import LISTS
from jensen.run.conf import conf_folder

NEAR = 0.7
"""Likeness, in [0, 1], from which on one word may be a misspelling of another."""
_LISTED = 40
_ECHOES = ("hydra", "callbacks.hparams")
"""Keys that repeat others, or that hardly anyone means."""
_TYPED = re.compile(r"[\w.@/-]+")
"""A key that the shell and Hydra take as it is, without spaces and commas."""
_HYDRAS_ADVICE = re.compile(r"To append |Either remove|Or add |See https|Config search path|\t")


def explain_overrides(name: str, overrides: Sequence[str], error: BaseException) -> str:
    """One sentence for the first of `overrides` that `conf/<name>.yaml` cannot take, while Hydra is
    still there that refused it by `error`.
    """
    try:
        if GlobalHydra.instance().hydra is not None:
            return next(_faults(name, overrides))
    except (StopIteration, HydraException):
        pass  # it is not an override that is at fault
    lines = [line for line in str(error).splitlines() if not _HYDRAS_ADVICE.match(line)]
    what = " ".join(line.strip() for line in lines if line.strip()) or type(error).__name__
    return f"this cannot be taken ({what}): expected what python -m jensen.{name} --help shows"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean this or that?` with the likeliest of `known`; empty where none is near."""
    found = get_close_matches(word, list(known), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(found)}?" if found else ""


def unread(cfg: DictConfig, overrides: Sequence[str], groups: Iterable[str]) -> str:
    """One sentence for the first key that one of `overrides` added at the top, that no part of
    `cfg` reads, and that is nearly another one; empty where there is none.
    """
    added = [word.lstrip("+").partition("=")[0] for word in overrides if word.startswith("+")]
    keys = [key for key in added if not {*key} & {*"@/"}]
    for key in keys:
        top = key.split(".")[0]
        leaves = [each for each in _keys(cfg) if each.startswith(f"{top}.") or each == top]
        mine = all(any(f"{one}.".startswith(f"{each}.") for one in keys) for each in leaves)
        if top in groups or not mine or f"${{{top}" in OmegaConf.to_yaml(cfg):
            continue
        others = [name for name in map(str, cfg) if name != top]
        if meant := get_close_matches(top, others, n=1, cutoff=NEAR):
            return (
                f"+{key} would be a new key, which nothing reads: expected one of the"
                f" configuration; did you mean {meant[0]}{key[len(top) :]}?"
            )
    return ""


def _faults(name: str, overrides: Sequence[str]) -> Iterator[str]:
    """A sentence for each override that cannot be taken."""
    groups = _groups()
    parsed = []
    for word in overrides:
        try:
            parsed += OverridesParser.create().parse_overrides([word])
        except OverrideParseException as error:
            yield _unreadable(name, word, groups, error)
    chosen = [one for one in parsed if one.key_or_group in groups]
    for one in chosen:
        yield from _choice_faults(one, groups)
    base = hydra.compose(name, [], return_hydra_config=True)
    in_use: dict[str, Any] = {**base.hydra.runtime.choices}
    for one in chosen:
        yield from _group_faults(one, in_use)
    # Of choices that are sound: with them come keys of their own.
    sound = [str(one.input_line) for one in chosen if not isinstance(one.value(), ChoiceSweep)]
    whole = hydra.compose(name, sound, return_hydra_config=True) if sound else base
    for one in parsed:
        if one.key_or_group not in groups:
            yield from _key_faults(one, whole, groups)


def _unreadable(name: str, word: str, groups: Sequence[str], error: OverrideParseException) -> str:
    """A word that is no override."""
    key, equals, _ = word.partition("=")
    if equals or not _TYPED.fullmatch(key):
        why = str(error.message).strip().splitlines()
        why = [line for line in why if not line.startswith(("Error parsing", "See http"))]
        return (
            f"{word} cannot be read ({' '.join(why)}): expected {key.lstrip('+~') or 'KEY'}=VALUE,"
            f" with what holds spaces, brackets or $ in quotes, as '{key}=[1,2]'"
        )
    whole = hydra.compose(name, [], return_hydra_config=True)
    if key in groups:
        return f"{key} has no value: expected {key}=... with one of {_list(_options(key))}"
    if (value := _known(whole, key)) is not None:
        now = f", such as {key}={value[0]}" if _is_plain(value[0]) else ""
        return f"{key} has no value: expected {key}=VALUE without spaces{now}"
    near = _near(key, whole, groups)
    meant = f"; did you mean {near}=...?" if near else ""
    return f"{word} is no override: expected KEY=VALUE without spaces{meant}"


def _choice_faults(one: Override, groups: Sequence[str]) -> Iterator[str]:
    """Choices that a group has not."""
    group = one.key_or_group
    value = one.value()
    if one.is_delete() or isinstance(value, dict):
        return
    names = value.list if isinstance(value, ChoiceSweep) else value
    for each in names if isinstance(names, list) else [names]:
        found = [each] if not isinstance(each, list) else each
        for name in found:
            text = getattr(name, "text", name)
            if text is None or _exists(group, str(text)):
                continue
            known = _options(group)
            yield (
                f"{group} is {text}: expected one of {_list(known)}{did_you_mean(str(text), known)}"
            )


def _group_faults(one: Override, in_use: dict[str, Any]) -> Iterator[str]:
    """Groups that are added twice, or changed or left out without being chosen."""
    place = f"{one.key_or_group}@{one.package}" if one.package else one.key_or_group
    word = str(one.input_line)
    if one.is_add() and place in in_use and not isinstance(one.value(), list | dict):
        yield f"{place} is chosen already: expected it without the +; write {word.lstrip('+')}"
    if one.is_add() or one.is_force_add() or place in {*in_use, *LISTS}:
        if one.is_delete() and place in in_use and one.value() not in (None, in_use[place]):
            yield (
                f"{word} leaves out a choice that is not made: expected ~{place}, or"
                f" ~{place}={in_use.get(place)}"
            )
        return
    if one.is_delete():
        yield (
            f"{word} leaves out a group that is not chosen: expected one of {_list([*in_use])}"
            f"{did_you_mean(place, in_use)}"
        )
        return
    yield f"{place} is not chosen yet, so there is nothing to change: expected a + in front; write +{word}"


def _key_faults(one: Override, whole: DictConfig, groups: Sequence[str]) -> Iterator[str]:
    """Keys that are not there, or are there already."""
    key = one.key_or_group
    word = str(one.input_line)
    if one.package is not None:
        yield f"{key} is no group of choices{_meant(key, whole, groups, 'a group')}"
        return
    value = one.value()
    known = _known(whole, key)
    if isinstance(value, dict) and known and isinstance(known[0], DictConfig):
        yield from _new_names(key, value, known[0])
    if one.is_force_add() or (one.is_add() and (known is None or isinstance(value, dict | list))):
        return
    if known is None:
        yield _unknown(key, word, whole, groups)
    elif one.is_add() and known[0] is not None:
        yield (
            f"{key} is in the configuration already: expected it without the +; write"
            f" {word.lstrip('+')}"
        )
    elif one.is_delete() and value is not None and value != known[0]:
        yield f"{word} leaves out a value that is not there, {key} is {known[0]}: expected ~{key}"


def _new_names(key: str, value: Mapping[Any, Any], known: DictConfig) -> Iterator[str]:
    """Names of a mapping that replaces one without them: Hydra merges the two."""
    for name in value:
        if str(name) not in known:
            yield (
                f"{key} has no {name}: expected one of {', '.join(map(str, known))}, since what is"
                f" given is merged into them; write +{key}.{name}=..., and ~{key}.OTHER for what is"
                " to go"
            )


def _unknown(key: str, word: str, whole: DictConfig, groups: Sequence[str]) -> str:
    parent, _, last = key.rpartition(".")
    if (group := key.replace(".", "/")) in groups and group != key:
        given = word.partition("=")[2]
        return f"{key} is a group of choices: expected it with a slash; write {group}={given}"
    node = _known(whole, parent) if parent else (whole,)
    within = node[0] if node is not None else None
    target = within.get("_target_") if isinstance(within, DictConfig) and parent else None
    if not word.startswith("~") and target and last in arguments(target):
        return (
            f"{key} is not in the configuration, but {target} takes it: expected a + in front;"
            f" write +{word}"
        )
    meant = _meant(key, whole, groups)
    if others := choices_with(parent, last):
        meant = f"{meant.partition('; did you mean')[0]}; {parent}={others[0]} has it"
    return f"{key} is no key of the configuration{meant}"


def choices_with(group: str, key: str) -> list[str]:
    """The choices of a group whose files have a key, shortest name first."""
    files = (conf_folder() / group).glob("*.yaml") if group.isidentifier() else ()
    found = [file.stem for file in files if key in (yaml.safe_load(file.read_text()) or {})]
    return sorted(found, key=lambda name: (len(name), name))


def _meant(key: str, whole: DictConfig, groups: Sequence[str], what: str = "one") -> str:
    """The words that were expected in the place of `key`, and what is near."""
    if siblings := _siblings(key, whole):
        shown = [each if _TYPED.fullmatch(each) else f"'{each}'" for each in siblings]
        expected = f": expected one of {', '.join(shown)}" if len(siblings) <= _LISTED else ""
    else:
        chosen = [*map(str, whole.hydra.runtime.choices), *map(str, whole)]
        top = [each for each in chosen if not {*each} & {*"/@"} and each != "hydra"]
        expected = f": expected {what} of {_list([*dict.fromkeys(top)])}"
    near = _near(key, whole, groups)
    return expected + (f"; did you mean {near}?" if near else "")


def _siblings(key: str, whole: DictConfig) -> list[str]:
    """The names beside the last one of a nested `key`; none where the rest of it leads nowhere."""
    parent = key.rpartition(".")[0]
    node = _known(whole, parent) if parent else None
    if node is None or not isinstance(node[0], DictConfig):
        return []
    return [each for each in map(str, node[0]) if not each.startswith("_")]


def _near(key: str, whole: DictConfig, groups: Sequence[str]) -> str:
    """The key or group that was most likely meant, as it is typed; empty where none is near."""
    parent, _, last = key.rpartition(".")
    siblings = _siblings(key, whole)
    written = filter(_TYPED.fullmatch, siblings)
    if found := get_close_matches(last, written, n=1, cutoff=0.65):
        return _with_slash(f"{parent}.{found[0]}", groups)
    keys = [*filter(_TYPED.fullmatch, _keys(whole))]
    every = [each for each in keys if not each.startswith(_ECHOES)]
    # Where the part is there and has no such key, a value below it, or of another, may be meant.
    if siblings:
        every = [each for each in every if _is_value(whole, each)]
    every.sort(key=lambda each: (not each.startswith(f"{parent}."), each.count(".")))
    if same := [each for each in every if each.rpartition(".")[2] == last]:
        return _with_slash(same[0], groups)  # lr: optimizer.lr
    if not siblings and (  # or all keys of the part are like it, by the part's name
        found := get_close_matches(key, [*groups, *every, *keys], n=1, cutoff=NEAR)
    ):
        return _with_slash(found[0], groups)
    ends = {each.rpartition(".")[2]: each for each in reversed(every)}
    found = get_close_matches(last, ends, n=1, cutoff=0.8)
    return _with_slash(ends[found[0]], groups) if found else ""


def _is_value(whole: DictConfig, key: str) -> bool:
    """Tell whether a key is that of no mapping."""
    found = _known(whole, key)
    return found is not None and not isinstance(found[0], DictConfig)


def _with_slash(key: str, groups: Sequence[str]) -> str:
    """A key as it is typed: that of a group of choices has slashes."""
    group = key.replace(".", "/")
    return group if group in groups else key


def _groups(parent: str = "") -> list[str]:
    """Every group of choices, such as `model` and `model/prior`."""
    loader = GlobalHydra.instance().config_loader()
    found = []
    for name in loader.list_groups(parent):
        path = f"{parent}/{name}" if parent else name
        found += [path, *_groups(path)]
    return found


def _options(group: str) -> list[str]:
    loader = GlobalHydra.instance().config_loader()
    found = loader.get_group_options(group, ObjectType.CONFIG)
    return sorted(each for each in found if not each.startswith("_"))


def _exists(group: str, name: str) -> bool:
    folder, _, last = name.rpartition("/")
    return last in _options(f"{group}/{folder}" if folder else group)


def _known(whole: DictConfig, key: str) -> tuple[Any] | None:
    """The value at a key, unresolved; None where there is none. What is an interpolation may hold
    any key.
    """
    node: Any = whole
    for part in key.split("."):
        if isinstance(node, ListConfig) and part.isdecimal() and int(part) < len(node):
            node = node._get_node(int(part))
        elif isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            if node._is_interpolation():
                return ("",)
            if (node := node._get_node(part, validate_access=False)) is None:
                return None
        else:
            return None
    return (node,) if isinstance(node, DictConfig | ListConfig) else (node._value(),)


def _keys(node: DictConfig, before: str = "") -> Iterator[str]:
    """Every dotted key."""
    for name in map(str, node):
        path = f"{before}{name}"
        yield path
        child = node._get_node(name)
        if _holds_keys(child):
            yield from _keys(cast(DictConfig, child), f"{path}.")


def _holds_keys(node: Any) -> bool:
    """Tell whether a node is a mapping that is written out."""
    if not isinstance(node, DictConfig) or node._is_interpolation():
        return False
    return not (node._is_none() or node._is_missing())


def arguments(target: object) -> list[str]:
    """Names that a function or class takes; none of what cannot be looked at."""
    try:
        return [*signature(get_object(str(target))).parameters]
    except Exception:  # whatever an import of someone's module may raise
        return []


def _is_plain(value: Any) -> bool:
    return value is None or (isinstance(value, str | int | float) and "${" not in str(value))


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
