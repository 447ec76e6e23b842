"""The fate of the components of a fit, said once each."""

import logging

from jensen.em.collapse import twins
from jensen.em.reseed import Reseed
from jensen.family.mixture import Mixture

logger = logging.getLogger("jensen")


def tell(p: Mixture, reseeded: list[Reseed], collapsed: list[int], size: int) -> None:
    """Say what became of the components of `p` `(K,)`, fitted to so many points: each kind of fate
    once.
    """
    if reseeded:
        _tell_of_seeds(reseeded)
    if collapsed:
        _tell_of_collapse(p, collapsed, size)
    elif pairs := twins(p):
        logger.warning(
            "components %s end alike, with the same mean and covariance: together they are one,"
            " and another maximum may be higher, above all where a far outlier widens a"
            " covariance that all share; use init=kmeans++ or more restarts",
            _some([f"{first} and {second}" for first, second in pairs]),
        )


def _tell_of_seeds(reseeded: list[Reseed]) -> None:
    when: dict[tuple[int, str], list[str]] = {}
    for event in reseeded:
        when.setdefault((event.component, event.reason), []).append(str(event.iteration))
    fates = [
        f"component {each} was {why} after iteration {', '.join(at)}"
        for (each, why), at in when.items()
    ]
    logger.warning("%s, and was seeded anew", "; ".join(fates))


def _tell_of_collapse(p: Mixture, collapsed: list[int], size: int) -> None:
    first, *others = collapsed
    mean = ", ".join(f"{value:g}" for value in p.components.mean[first, :8].tolist())
    logger.warning(
        "component %d ends on the covariance floor, with %.3g of %d points about (%s): they are"
        " copies of one another or"
        " lie in a plane, an outlier is one; its density there is as high as the floor is low%s",
        first,
        size * p.log_weight[first].exp().item(),
        size,
        mean + ", ..." if p.components.mean.shape[1] > 8 else mean,
        f"; so do {_some([f'component {each}' for each in others])}" if others else "",
    )


def _some(parts: list[str]) -> str:
    """Up to three of `parts`, and how many more there are."""
    more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
    return ", ".join(parts[:3]) + more
