"""Medians and quartiles over seeds, as a table for the terminal, for Markdown and for CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jensen.reports.sweep import BOUND, SCORE, Sweep, numbers, shown
from jensen.reports.text import formula_free, plain

PARTS = {
    "decomposition/mutual_information": "MI",
    "decomposition/total_correlation": "TC",
    "decomposition/dimension_wise_kl": "DWKL",
}
ACTIVE = "rate/active_units"
UDR = {"udr/spearman": "UDR (Spearman)", "udr/lasso": "UDR (Lasso)"}
INFOMEC = ("infom", "infoc", "infoe", "infom_floored", "infoc_floored")
"""The numbers of `scores.infomec` that are scores: by the published rule, and less what chance
explains.
"""

AMONG = " among "
"""Between a criterion and the groups that it chooses among, where these are not all."""

ACROSS = 7
"""Quantities that one table holds side by side."""

Values = list[list[float]]
"""One quantity: for each group, one number a run; NaN where it is missing."""


class Quartiles(NamedTuple):
    """Over the runs that have the quantity."""

    median: float
    low: float
    high: float
    runs: int


def quartiles(values: Sequence[float]) -> Quartiles:
    """With linear interpolation, as numpy's; NaN of nothing."""
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    if not len(known):
        return Quartiles(np.nan, np.nan, np.nan, 0)
    low, median, high = np.quantile(known, [0.25, 0.5, 0.75]).tolist()
    return Quartiles(median, low, high, len(known))


def measured(sweep: Sweep) -> dict[str, Values]:
    """Every number of any run, by name: the bound first, then the rate's parts, the active units,
    and the rest as found.
    """
    found = [[numbers(run.scores) for run in group.runs] for group in sweep.groups]
    names = dict.fromkeys(
        [*BOUND, *PARTS, ACTIVE, *(name for group in found for run in group for name in run)]
    )
    values = {name: [[run.get(name, np.nan) for run in group] for group in found] for name in names}
    return {name: each for name, each in values.items() if np.isfinite(np.concatenate(each)).any()}


def scores(sweep: Sweep) -> list[str]:
    """Names of the scores among the numbers: of each diagnostic that is a score, what is called
    like its function.

    (InfoMEC's are five; other numbers, such as an accuracy on training points, only explain a
    score.)
    """
    found: dict[str, None] = {}
    for run in sweep.runs:
        for name, results in run.scores.get("diagnostics", {}).items():
            settings: Mapping[str, Any] = results.get("settings") or {}
            if settings.get("_target_") == SCORE:
                function = settings["function"]["path"].rsplit(".", 1)[-1]
                keys = INFOMEC if function == "infomec" else (function,)
                found |= {f"{name}/{key}": None for key in keys if key in results}
    return list(found)


def title(name: str) -> str:
    """A quantity's name at the head of a column."""
    name, among, which = name.partition(AMONG)
    diagnostic, _, key = name.partition("/")
    own = key if key.startswith(("info", diagnostic)) else name
    return {**PARTS, ACTIVE: "active units", **UDR}.get(name, own) + among + which


def columns(sweep: Sweep, values: Mapping[str, Values]) -> list[str]:
    """The quantities that the tables show, of `values`: the bound, the rate's parts, the active
    units, the scores, and UDR.
    """
    wanted = [*BOUND, *PARTS, ACTIVE, *scores(sweep), *UDR]
    return [name for name in wanted if name in values]


def cell(found: Quartiles, runs: int, digits: int) -> str:
    """`median [quartile, quartile]`; how many runs it is of, where some lack it."""
    if not found.runs:
        return "missing"
    median, low, high = (
        f"{round(value, digits) + 0.0:.{digits}f}" for value in found[:3]
    )  # + 0.0: no minus zero
    text = f"{median} [{low}, {high}]" if found.runs > 1 else median
    return text if found.runs == runs else f"{text} ({found.runs} of {runs})"


def tables(
    sweep: Sweep, values: Mapping[str, Values], across: int = ACROSS
) -> list[list[list[str]]]:
    """Rows of cells, heads first, a row a group; as many tables as the columns need, `across` to
    one.
    """
    names = columns(sweep, values)
    pieces = [names[start : start + across] for start in range(0, len(names), across)]
    return [_table(sweep, {name: values[name] for name in piece}) for piece in pieces]


def _table(sweep: Sweep, values: Mapping[str, Values]) -> list[list[str]]:
    rows = [[*(sweep.keys or [""]), "runs", *map(title, values)]]
    for number, group in enumerate(sweep.groups):
        row = [shown(group.values[key]) if key in group.values else "" for key in sweep.keys] or [
            "all"
        ]
        row.append(str(len(group.runs)))
        for name, each in values.items():
            digits = 0 if name == ACTIVE else 2 if name in (*BOUND, *PARTS) else 3
            row.append(cell(quartiles(each[number]), len(group.runs), digits))
        rows.append(row)
    return rows


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """For the terminal: columns of one width, flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
        for row in rows
    )


def markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = [[plain(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body))


def as_csv(sweep: Sweep, values: Mapping[str, Values]) -> str:
    """Every number, exactly: a line a group and quantity, with the count, the median and the
    quartiles.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [*map(formula_free, sweep.keys), "quantity", "runs", "median", "quartile_1", "quartile_3"]
    )
    for number, group in enumerate(sweep.groups):
        setting = [
            formula_free(shown(group.values[key])) if key in group.values else ""
            for key in sweep.keys
        ]
        for name, each in values.items():
            found = quartiles(each[number])
            numbers_of = [
                "" if np.isnan(value) else repr(value)
                for value in (found.median, found.low, found.high)
            ]
            writer.writerow([*setting, formula_free(name), found.runs, *numbers_of])
    return text.getvalue()
