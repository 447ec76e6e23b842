"""Higher maxima than that of one start: components are moved, as long as one of the moves ends
higher.
"""

from collections.abc import Callable

import torch

from jensen.base.tree import tree_map
from jensen.em.fit import Fit, Options
from jensen.em.moves import exchanged, swapped
from jensen.em.reseed import Reseed
from jensen.em.start import Sample
from jensen.family.mixture import Mixture

_HIGHER = 1e-5
"""Nats per example by which another maximum is higher, rather than the same."""

_PATIENCE = 5
"""Rounds of moves of which none ends higher, before the search is over."""

_LOOSE = 10
"""Times the tolerance, to which the starts of a search are fitted: enough to tell maxima apart."""

_POLISHED = 0.01
"""Times the tolerance, to which the best is fitted on: starts that meet end as near each other as
the tolerance.
"""

FitFrom = Callable[[Mixture, Options], Fit]
"""EM from starts `(R, K)` under options."""


def search(
    fit: FitFrom,
    start: Mixture,
    options: Options,
    *,
    sample: Sample,
    swaps: int,
    total: float,
    generator: torch.Generator,
) -> Fit:
    """Fit from `start` `(R, K)`, go on from the best as long as one of its moves ends higher, and
    then to a high precision.

    Args:
        sample: points that components are moved to.
        swaps: how many of each kind of move are tried at a time.
        total: the sum of the points' weights.
    """
    loose = options._replace(tolerance=_LOOSE * options.tolerance)
    found = fit(start, loose)
    failed = 0
    while failed < _PATIENCE and not found.failure:
        around = [move(found.mixture, sample, swaps, generator) for move in (exchanged, swapped)]
        # The best itself is among them: one that differs ranks before it.
        best = tree_map(lambda part: part[None], found.mixture)
        other = fit(tree_map(lambda *parts: torch.cat(parts), best, *around), loose)
        differs = abs(other.objective - found.objective) > _HIGHER * total
        found = other if differs else found
        failed = 0 if differs else failed + 1
    return found if found.failure else _polished(fit, found, options)


def _polished(fit: FitFrom, found: Fit, options: Options) -> Fit:
    most = max(options.max_iter - found.iterations, 0)
    fine = options._replace(tolerance=_POLISHED * options.tolerance, max_iter=most)
    last = fit(tree_map(lambda part: part[None], found.mixture), fine)
    return last._replace(
        history=found.history + last.history,
        reseeded=found.reseeded + later(last.reseeded, found.iterations),
        iterations=found.iterations + last.iterations,
    )


def later(events: list[Reseed], iterations: int) -> list[Reseed]:
    """`events` of a fit that went on after so many iterations of others."""
    return [event._replace(iteration=event.iteration + iterations) for event in events]
