"""A model's trust in each sense as one of them gets worse: runs of experiment=ventriloquism."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from jensen.diagnostics.ventriloquism import called, ideal
from jensen.reports.figures import COLOURS, MARKS, bare, blank
from jensen.reports.sweep import Run, Sweep, numbers

NOISE = "data.noise."
STYLES = ("-", "--", ":", "-.")
_MARGIN = 1.5
"""Times beyond the outermost runs that the lines go."""


class Watched(NamedTuple):
    """A run's noise `(M, D)`, and what its model made of it: weights `(M, D)`, variances `(D,)`."""

    noise: np.ndarray
    weights: np.ndarray
    variances: np.ndarray
    prior_sd: float


def cue_weights(sweep: Sweep) -> Figure | None:
    """Draw each sense's weight, and the posterior variance, over the noise that was swept: theory
    as lines, each run a point. None where it is not one number of `data.noise` that was, or nobody
    looked at weights.
    """
    runs = [run for run in sweep.runs if "ventriloquism/variance_0" in numbers(run.scores)]
    if len({_senses(run) for run in runs}) != 1:
        return None
    senses = _senses(runs[0])
    watched = [_watched(run, senses) for run in runs]
    if len({each.noise.shape for each in watched}) > 1 or len({w.prior_sd for w in watched}) > 1:
        return None
    differs = np.ptp(np.stack([each.noise for each in watched]), axis=0) > 0
    if differs.sum() != 1:
        return None
    sense, source = (int(at[0]) for at in np.nonzero(differs))
    said = runs[0].scores["diagnostics"]["ventriloquism"].get("settings", {}).get("sources")
    names = called(said if isinstance(said, list) else (), watched[0].noise.shape[1])
    places = [float(each.noise[sense, source]) for each in watched]
    along = np.geomspace(min(places) / _MARGIN, max(places) * _MARGIN, 200)
    noise = np.repeat(watched[0].noise[None], len(along), 0)
    noise[:, sense, source] = along
    best = [ideal(torch.from_numpy(each), watched[0].prior_sd) for each in noise]
    figure = blank(9.5, 4.6)
    left, right = figure.subplots(1, 2)
    for at, name in enumerate(names):
        for other, who in enumerate(senses):
            lines = [float(weight[other, at]) for weight, _ in best]
            left.plot(along, lines, STYLES[other % 4], color=COLOURS[at], linewidth=1.2)
            points = [each.weights[other, at] for each in watched]
            _points(left, places, points, at, other)
            left.plot([], [], STYLES[other % 4], color=COLOURS[at], label=f"{who}, {name}")
        right.plot(along, [float(variance[at]) for _, variance in best], color=COLOURS[at])
        _points(right, places, [each.variances[at] for each in watched], at, 0)
    left.set(ylabel="weight", ylim=(-0.05, 1.05))
    right.set(ylabel="posterior variance", yscale="log")
    right.legend(
        [Line2D([], [], color=COLOURS[at]) for at in range(len(names))], names, frameon=False
    )
    left.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.set(xscale="log", xlabel=f"noise of {senses[sense]} in {names[source]} (deviation)")
        axes.set_xticks(sorted(set(places)), [f"{place:g}" for place in sorted(set(places))])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title("lines: the ideal observer; points: each run", fontsize=9, color="0.3")
        bare(axes)
    return figure


def _points(axes: Axes, x: Sequence[float], y: Sequence[float], source: int, sense: int) -> None:
    """Points of runs, of the source's colour; those of the first sense are filled."""
    face = COLOURS[source] if not sense else "none"
    mark = MARKS[sense % len(MARKS)]
    axes.plot(x, y, mark, color=COLOURS[source], markerfacecolor=face, markersize=5)


def _senses(run: Run) -> tuple[str, ...]:
    """Names of the senses, in the order of the configuration."""
    return tuple(key.removeprefix(NOISE) for key in run.settings if key.startswith(NOISE))


def _watched(run: Run, senses: Sequence[str]) -> Watched:
    found = numbers(run.scores)
    noise = np.array([np.atleast_1d(run.settings[f"{NOISE}{name}"]) for name in senses], float)
    sources = range(noise.shape[1])
    weights = [[found[f"ventriloquism/weight_{name}_{at}"] for at in sources] for name in senses]
    variances = [found[f"ventriloquism/variance_{at}"] for at in sources]
    prior_sd = float(run.settings.get("data.prior_sd", 1.0))
    return Watched(noise, np.array(weights), np.array(variances), prior_sd)
