"""The finished runs of a sweep as plain values, in groups that differ in nothing but the seed."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jensen.reports.text import one_line

BOUND = ("distortion", "rate", "elbo")
SCORE = "jensen.diagnostics.score.score"


class Whole(str):
    """A setting that is shown as it is, such as the place of a file."""


class Run(NamedTuple):
    """A finished run.

    name: its folder, from the sweep's. settings: what it was composed of, flat, less the seed;
        places of data are `Whole`.
    scores: its scores.json. data: the fingerprint of the data it was trained on, "" where none was
        written down. held_out: how many examples it was judged on, 0 where none was written down.
        ills: what ailed the model at its end, sentences.
    """

    name: str
    seed: int
    settings: Mapping[str, Any]
    scores: Mapping[str, Any]
    data: str = ""
    ills: tuple[str, ...] = ()
    held_out: int = 0


class Group(NamedTuple):
    """values: of the swept keys; a key that this group has not is absent. runs: by seed."""

    values: Mapping[str, Any]
    runs: Sequence[Run]

    @property
    def label(self) -> str:
        return ", ".join(f"{name} = {shown(value)}" for name, value in self.values.items()) or "all"


class Sweep(NamedTuple):
    """keys: what was swept, short names to whole keys. left_out: names of the other runs, and why
    they are not counted.
    """

    keys: Mapping[str, str]
    groups: Sequence[Group]
    left_out: Mapping[str, str]

    @property
    def runs(self) -> list[Run]:
        return [run for group in self.groups for run in group.runs]


def flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested mappings as one, of dotted keys; lists stay as tuples."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{before}{key}.")
        else:
            leaves[f"{before}{key}"] = tuple(value) if isinstance(value, list) else value
    return leaves


def told_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs with the settings by which their data differ, and no others.

    Places that held the same data become one, so that they make no groups. Runs of the same
    settings on other data, which were changed where they lie, get the beginning of the fingerprint
    as the setting `data.fingerprint`.
    """
    first: dict[str, Run] = {}
    same = []
    for run in runs:
        known = first.setdefault(run.data, run) if run.data else run
        places = {
            key: value
            for key, value in known.settings.items()
            if isinstance(value, Whole) and key in run.settings
        }
        same.append(run._replace(settings={**run.settings, **places}))
    data: dict[str, set[str]] = {}
    for run in same:
        data.setdefault(repr((run.seed, sorted(run.settings.items(), key=repr))), set()).add(
            run.data
        )
    if all(len(found) == 1 for found in data.values()):
        return same
    return [
        run._replace(
            settings={**run.settings, "data.fingerprint": Whole(run.data[:8] or "unknown")}
        )
        for run in same
    ]


def grouped(runs: Sequence[Run], left_out: Mapping[str, str]) -> Sweep:
    """Runs by what they were swept over, groups in the order of its values; of equal settings and
    seed, only one counts.
    """
    runs = _with_absent(runs)
    keys = _short(_swept(runs))
    found: dict[tuple[str, ...], dict[int, Run]] = {}
    twice = {}
    for run in runs:
        group = found.setdefault(tuple(repr(run.settings.get(key)) for key in keys.values()), {})
        if run.seed in group:
            twice[run.name] = f"it has the settings and the seed of {group[run.seed].name}"
        else:
            group[run.seed] = run
    groups = []
    for same in found.values():
        members = [same[seed] for seed in sorted(same)]
        values = {
            name: members[0].settings[key]
            for name, key in keys.items()
            if key in members[0].settings
        }
        groups.append(Group(values, members))
    groups.sort(key=lambda group: [_order(group.values.get(name)) for name in keys])
    return Sweep(keys, groups, {**left_out, **twice})


def _with_absent(runs: Sequence[Run]) -> list[Run]:
    """The runs, with None for a key that some have and others lack, where nothing else tells these
    apart.
    """
    added: dict[str, None] = {}
    while True:
        filled = [run._replace(settings={**added, **run.settings}) for run in runs]
        keys = _swept(filled)
        first: dict[tuple[str, ...], Run] = {}
        for run in filled:
            like = first.setdefault(tuple(repr(run.settings.get(key)) for key in keys), run)
            differ = [
                key
                for key, value in [*run.settings.items(), *like.settings.items()]
                if (key in run.settings) != (key in like.settings) and value is not None
            ]
            if differ:
                added[differ[0]] = None
                break
        else:
            return filled


