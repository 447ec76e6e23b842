"""The figures of the study."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from report import SCORES, agreement, alive, column, objectives

from jensen.reports.figures import COLOURS, MARKS, bare, blank, fit

Row = Mapping[str, Any]


def against(rows: Sequence[Row], x: str, y: str, titles: tuple[str, str]) -> Figure:
    """A point a run; a line through the medians of each objective's settings, by strength."""
    figure = blank(7, 4.6)
    axes = figure.add_subplot()
    bare(axes)
    for place, name in enumerate(objectives(rows)):
        own = [row for row in rows if row["objective"] == name]
        colour = COLOURS[place % len(COLOURS)]
        mark = MARKS[place % len(MARKS)]
        axes.scatter(column(own, x), column(own, y), s=16, color=colour, marker=mark, alpha=0.55)
        strengths = sorted({row["strength"] for row in own})
        middle = np.array(
            [
                [
                    np.median(column([row for row in own if row["strength"] == each], key))
                    for key in (x, y)
                ]
                for each in strengths
            ]
        )
        label = f"{name} {strengths[0]:g} to {strengths[-1]:g}"
        axes.plot(*middle.T, color=colour, marker=mark, markersize=5, linewidth=1.4, label=label)
        axes.annotate(
            f"{strengths[-1]:g}",
            middle[-1],
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=8,
            color=colour,
        )
    axes.set_xlabel(titles[0])
    axes.set_ylabel(titles[1])
    axes.legend(fontsize=8, frameon=False)
    return fit(figure)


def matrix(rows: Sequence[Row]) -> Figure:
    """Rank correlations; grey where the interval holds 0."""
    names, found = agreement(rows)
    figure = blank(8.4, 7.6)
    axes = figure.add_subplot()
    image = axes.imshow(found.value, vmin=-1, vmax=1, cmap="PuOr")
    for i in range(len(names)):
        for j in range(len(names)):
            rank = found.of(i, j)
            if i == j or not np.isfinite(rank.value):
                continue
            strong = abs(rank.value) > 0.6
            axes.text(
                j,
                i,
                f"{100 * rank.value:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                fontweight="bold" if rank.settles_sign else "normal",
                color=("white" if strong else "black") if rank.settles_sign else "0.55",
            )
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    scores = sum(name in SCORES for name in names)
    for line in (axes.axhline, axes.axvline):
        line(scores - 0.5, color="black", linewidth=0.8)
    axes.set_title(
        "Spearman's correlation over runs, in %; bold: its 95 % interval is without 0", fontsize=9
    )
    figure.colorbar(image, shrink=0.6)
    return fit(figure)


def draw(rows: Sequence[Row]) -> dict[str, Figure]:
    """All figures, by name, of the runs that have not collapsed."""
    rows = alive(rows)
    if not rows:
        return {}
    return {
        "rate_distortion": against(
            rows, "rate", "distortion", ("rate, nats per example", "distortion, nats per example")
        ),
        "tc_distortion": against(
            rows,
            "distortion",
            "tc",
            ("distortion, nats per example", "exact total correlation, nats"),
        ),
        "scores": matrix(rows),
    }
