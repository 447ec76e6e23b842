"""The questions of a report to the models themselves: whether the runs of a setting agree, and a
traversal of one.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from jensen.base.errors import InputError
from jensen.base.random import fold, permutation
from jensen.diagnostics.snapshot import Film, Results, Snapshot
from jensen.diagnostics.traversal_film import traversal_film
from jensen.diagnostics.traversals import traversals
from jensen.reports.aggregates import Codes, codes_of
from jensen.reports.comparable import held_out
from jensen.reports.sweep import Group, Sweep
from jensen.reports.table import UDR, Values
from jensen.reports.text import one_line
from jensen.run.diagnose import on_run
from jensen.scores import udr
from jensen.scores.inputs import Floats

POINTS = 10_000
"""Held-out observations that UDR compares runs on, if there are more."""


class Strip(NamedTuple):
    """Traversals of one run. seed: the run's. grid: `(3, H, W)`, a row a latent. film: a column a
    latent.
    """

    seed: int
    grid: Tensor
    film: Film | None = None


class Looked(NamedTuple):
    """The models' word.

    agreement: UDR of the runs of each group. strips: traversals of a run of each group, by its number.
    failed: the runs that have no model, and why. codes: of the others by name, where they are Gaussian.
    """

    agreement: dict[str, Values]
    strips: dict[int, Strip]
    failed: dict[str, str]
    codes: dict[str, Codes]


def look(
    sweep: Sweep, folder: Path, trust: str | Sequence[str] = (), download: bool = False
) -> Looked:
    """Ask each run's model.

    Each run encodes its held-out set with its last checkpoint. `udr/...` is NaN where a group has
    fewer than two runs.
    """
    agreement: dict[str, Values] = {name: [] for name in UDR}
    strips: dict[int, Strip] = {}
    failed: dict[str, str] = {}
    kept: dict[str, Codes] = {}
    for number, group in enumerate(sweep.groups):
        codes = {}
        rates = {}
        for place, run in enumerate(group.runs):
            seen = Look(pictures=number not in strips)
            try:
                on_run(
                    folder / run.name,
                    "validation",
                    "last",
                    {"report": seen},
                    trust,
                    download,
                    label=f"{one_line(run.name)}: ",
                )
            except InputError as error:
                failed[run.name] = str(error)
                continue
            if np.isfinite(
                seen.rates
            ).all():  # UDR weighs latents by their rates, which not every prior knows
                codes[place] = seen.codes
                rates[place] = seen.rates
            if seen.own is not None:
                kept[run.name] = seen.own
            if seen.strip is not None:
                strips[number] = Strip(run.seed, seen.strip, seen.film)
        for similarity, values in agreement.items():
            values.append(_agreement(group, codes, rates, similarity.partition("/")[2]))
    known = {
        name: values
        for name, values in agreement.items()
        if np.isfinite(np.concatenate(values)).any()
    }
    return Looked(known, strips, failed, kept)


def _agreement(
    group: Group, codes: Mapping[int, Floats], rates: Mapping[int, Floats], similarity: str
) -> list[float]:
    """UDR of each run of a group, by its place, among those that encoded the same examples; NaN
    where it has no partner.
    """
    each = [math.nan] * len(group.runs)
    same: dict[str, list[int]] = {}
    for place in codes:
        same.setdefault(held_out(group.runs[place]), []).append(place)
    for places in (places for places in same.values() if len(places) > 1):
        found = udr(
            [codes[place] for place in places],
            [rates[place] for place in places],
            similarity=similarity,
            points=POINTS,
        )
        for place, value in zip(places, found["per_run"].tolist(), strict=True):
            each[place] = value
    return each


def same_reason(failed: Mapping[str, str]) -> dict[str, list[str]]:
    """Names by why."""
    names: dict[str, list[str]] = {}
    for name, why in failed.items():
        names.setdefault(why, []).append(name)
    return names


class Look:
    """A diagnostic that keeps what a report needs of a model: some codes, the rate of each latent,
    a traversal.
    """

    def __init__(self, pictures: bool) -> None:
        self.pictures = pictures
        self.strip: Tensor | None = None
        self.film: Film | None = None
        self.own: Codes | None = None

    def __call__(self, snapshot: Snapshot) -> Results:
        if not snapshot.posterior.mean.isfinite().all():
            raise InputError(
                "its codes are NaN or infinite: expected finite ones; restore its checkpoint, or"
                " train it again"
            )
        rows = permutation(fold(0, "report"), len(snapshot.z))[:POINTS]
        self.codes = snapshot.posterior.mean.cpu()[rows].double().numpy()
        self.own = codes_of(snapshot)
        self.rates = snapshot.latent_rate.mean(0).cpu().double().numpy()
        if self.pictures:
            self.strip = traversals(snapshot, columns=5, images=1).get("image_0")
            self.film = traversal_film(snapshot, images=1).get("film")
        return {}