def _swept(runs: Sequence[Run]) -> list[str]:
    """Keys that take two values or more among the runs that have them."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for key, value in run.settings.items():
            found.setdefault(key, set()).add(repr(value))
    return [key for key, values in found.items() if len(values) > 1]


def _short(keys: Sequence[str]) -> dict[str, str]:
    """A key under its last part where that names only one; a `_target_` under what it makes."""
    ends = {key: key.removesuffix("._target_") for key in keys}
    count = Counter(end.rsplit(".", 1)[-1] for end in ends.values())
    return {
        last if count[last := end.rsplit(".", 1)[-1]] == 1 else end: key
        for key, end in ends.items()
    }


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then the rest by name, then what is absent."""
    if is_number(value):
        return 0, float(value), ""
    return (2 if value is None else 1), 0.0, str(value)


def is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (isinstance(value, float) or abs(value) < 1 << 1000)
    )


def shown(value: Any) -> str:
    """A setting as people write it; of a class's path, its name."""
    if isinstance(value, Whole):
        return one_line(value)
    if is_number(value):
        short = f"{value:g}" if abs(value) < 1e300 else ""
        return short if short and float(short) == value else repr(value)
    if isinstance(value, tuple):
        return "[" + ",".join(map(shown, value)) + "]"
    return one_line(str(value).rsplit(".", 1)[-1])


def odd(scores: Mapping[str, Any]) -> str:
    """The part of a scores.json that is not as jensen writes it, where that cannot be read; empty
    if nothing is.
    """
    for part in ("bound", "diagnostics"):
        if not isinstance(scores.get(part), dict):
            return f"its {part} are {type(scores.get(part)).__name__}"
    for name, value in scores["bound"].items():
        if not _is_result(value):
            return f"bound.{name} is no number"
    for name, results in scores["diagnostics"].items():
        if not isinstance(results, dict) or not re.fullmatch(r"[\w.-]+", name):
            return f"diagnostics.{name} is no diagnostic"
        if not _is_known(results.get("settings")):
            return f"diagnostics.{name}.settings are none"
        for key, value in results.items():
            if key != "settings" and not (
                _is_result(value) or (isinstance(value, list) and _all_results(value))
            ):
                return f"diagnostics.{name}.{key} is no number, and no list of such"
    latents = scores["diagnostics"].get("rate", {}).get("by_latent", [])
    return (
        ""
        if isinstance(latents, list) and not any(map(_is_list, latents))
        else "diagnostics.rate.by_latent is no list"
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_known(settings: Any) -> bool:
    """Tell whether a diagnostic's settings say what it is, or nothing."""
    if settings is None:
        return True
    if not isinstance(settings, dict):
        return False
    function = settings.get("function")
    scores = settings.get("_target_") == SCORE
    return not scores or (isinstance(function, dict) and isinstance(function.get("path"), str))


def _is_result(value: Any) -> bool:
    """Tell whether a value is a number that a float can be, NaN and infinities too."""
    return isinstance(value, int | float) and (isinstance(value, float) or abs(value) < 1 << 1000)


def _all_results(values: Sequence[Any]) -> bool:
    return all(
        _is_result(value) or (isinstance(value, list) and _all_results(value)) for value in values
    )


def numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    """The bound and each diagnostic's scalars, as `name/key`; sizes, which are integers, and arrays
    are no such numbers.

    `decomposition_full` is the same quantity as `decomposition`, of more draws: it stands for it
    where both were computed.
    """
    found = {
        name: float(scores["bound"][name]) for name in BOUND if name in scores.get("bound", {})
    }
    diagnostics = dict(scores.get("diagnostics", {}))
    if "decomposition_full" in diagnostics:
        diagnostics["decomposition"] = diagnostics.pop("decomposition_full")
    for name, results in diagnostics.items():
        found |= {
            f"{name}/{key}": value for key, value in results.items() if isinstance(value, float)
        }
    return found


def by_latent(scores: Mapping[str, Any]) -> list[float]:
    """Mean rate of each latent, nats, by falling rate; empty where the diagnostic `rate` was not
    run.
    """
    return sorted(scores.get("diagnostics", {}).get("rate", {}).get("by_latent", []), reverse=True)
