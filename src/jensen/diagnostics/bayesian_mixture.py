"""A Bayesian mixture: what is believed of its weights, where its components are, and what it predicts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from jensen.base.errors import InputError, check_number
from jensen.diagnostics.mixture import ellipses
from jensen.diagnostics.picture import chart
from jensen.diagnostics.snapshot import Snapshot, by_rate
from jensen.family.full import full

_GRID = 80
"""Places along each axis of the predictive density."""


def bayesian_mixture(snapshot: Snapshot, level: float = 0.9) -> Mapping[str, Tensor]:
    """The beliefs of a `jensen.BayesianGMM`:

    elbo: a lower bound of log p(all training points), nats. labelled: elbo + log K!, less where
        components are alike, which compares between numbers of them.
    used: components with more than one point.
    weights: their means, with intervals that hold `level` of the belief.
    ellipses: two standard deviations of each component over held-out points, faded by weight.
    predictive: the density of a further point, in the two columns of largest variance.
    """
    check_number("level", level, low=0, high=1)
    model: Any = snapshot.beliefs
    if model is None:
        raise InputError(
            "diagnostics=[bayesian_mixture] is of a model that keeps beliefs: expected"
            " model=bayesian_gmm; use diagnostics=[components] for others"
        )
    mean = model.weights.mean()
    order = mean.argsort(descending=True)
    intervals = model.credible(level)["weights"][order].cpu()
    shown = mean[order].cpu()
    elbo = model.elbo.clone()

    def bars(axes: Axes) -> None:
        reach = torch.stack([shown - intervals[:, 0], intervals[:, 1] - shown]).clamp(min=0)
        axes.bar(np.arange(len(shown)), shown.numpy(), yerr=reach.numpy(), capsize=3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(
            xlabel="component, by weight",
            ylabel=f"weight, and {level:.0%} of the belief",
            title=f"{len(model.used())} of {len(shown)} components are used",
        )

    return {
        "elbo": elbo,
        "labelled": torch.tensor(model.labelled, dtype=torch.float64),
        "used": torch.tensor(float(len(model.used()))),
        "weights": chart(bars),
        "ellipses": ellipses(snapshot, mean, full(model.mixture.components)),
        "predictive": _predictive(snapshot, model),
    }


def _span(points: Tensor, p: Any, column: int) -> Tensor:
    """Places that hold the points `(N,)` and three deviations of each component that is used."""
    parts = full(p.components)
    some = p.log_weight.exp() * 100 > 1
    mean = parts.mean[some, column].to(points)
    reach = 3 * parts.scale_tril[some, column].norm(dim=-1).to(points)
    ends = torch.cat([points, mean - reach, mean + reach])
    return torch.linspace(float(ends.min()), float(ends.max()), _GRID).to(points)


def _predictive(snapshot: Snapshot, model: Any) -> Tensor:
    """The predictive density over a grid, other columns at their means; of one column as a curve."""
    points = snapshot.z.double()
    columns = by_rate(snapshot)[:2].tolist()
    spans = [_span(points[:, each], model.mixture, each) for each in columns]
    places = torch.meshgrid(*spans, indexing="ij")
    grid = points.mean(0).expand(places[0].numel(), -1).clone()
    for column, place in zip(columns, places, strict=True):
        grid[:, column] = place.flatten()
    density = model.log_prob(grid).exp().reshape(places[0].shape).cpu()

    def draw(axes: Axes) -> None:
        if len(columns) == 1:
            axes.hist(points[:, columns[0]].cpu(), bins=60, density=True, color="0.8")
            axes.plot(spans[0].cpu(), density)
            axes.set(xlabel=f"column {columns[0]}", ylabel="density of a further point")
            return
        axes.contourf(spans[0].cpu(), spans[1].cpu(), density.T, levels=12, cmap="Blues")
        axes.scatter(points[:, columns[0]].cpu(), points[:, columns[1]].cpu(), s=2, color="0.4")
        others = "" if points.shape[1] == 2 else ", other columns at their means"
        axes.set(
            xlabel=f"column {columns[0]}",
            ylabel=f"column {columns[1]}",
            title=f"density of a further point{others}",
        )

    return chart(draw, 6, 6)
