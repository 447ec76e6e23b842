"""The pictures of a sweep. Each is a matplotlib figure of its own; colours are told apart by
colour-blind eyes too.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from jensen.reports.choice import Choice
from jensen.reports.models import Strip
from jensen.reports.sweep import Group, Sweep, by_latent, is_number, shown
from jensen.reports.table import PARTS, Values, quartiles, title

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)  # Okabe & Ito 2008
MARKS = ("o", "s", "^", "D", "v", "P", "X")
MI = "decomposition/mutual_information"
_STRIPS = 8
"""Groups whose traversals fit side by side."""
_TICKS = 10
"""Values that are written below an axis, each by itself."""
_NAMED = 4
"""Groups that are named beside one point."""
_ENLARGED = 6
"""Times that a figure is made a third larger, for labels that take its room."""
_LONGEST = 40
"""Letters of a label."""


def legible(text: str) -> str:
    """A label of some 40 letters, its middle left out, that matplotlib takes for no formula."""
    half = _LONGEST // 2
    kept = text if len(text) <= _LONGEST else f"{text[:half]}...{text[-half:]}"
    return kept.replace("$", r"\$")


def fit(figure: Figure) -> Figure:
    """The figure, as much larger as its labels need to leave room for its axes; laid out once for all
    that it is rendered to.
    """
    for _ in range(_ENLARGED):
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", "constrained_layout not applied")
                figure.canvas.draw()
            break
        except UserWarning:
            figure.set_size_inches(*(1.3 * side for side in figure.get_size_inches()))
    figure.set_layout_engine("none")
    return figure


class Along(NamedTuple):
    """The places of the groups along the horizontal axis.

    name: the swept key that it shows, or "". places: of each group. ticks: places and what to write
        there. log: 2 or 10, or
    0 for equal steps. series: groups, in order, that differ in nothing else; their labels name the
    other keys.
    """

    name: str
    places: list[float]
    ticks: dict[float, str]
    log: int
    series: dict[str, list[int]]

    def dress(self, axes: Axes) -> None:
        if self.log:
            axes.set_xscale("log", base=self.log)
        if len(self.ticks) <= _TICKS or not self.name:
            axes.set_xticks([*self.ticks], [*self.ticks.values()])
            axes.xaxis.set_minor_locator(NullLocator())
        if self.name:
            axes.set_xlabel(legible(self.name))
        elif max(map(len, self.ticks.values())) > 8:
            axes.tick_params(axis="x", rotation=30)


def along(sweep: Sweep) -> Along:
    """The setting along which points are joined: beta if it was swept, else the number of the
    most values; without numbers, the groups one by one.
    """
    groups = sweep.groups
    numeric = [
        name for name in sweep.keys if all(is_number(group.values.get(name)) for group in groups)
    ]
    numeric.sort(
        key=lambda name: (name.endswith("beta"), len({group.values[name] for group in groups})),
        reverse=True,
    )
    if not numeric:
        return Along(
            "",
            [float(place) for place in range(len(groups))],
            {float(place): legible(group.label) for place, group in enumerate(groups)},
            0,
            {"": [*range(len(groups))]},
        )
    name = numeric[0]
    places = [float(group.values[name]) for group in groups]
    log = 0
    if min(places) > 0:
        log = 2 if name.endswith("beta") else 10 if max(places) >= 8 * min(places) else 0
    series: dict[str, list[int]] = {}
    for number in np.argsort(places, kind="stable").tolist():
        rest = Group(
            {key: value for key, value in groups[number].values.items() if key != name}, ()
        )
        series.setdefault(legible(rest.label) if rest.values else "", []).append(number)
    return Along(name, places, {place: f"{place:g}" for place in sorted(set(places))}, log, series)


def blank(width: float, height: float) -> Figure:
    """A figure of so many inches."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def bare(axes: Axes) -> None:
    """Leave of the frame only the left and the lower line, and a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def _medians(values: Values, groups: Sequence[int]) -> list[float]:
    return [quartiles(values[number]).median for number in groups]


def rate_distortion(
    sweep: Sweep, values: Mapping[str, Values], theory: Sequence[tuple[float, float]] = ()
) -> Figure | None:
    """Distortion over the rate, and over the mutual information, which is what of the rate tells
    the data apart.

    theory: (rate, distortion) of the best that any model can do, if it is known.
    """
    if not {"rate", "distortion"} <= values.keys():
        return None
    figure = blank(7.2, 5)
    axes = figure.add_subplot()
    bare(axes)
    place = along(sweep)
    told = MI in values
    if theory:
        axes.plot(*zip(*theory, strict=True), color="0.55", linewidth=5, alpha=0.5, zorder=1)
    medians = {
        name: _medians(values[name], range(len(sweep.groups)))
        for name in ("rate", "distortion", *([MI] if told else []))
    }
    for number, members in enumerate(place.series.values()):
        mark = MARKS[number % len(MARKS)]
        for name, colour, style in [
            ("rate", COLOURS[0], "-"),
            *([(MI, COLOURS[1], "--")] if told else []),
        ]:
            for group in members:
                axes.plot(
                    values[name][group],
                    values["distortion"][group],
                    mark,
                    color=colour,
                    alpha=0.35,
                    markersize=4,
                )
            x, y = ([medians[what][group] for group in members] for what in (name, "distortion"))
            axes.plot(x, y, mark + style, color=colour, markersize=7, linewidth=1.5, zorder=3)
    _name_points(axes, sweep, place, medians["rate"], medians["distortion"])
    handles = [Line2D([], [], marker="o", color=COLOURS[0], label="rate")]
    if told:
        handles.append(
            Line2D([], [], marker="o", color=COLOURS[1], linestyle="--", label="mutual information")
        )
    if theory:
        handles.append(
            Line2D(
                [],
                [],
                color="0.55",
                linewidth=5,
                alpha=0.5,
                label="rate, theory (reverse water-filling)",
            )
        )
    for number, label in enumerate(place.series):
        if label:
            handles.append(
                Line2D(
                    [],
                    [],
                    marker=MARKS[number % len(MARKS)],
                    color="0.3",
                    linestyle="",
                    label=label,
                )
            )
    axes.legend(handles=handles, frameon=False)
    axes.set(
        xlabel="rate, mutual information (nats per example)", ylabel="distortion (nats per example)"
    )
    axes.set_title(
        "each small point a seed, each large one the median over seeds", fontsize=9, color="0.3"
    )
    axes.margins(x=0.12, y=0.1)
    return figure


def _name_points(
    axes: Axes, sweep: Sweep, place: Along, x: Sequence[float], y: Sequence[float]
) -> None:
    """Labels of what was swept beside each median, and beside medians that all but coincide once;
    of series only the first's.
    """
    named: dict[tuple[float, float], list[str]] = {}
    wide, high = (
        max(np.ptp([value for value in values if np.isfinite(value)]), 1e-9) for values in (x, y)
    )
    for group in next(iter(place.series.values())):
        if np.isfinite(x[group]) and np.isfinite(y[group]):
            near = [
                at
                for at in named
                if abs(at[0] - x[group]) < 0.07 * wide and abs(at[1] - y[group]) < 0.05 * high
            ]
            text = f"{place.places[group]:g}" if place.name else legible(sweep.groups[group].label)
            named.setdefault(near[0] if near else (x[group], y[group]), []).append(text)
    for at, texts in named.items():
        text = ", ".join([*texts[:_NAMED], "..."] if len(texts) > _NAMED + 1 else texts)
        if place.name:
            text = f"{place.name} = {text}".replace("beta", "β")
        if text != "all":
            axes.annotate(text, at, (8, 7), textcoords="offset points", fontsize=9, color="0.2")


def scores(sweep: Sweep, values: Mapping[str, Values], names: Sequence[str]) -> Figure | None:
    """A panel a quantity: seeds as points, the median as a line, the quartiles as a band."""
    names = [name for name in names if name in values]
    if not names:
        return None
    across = min(3, len(names))
    down = -(-len(names) // across)
    figure = blank(3.7 * across, 0.4 + 2.6 * down)
    place = along(sweep)
    for number, name in enumerate(names):
        axes = figure.add_subplot(down, across, number + 1)
        bare(axes)
        for colour, mark, (label, members) in zip(
            _cycle(COLOURS), _cycle(MARKS), place.series.items(), strict=False
        ):
            _panel(axes, place, members, values[name], colour, mark, label)
        axes.set_title(title(name), fontsize=10)
        axes.set_ylabel(
            "nats per example" if name in ("elbo", "distortion", "rate", *PARTS) else ""
        )
        place.dress(axes)
    if any(place.series):
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=min(4, len(place.series)),
            frameon=False,
        )
    return figure


def _panel(
    axes: Axes,
    place: Along,
    members: Sequence[int],
    values: Values,
    colour: str,
    mark: str,
    label: str,
) -> None:
    x = [place.places[group] for group in members]
    found = [quartiles(values[group]) for group in members]
    for group in members:
        axes.plot(
            [place.places[group]] * len(values[group]),
            values[group],
            mark,
            color=colour,
            alpha=0.45,
            markersize=4,
        )
    style = "-" if place.name else ""
    axes.plot(
        x,
        [each.median for each in found],
        mark + style,
        color=colour,
        linewidth=1.5,
        markersize=6,
        label=label,
    )
    if place.name:
        axes.fill_between(
            x,
            [each.low for each in found],
            [each.high for each in found],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )


def _cycle(items: Sequence[str]) -> list[str]:
    """`items` over and over: more series than colours are rare, and labelled all the same."""
    return [*items] * 20


def kl_spectrum(sweep: Sweep) -> Figure | None:
    """A heat map of the rate of each latent: in each run sorted, and the median over seeds of the
    first, the second, ...
    """
    spectra = [[by_latent(run.scores) for run in group.runs] for group in sweep.groups]
    most = max(len(rates) for group in spectra for rates in group)
    if not most:
        return None
    table = np.full((most, len(spectra)), np.nan)
    for column, group in enumerate(spectra):
        for row in range(most):
            table[row, column] = quartiles(
                [rates[row] for rates in group if len(rates) > row]
            ).median
    figure = blank(max(4.5, 2.2 + 0.9 * len(spectra)), 1.4 + 0.36 * most)
    axes = figure.add_subplot()
    top = max(np.nanmax(table), 1e-3)
    picture = axes.imshow(table, aspect="auto", cmap="viridis", norm=PowerNorm(0.5, 0, top))
    for row, column in np.ndindex(*table.shape):
        if np.isfinite(value := table[row, column]):
            colour = "black" if value > 0.4 * top else "white"
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour
            )
    _columns(axes, sweep)
    axes.set_yticks(range(most), [str(row + 1) for row in range(most)])
    axes.set(ylabel="latent, by falling rate", title="rate of each latent, median over seeds")
    figure.colorbar(picture, label="nats per example")
    return figure


def _columns(axes: Axes, sweep: Sweep) -> None:
    """Names the groups below the columns of a heat map."""
    only = next(iter(sweep.keys)) if len(sweep.keys) == 1 else ""
    labels = [
        legible(shown(group.values.get(only, "none")) if only else group.label)
        for group in sweep.groups
    ]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel(legible(only))
    if max(map(len, labels)) > 8:
        axes.tick_params(axis="x", rotation=30)
        for text in axes.get_xticklabels():
            text.set_horizontalalignment("right")


def choices(sweep: Sweep, found: Mapping[str, Choice]) -> Figure | None:
    """The group that each criterion would choose: a heat map of the share of resamples that it
    wins, the choice outlined.
    """
    if len(sweep.groups) < 2 or not found:
        return None
    figure = blank(max(4.5, 2.6 + 0.9 * len(sweep.groups)), 1.6 + 0.36 * len(found))
    axes = figure.add_subplot()
    table = np.array(
        [choice.share or [np.nan] * len(sweep.groups) for choice in found.values()], dtype=float
    )
    picture = axes.imshow(table, aspect="auto", cmap="Blues", vmin=0, vmax=1)
    for row, choice in enumerate(found.values()):
        outline = Rectangle(
            (choice.best - 0.47, row - 0.44),
            0.94,
            0.88,
            fill=False,
            edgecolor=COLOURS[1],
            linewidth=2.5,
        )
        axes.add_patch(outline)
        for column, share in enumerate(choice.share or []):
            if share >= 0.005:
                colour = "white" if share > 0.6 else "black"
                axes.text(
                    column, row, f"{share:.0%}", ha="center", va="center", fontsize=8, color=colour
                )
    _columns(axes, sweep)
    axes.set_yticks(range(len(found)), [legible(title(name)) for name in found])
    axes.set_title(
        "chosen by each criterion (outlined),\nand the share of resampled seeds in which it wins",
        fontsize=10,
    )
    figure.colorbar(picture, label="share of resamples")
    return figure


def traversals(sweep: Sweep, strips: Mapping[int, Strip]) -> Figure | None:
    """The grids of groups by their number, side by side at their own size; of many, some."""
    if not strips:
        return None
    some = sorted(strips)
    if len(some) > _STRIPS:
        some = [some[round(at)] for at in np.linspace(0, len(some) - 1, _STRIPS)]
    gap = 24
    head = 34
    heights, widths = zip(*(strips[group].grid.shape[1:] for group in some), strict=True)
    width = sum(widths) + gap * (len(some) + 1)
    height = max(heights) + head + gap
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    FigureCanvasAgg(figure)
    left = gap
    for group in some:
        seed = strips[group].seed
        strip = strips[group].grid
        down, across = strip.shape[1:]
        axes = figure.add_axes(
            (left / width, 1 - (head + down) / height, across / width, down / height)
        )
        axes.imshow(strip.permute(1, 2, 0).numpy(), interpolation="none", aspect="auto")
        axes.set_axis_off()
        axes.set_title(
            f"{legible(sweep.groups[group].label).replace('beta', 'β')}   (seed {seed})",
            fontsize=11,
        )
        left += across + gap
    return figure
