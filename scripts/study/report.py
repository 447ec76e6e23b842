"""What the rows of `study.csv` say: tables and sentences, each with its interval."""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from jensen.base.errors import InputError
from jensen.reports.level import Against, difference, levels, table_at
from jensen.reports.pick import beaten
from jensen.reports.ranks import Interval, Ranks, rank_correlations
from jensen.reports.shares import shares
from jensen.reports.table import markdown

SCORES = (
    "mig_exact",
    "mig_hist20",
    "mig_sup",
    "infom",
    "infoc",
    "infoe",
    "dci_boost20",
    "factor_vae",
    "sap_r2",
    "modularity",
)
LABEL_FREE = ("elbo", "-tc", "mi", "udr")
"""Quantities that need no factors; the larger, the better a model is hoped to be."""

SETTINGS = ("distortion", "rate", "mi", "tc", "dwkl", "active_units", *SCORES, "udr")
_WORDS = ("objective", "run")

Row = Mapping[str, Any]


def read(path: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """What the head of a study.csv says, and its rows."""
    lines = path.read_text().splitlines()
    head = dict(line.removeprefix("# ").split(": ", 1) for line in lines if line.startswith("# "))
    found = []
    for row in csv.DictReader(line for line in lines if not line.startswith("# ")):
        found.append(
            {
                key: value if key in _WORDS else float(value) if value else math.nan
                for key, value in row.items()
            }
        )
    if not found:
        raise InputError(f"{path} holds no runs: expected a row a run, as scripts/study writes it")
    return head, found


def objectives(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["objective"] for row in rows))


def settings(rows: Iterable[Row]) -> list[tuple[str, float]]:
    """Of each run, its objective and strength."""
    return [(row["objective"], row["strength"]) for row in rows]


def column(rows: Iterable[Row], name: str) -> np.ndarray:
    """A quantity of all runs; after a minus, its negative."""
    sign = -1 if name.startswith("-") else 1
    return sign * np.array([row[name.removeprefix("-")] for row in rows], dtype=float)


def grouped(rows: Iterable[Row]) -> dict[tuple[str, float], list[Row]]:
    found: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        found.setdefault((row["objective"], row["strength"]), []).append(row)
    return found


def alive(rows: Iterable[Row]) -> list[Row]:
    """The runs that have not collapsed: a latent is active."""
    return [row for row in rows if row["active_units"] > 0]


def by_setting(rows: Sequence[Row]) -> list[list[str]]:
    """Heads, and the median of each setting over its seeds, with the least and the largest."""
    names = [name for name in SETTINGS if np.isfinite(column(rows, name)).any()]
    table = [["objective", "strength", "runs", *names]]
    for (objective, strength), same in grouped(rows).items():
        cells = [_spread(column(same, name), _digits(name)) for name in names]
        table.append([objective, f"{strength:g}", str(len(same)), *cells])
    return table


def _spread(values: np.ndarray, digits: int) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return ""
    middle = f"{np.median(known):.{digits}f}"
    if len(known) == 1:
        return middle
    return f"{middle} [{known.min():.{digits}f}, {known.max():.{digits}f}]"


def _digits(name: str) -> int:
    if name == "active_units":
        return 0
    return 2 if name in ("distortion", "rate", "elbo", "mi", "tc", "dwkl") else 3


# 1. At equal distortion.


def equal_distortion(rows: Sequence[Row]) -> tuple[list[float], dict[str, dict[float, Any]]]:
    """Levels of distortion that objectives share, and of TC and MI at each: what each objective has,
    one a seed.
    """
    curves: dict[str, dict[int, list[Row]]] = {}
    for row in rows:
        curves.setdefault(row["objective"], {}).setdefault(int(row["seed"]), []).append(row)
    every = [column(same, "distortion") for each in curves.values() for same in each.values()]
    places = levels(every)
    found: dict[str, dict[float, Any]] = {"tc": {}, "mi": {}}
    for name, at in found.items():
        points = {
            objective: {
                seed: (column(same, "distortion"), column(same, name))
                for seed, same in each.items()
            }
            for objective, each in curves.items()
        }
        for place in places:
            at[place] = table_at(points, place)
    return places, found


def at_equal_distortion(rows: Sequence[Row]) -> list[str]:
    places, found = equal_distortion(rows)
    if not places:
        return [
            "No two objectives reach one distortion: nothing can be compared at equal distortion."
        ]
    lines = []
    for name, title, sign in (("tc", "least TC", 1), ("mi", "most MI", -1)):
        table = [["objective", *(f"D = {place:.1f}" for place in places)]]
        for objective in objectives(rows):
            cells = [_mean(found[name][place][objective]) for place in places]
            table.append([objective, *cells])
        lines += [
            f"{name.upper()} in nats, mean [least, largest] over seeds:",
            "",
            markdown(table),
            "",
        ]
        for place in places:
            lines.append(f"- {_verdict(found[name][place], title, sign, place)}")
        lines.append("")
    return lines


