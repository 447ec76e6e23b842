"""The code of each active latent over each factor: what a latent has learned, and how cleanly (Chen
et al. 2018, arXiv 1802.04942, figures 1 and 2).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from jensen.base.errors import InputError, check_count, check_list
from jensen.diagnostics.factor_map import dead_latents
from jensen.diagnostics.picture import pixels
from jensen.diagnostics.snapshot import Snapshot, by_rate
from jensen.scores.constant import Floats
from jensen.scores.inputs import Labels

PAIRS = (("posX", "posY"),)
IN_A_CELL = 8
"""Examples that a cell of a heat map has on average, at least."""


class Curve(NamedTuple):
    """Codes by the value of a factor: `values` `(V,)` that are there, mean and std `(V, D)`."""

    values: Labels
    mean: Floats
    std: Floats


def curve(codes: Floats, labels: Labels) -> Curve:
    """The mean and the spread of `codes` `(N, D)` over the examples of each label `(N,)`."""
    values, place, count = np.unique(labels, return_inverse=True, return_counts=True)
    mean = _means(codes, place, count)
    return Curve(values, mean, np.sqrt(_means((codes - mean[place]) ** 2, place, count)))


def surface(codes: Floats, one: Labels, other: Labels, most: int) -> Floats:
    """Mean code by two factors, `(D, V, W)`, rows by the values of `other`; NaN where none is.

    most: of the values of each; where there are more, neighbours share a cell.
    """
    x, across = _cells(one, most)
    y, down = _cells(other, most)
    place = y * across + x
    with np.errstate(invalid="ignore"):
        mean = _means(codes, place, np.bincount(place, minlength=down * across))
    return mean.T.reshape(codes.shape[1], down, across)


def _cells(labels: Labels, most: int) -> tuple[Labels, int]:
    """The cell of each example `(N,)`, of as many as there are values, at most `most`; and how many."""
    values, place = np.unique(labels, return_inverse=True)
    count = min(len(values), most)
    return place * count // len(values), count


def _means(x: Floats, place: Labels, count: Labels) -> Floats:
    """Means of the rows of `x` that fall in each place, `(places, D)`."""
    sums = [np.bincount(place, column, minlength=len(count)) for column in x.T]
    return np.stack(sums, 1) / count[:, None]


def factor_curves(
    snapshot: Snapshot, latents: int = 6, pairs: Sequence[Sequence[str]] = PAIRS
) -> dict[str, Tensor]:
    """Panels latent x factor: lines are the mean code over the held-out examples of each value of the
    factor, bands one standard deviation of it each way, which is what the other factors move.

    A disentangled latent has one steep narrow curve and flat ones. Rows are the `latents` of largest
    rate, in falling order, less those that tell nothing. For each of `pairs` of factors that the data
    have there is a heat map of the mean code over both, of cells as coarse as the examples are few.
    Factors of one value are left out; nothing for data without factors.
    """
    check_count("latents", latents)
    check_list("pairs", pairs)
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2:
            raise InputError(f"pairs holds {pair!r}: expected two names of factors, [posX, posY]")
    labels = snapshot.factors.cpu().numpy()
    shown = {
        name: column
        for name, column in zip(snapshot.names, labels.T, strict=True)
        if len(np.unique(column)) > 1
    }
    if not shown:
        return {}
    order = by_rate(snapshot).cpu()
    alive = order[~dead_latents(snapshot)[order]]
    order = (alive if len(alive) else order)[:latents]
    codes = snapshot.posterior.mean.double().cpu()[:, order].numpy()
    both = [(one, other) for one, other in pairs if {one, other} <= shown.keys()]
    curves = {name: curve(codes, column) for name, column in shown.items()}
    most = max(2, math.isqrt(len(codes) // IN_A_CELL))
    maps = {(one, other): surface(codes, shown[one], shown[other], most) for one, other in both}
    return {"curves": _draw([f"z{latent}" for latent in order.tolist()], curves, maps)}


def _draw(
    rows: Sequence[str], curves: dict[str, Curve], maps: dict[tuple[str, str], Floats]
) -> Tensor:
    across = len(curves) + len(maps)
    figure = Figure(figsize=(1.2 + 1.5 * across, 0.6 + 1.3 * len(rows)), dpi=100)
    panels = figure.subplots(len(rows), across, squeeze=False)
    for row, name in enumerate(rows):
        lines = panels[row][: len(curves)]
        low = min((each.mean - each.std)[:, row].min() for each in curves.values())
        high = max((each.mean + each.std)[:, row].max() for each in curves.values())
        for axes, found in zip(lines, curves.values(), strict=True):
            _line(axes, found, row)
            axes.set_ylim(low, high)
        for axes in lines[1:]:
            axes.set_yticks([])  # ticks are most of the time that a panel takes
        lines[0].yaxis.set_major_locator(MaxNLocator(3))
        for axes, values in zip(panels[row][len(curves) :], maps.values(), strict=True):
            axes.imshow(values[row], aspect="auto", cmap="viridis", origin="lower")
            axes.set(xticks=[], yticks=[])
        panels[row][0].set_ylabel(name)
    for axes, factor in zip(panels[0], curves, strict=False):
        axes.set_title(factor, fontsize=10)
    for axes, (one, other) in zip(panels[0][len(curves) :], maps, strict=True):
        axes.set_title(f"{one} (right), {other} (up)", fontsize=8)
    for axes in panels[:-1, : len(curves)].flat:
        axes.set_xticks([])
    for axes in panels[-1, : len(curves)]:
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.subplots_adjust(
        left=0.7 / figure.get_figwidth(),
        right=1 - 0.1 / figure.get_figwidth(),
        bottom=0.3 / figure.get_figheight(),
        top=1 - 0.3 / figure.get_figheight(),
        wspace=0.12,
        hspace=0.12,
    )
    return pixels(figure)


def _line(axes: Axes, found: Curve, row: int) -> None:
    mean = found.mean[:, row]
    std = found.std[:, row]
    few = len(found.values) <= 5  # forms of a kind, which have no order
    if few:
        axes.errorbar(found.values, mean, std, fmt="o", color="C0", markersize=4, capsize=3)
        axes.margins(x=0.2)
    else:
        axes.fill_between(found.values, mean - std, mean + std, color="C0", alpha=0.25, linewidth=0)
        axes.plot(found.values, mean, color="C0")
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.tick_params(labelsize=7)
