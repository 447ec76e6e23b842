"""The number of components by Bayesian mixtures of several sizes, fitted to the same points."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jensen.base.errors import InputError
from jensen.diagnostics.snapshot import Results, Snapshot
from jensen.model.gmm import GMM
from jensen.reports.figures import COLOURS, MARKS, bare, blank
from jensen.reports.sweep import Sweep, numbers
from jensen.reports.table import Values
from jensen.run.diagnose import on_run

LABELLED = "bayesian_mixture/labelled"
"""The elbo, and the logarithm of how many labellings are as good: log K!, where none are alike."""

BIC = "evidence/bic"
ICL = "evidence/icl"
_COMPONENTS = "model.components"
_CRITERIA = {
    LABELLED: ("elbo + log labellings", 1.0),
    BIC: ("-BIC / 2", -0.5),
    ICL: ("-ICL / 2", -0.5),
}


def evidence(sweep: Sweep, values: Mapping[str, Values]) -> Figure | None:
    """Draw the elbo, BIC and ICL over the number of components, all as estimates of log p(points), nats, and
    p(K | points) by the elbo under equal priors, as bars; None without such runs, or of other data.

    Of several runs of one size the best counts: each elbo bounds the same number from below.
    """
    sizes: list[Any] = [group.runs[0].settings.get(_COMPONENTS) for group in sweep.groups]
    known = LABELLED in values and all(isinstance(size, int) for size in sizes)
    if not known or len(set(sizes)) < 2 or len({run.data for run in sweep.runs}) > 1:
        return None
    places = sorted(set(sizes))
    best = {
        name: [
            factor * _best(factor, values[name], [at for at, k in enumerate(sizes) if k == size])
            for size in places
        ]
        for name, (_, factor) in _CRITERIA.items()
        if name in values
    }
    figure = blank(7.2, 5.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for at, (name, curve) in enumerate(best.items()):
        colour = COLOURS[at]
        above.plot(places, curve, MARKS[at] + "-", color=colour, label=_CRITERIA[name][0])
        if np.isfinite(curve).any():
            top = int(np.nanargmax(curve))
            above.plot(places[top], curve[top], "o", color=colour, markersize=15, fillstyle="none")
    shares = probabilities(best[LABELLED])
    below.bar(places, shares, color=COLOURS[0], width=0.6)
    for place, share in zip(places, shares, strict=True):
        if share >= 0.005:
            below.annotate(f"{share:.2f}", (place, share), ha="center", va="bottom", fontsize=9)
    for axes in (above, below):
        bare(axes)
    above.set_ylabel("log p(points), nats")
    above.legend(frameon=False)
    above.set_title("the best of each size; a ring is the largest", fontsize=9, color="0.3")
    below.set(xlabel=_COMPONENTS, ylabel="p(K | points)", ylim=(0, 1.15))
    below.set_xticks(places)
    return figure


class Criteria:
    """A diagnostic of the training points: BIC and ICL of a Bayesian mixture at its posterior means."""

    bic = np.nan
    icl = np.nan

    def __call__(self, snapshot: Snapshot) -> Results:
        model: Any = snapshot.beliefs
        at_means = GMM.of(model.mixture, missing=model.recipe.missing)
        self.bic = at_means.bic(snapshot.z)
        self.icl = at_means.icl(snapshot.z)
        return {}


def criteria(
    sweep: Sweep, folder: Path, trust: str | Sequence[str] = (), download: bool = False
) -> dict[str, Values]:
    """BIC and ICL of the training points, of runs that have an evidence; those that have none, or no
    model any more, are NaN. Nothing where no run has any.
    """
    found: dict[str, Values] = {BIC: [], ICL: []}
    for group in sweep.groups:
        seen = []
        for run in group.runs:
            each = Criteria()
            if LABELLED in numbers(run.scores):
                with suppress(
                    InputError
                ):  # that it has no model is said where it is asked for codes
                    on_run(folder / run.name, "train", "last", {"report": each}, trust, download)
            seen.append(each)
        found[BIC].append([each.bic for each in seen])
        found[ICL].append([each.icl for each in seen])
    return {name: each for name, each in found.items() if np.isfinite(np.concatenate(each)).any()}


def probabilities(log_evidence: list[float]) -> list[float]:
    """exp of each, over their sum; 0 of those that are not known."""
    known = np.nan_to_num(np.asarray(log_evidence), nan=-np.inf)
    if not np.isfinite(known).any():
        return [0.0 for _ in log_evidence]
    odds = np.exp(known - known.max())
    shares: list[float] = (odds / odds.sum()).tolist()
    return shares


def _best(factor: float, values: Values, groups: list[int]) -> float:
    """The best of all runs of some groups: the largest, or of a negative factor the least."""
    found = np.concatenate([np.asarray(values[at], dtype=float) for at in groups])
    known = found[np.isfinite(found)]
    if not len(known):
        return np.nan
    return float(known.max() if factor > 0 else known.min())