def _mean(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "not reached"
    if len(known) == 1:
        return f"{known[0]:.2f} (1 seed)"
    return f"{known.mean():.2f} [{known.min():.2f}, {known.max():.2f}]"


def _verdict(read_off: Mapping[str, np.ndarray], title: str, sign: int, place: float) -> str:
    """A sentence on the best objective at a distortion, and whom it is not told apart from."""
    known = {name: values for name, values in read_off.items() if np.isfinite(values).any()}
    order = sorted(known, key=lambda name: sign * float(np.nanmean(known[name])))
    best = order[0]
    gaps = {name: difference(known[name], known[best]) for name in order[1:]}
    unsettled = [name for name, gap in gaps.items() if not gap.settled]
    words = "; ".join(f"{name} {_gap(gap)}" for name, gap in gaps.items())
    head = f"At D = {place:.1f} {best} has the {title}. Others less {best}: {words}."
    if not unsettled:
        return f"{head} All of these differences have an interval without 0."
    return f"{head} Not settled against {', '.join(unsettled)}."


def _gap(gap: Against) -> str:
    if gap.seeds < 2:
        return f"{gap.mean:+.2f} ({gap.seeds} seed, no interval)"
    return f"{gap.mean:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"


# 2. Minibatch estimates of TC.


def estimates(rows: Sequence[Row]) -> list[list[str]]:
    """Exact TC of each setting, its standard error, and how far minibatch estimates are from it."""
    table = [
        ["objective", "strength", "exact TC", "largest SE", "stratified - exact", "mws - exact"]
    ]
    for (objective, strength), same in grouped(rows).items():
        exact = column(same, "tc")
        table.append(
            [
                objective,
                f"{strength:g}",
                _spread(exact, 2),
                f"{np.max(column(same, 'tc_se')):.3f}",
                _spread(column(same, "tc_stratified") - exact, 2),
                _spread(column(same, "tc_mws") - exact, 2),
            ]
        )
    return table


def on_estimates(rows: Sequence[Row]) -> list[str]:
    exact = column(rows, "tc")
    lines = []
    for name in ("stratified", "mws"):
        found = column(rows, f"tc_{name}")
        off = found - exact
        order = _orders(rows, exact, found)
        lines.append(
            f"- {name}: off by {off.min():+.2f} to {off.max():+.2f} nats (median"
            f" {np.median(off):+.2f}), where exact TC is {exact.min():.2f} to {exact.max():.2f}; rank"
            f" correlation with exact TC over runs {_interval(order)}."
        )
    latents = int(rows[0]["latents"])
    constant = (latents - 1) * rows[0]["log_n"]
    lines.append(
        f"- Of what mws is off by, (D - 1) log N = {constant:.2f} nats are its constant, the same for"
        f" all runs of D = {latents} latents; the rest is"
        f" {(off - constant).min():+.2f} to {(off - constant).max():+.2f} (median"
        f" {np.median(off - constant):+.2f})."
    )
    return lines


def _orders(rows: Sequence[Row], one: np.ndarray, other: np.ndarray) -> Interval:
    return rank_correlations(np.stack([one, other], 1), settings(rows)).of(0, 1)


# 3. Which scores agree.


def agreement(rows: Sequence[Row]) -> tuple[list[str], Ranks]:
    """Names of scores and other quantities, and their rank correlations."""
    wanted = [*SCORES, "udr", "elbo", "-tc", "mi", "active_units"]
    names = [name for name in wanted if np.isfinite(column(rows, name)).any()]
    table = tuple(tuple(column(rows, name).tolist()) for name in names)
    return names, _ranks(table, tuple(settings(rows)))


@cache
def _ranks(columns: tuple[tuple[float, ...], ...], groups: tuple[tuple[str, float], ...]) -> Ranks:
    return rank_correlations(np.stack([*map(np.array, columns)], 1), groups)


def on_agreement(rows: Sequence[Row]) -> list[str]:
    names, found = agreement(rows)
    pairs = [
        (found.of(i, j), names[i], names[j])
        for i in range(len(names))
        for j in range(i)
        if names[i] in SCORES and names[j] in SCORES
    ]
    pairs = [pair for pair in pairs if np.isfinite(pair[0].value)]
    pairs.sort(key=lambda pair: -pair[0].value)
    agree = [pair for pair in pairs if pair[0].low > 0]
    against = [pair for pair in pairs if pair[0].high < 0]
    lines = [
        f"- Of {len(pairs)} pairs of scores {len(agree)} agree (interval above 0), {len(against)}"
        f" disagree (below 0), and {len(pairs) - len(agree) - len(against)} are not settled."
    ]
    for title, some in (("most", pairs[:5]), ("least", pairs[-5:])):
        words = "; ".join(f"{one} and {other} {_interval(rank)}" for rank, one, other in some)
        lines.append(f"- Those that agree {title}: {words}.")
    return lines


def _interval(found: Interval, digits: int = 2) -> str:
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


# 4. Whether quantities without labels choose good models.


def choices(rows: Sequence[Row]) -> list[list[str]]:
    """The share of runs that the run which a criterion chooses beats by each score."""
    same = settings(rows)
    known = [name for name in LABEL_FREE if np.isfinite(column(rows, name)).any()]
    table = [["score", *known]]
    for score in SCORES:
        cells = [_interval(beaten(column(rows, name), column(rows, score), same)) for name in known]
        table.append([score, *cells])
    return table


def on_choices(rows: Sequence[Row]) -> list[str]:
    same = settings(rows)
    names, found = agreement(rows)
    lines = []
    for name in LABEL_FREE:
        if name not in names:
            continue
        column_of = names.index(name)
        ranks = [found.of(column_of, names.index(score)) for score in SCORES if score in names]
        for_it = sum(rank.low > 0 for rank in ranks)
        against = sum(rank.high < 0 for rank in ranks)
        won = [beaten(column(rows, name), column(rows, score), same) for score in SCORES]
        better = sum(each.low > 0.5 for each in won)
        worse = sum(each.high < 0.5 for each in won)
        lines.append(
            f"- {name}: its rank correlation is above 0 with {for_it} of {len(ranks)} scores and below"
            f" 0 with {against}; the run that it chooses is better than half of the runs by {better}"
            f" and worse by {worse}, each by the whole interval."
        )
    return lines


# 5. Hyperparameters or seeds.


def effects(rows: Sequence[Row]) -> list[list[str]]:
    """Shares of the sum of squares, and what of a run's variance is of its setting."""
    table = [
        [
            "quantity",
            "objective",
            "strength",
            "seed",
            "of a run's variance, its setting's [interval]",
        ]
    ]
    for name in (*SCORES, "udr", "tc", "mi", "distortion"):
        try:
            found = shares(
                column(rows, name),
                [row["objective"] for row in rows],
                column(rows, "strength").tolist(),
            )
        except InputError:
            continue
        if math.isnan(found.rest):
            continue
        table.append(
            [
                name,
                *(f"{each:.0%}" for each in found[:3]),
                f"{found.setting:.2f} [{found.low:.2f}, {found.high:.2f}]",
            ]
        )
    return table


def on_effects(rows: Sequence[Row]) -> list[str]:
    table = effects(rows)[1:]
    if not table:
        return ["One seed a setting: what is of the seed cannot be told."]
    more, less, open_ = [], [], []
    for name, *_, cell in table:
        low, high = (float(end) for end in cell.split("[")[1].rstrip("]").split(","))
        (more if low > 0.5 else less if high < 0.5 else open_).append(name)
    parts = (
        ("The setting explains more than the seed of", more),
        ("The seed explains more than the setting of", less),
        ("Not settled", open_),
    )
    return [f"- {words}: {', '.join(names)}." for words, names in parts if names]


QUESTIONS: tuple[tuple[str, Callable[[Sequence[Row]], list[str]], Any], ...] = (
    (
        "At equal distortion, which objective has the least TC and the most MI?",
        at_equal_distortion,
        None,
    ),
    ("How far are minibatch estimates of TC from the exact one?", on_estimates, estimates),
    ("Which scores agree?", on_agreement, None),
    ("Do quantities without labels choose good models?", on_choices, choices),
    ("Do hyperparameters or seeds explain more?", on_effects, effects),
)


def document(head: Mapping[str, str], rows: Sequence[Row], planned: int) -> str:
    """The report in Markdown."""
    seeds = sorted({int(row["seed"]) for row in rows})
    steps = sorted({int(row["steps"]) for row in rows})
    living = alive(rows)
    collapsed = grouped(row for row in rows if not row["active_units"] > 0)
    lines = [
        "# The study",
        "",
        f"{len(rows)} of {planned} runs, size {head['size']}, {len(grouped(rows))} settings, seeds"
        f" {', '.join(map(str, seeds))}, {', '.join(map(str, steps))} steps. N ="
        f" {round(math.exp(float(rows[0]['log_n']))):,} held-out examples, log N ="
        f" {rows[0]['log_n']:.2f} nats.",
        "",
        *(f"- {name}: {value}" for name, value in head.items() if name != "size"),
        "",
        "Intervals are of 95 %. Those of differences between objectives are Student's over seeds that"
        " both have; those of rank correlations and choices are bootstraps of whole settings.",
        "",
    ]
    if collapsed:
        words = ", ".join(
            f"{objective} {strength:g} ({len(same)} of {len(grouped(rows)[objective, strength])})"
            for (objective, strength), same in collapsed.items()
        )
        lines += [
            f"{len(rows) - len(living)} runs have collapsed, without an active latent: {words}. They"
            " stand in the last table and are left out of all else.",
            "",
        ]
    for question, say, table in QUESTIONS if living else ():
        lines += [f"## {question}", "", *say(living), ""]
        if table is not None:
            lines += [markdown(table(living)), ""]
    lines += [
        "## Settings",
        "",
        "Median [least, largest] over seeds.",
        "",
        markdown(by_setting(rows)),
        "",
    ]
    return "\n".join(lines)
