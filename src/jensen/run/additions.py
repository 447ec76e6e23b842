"""Choices that a command adds to a group of several: `+callbacks=ema`."""

import re
from collections.abc import Sequence

import yaml
from omegaconf import DictConfig

from jensen.run.conf import conf_folder

LISTS = ("callbacks", "diagnostics", "logger")
"""Groups of which several are chosen."""


def gathered(words: Sequence[str]) -> list[str]:
    """Overrides with all that is added to a group in one of them.

    Hydra takes one addition to a group, and none, without a word, beside a choice of that group.
    Every other word stays as it is.

    >>> gathered(["+callbacks=ema", "seed=1", "+callbacks=[swa,lr_monitor]"])
    ['+callbacks=[ema,swa,lr_monitor]', 'seed=1']
    >>> gathered(["+callbacks=ema", "callbacks=[checkpoint]"])
    ['callbacks=[checkpoint,ema]']
    """
    found = [*words]
    for group in LISTS:
        mine = [word for word in found if word.startswith((f"{group}=", f"+{group}="))]
        mine.sort(key=lambda word: word.startswith("+"))  # to the choice, if any, the rest is added
        chosen = [_names(word) for word in mine]
        if len(mine) < 2 or not mine[1].startswith("+") or None in chosen:
            continue
        names = dict.fromkeys(name for each in chosen for name in each or ())
        key = mine[0].partition("=")[0]
        place = min(map(found.index, mine))
        found[place] = f"{key}=[{','.join(names)}]"
        found = [word for at, word in enumerate(found) if at == place or word not in mine]
    return found


def untaken(overrides: Sequence[str], cfg: DictConfig) -> str:
    """One sentence for the first choice that was added to a group and is not in `cfg`; empty where
    all are.
    """
    for word in overrides:
        group = word.partition("=")[0].lstrip("+")
        if not word.startswith("+") or group not in LISTS:
            continue
        for name in _names(word) or ():
            if not _keys(group, name) <= {*map(str, cfg[group])}:
                return (
                    f"{word} is lost, since the sweep chooses {group} as a whole: expected one choice"
                    f" of it; write {group}=[...] with all of them"
                )
    return ""


def _names(word: str) -> list[str] | None:
    """The choices of an override; None of one that is swept over."""
    value = word.partition("=")[2].replace(" ", "")
    found = re.fullmatch(r"\[([\w,]*)\]|(\w+)", value)
    return [name for name in (found[1] or found[2] or "").split(",") if name] if found else None


def _keys(group: str, name: str) -> set[str]:
    """The keys below the group that a choice of it gives; none of one that lies elsewhere."""
    file = conf_folder() / group / f"{name}.yaml"
    if not file.is_file() or "@package" in (text := file.read_text()):
        return set()
    return {*(yaml.safe_load(text) or {})} - {"defaults"}
