"""Components that are lost in the course of EM, or too narrow for its sums."""

import torch

from jensen.base.random import fold
from jensen.base.ranks import world
from jensen.base.tree import tree_map
from jensen.em import local
from jensen.em.reseed import Reseed, lost, reseed
from jensen.em.steps import Prior
from jensen.em.stream import Statistics, coefficients
from jensen.family.columns import Columns
from jensen.family.family import are_gaussians, gaussians
from jensen.family.mixture import Mixture
from jensen.model.fate import logger

LOOK = 8
"""M-steps between two looks for components that are empty or collapsed."""


class Fate:
    """The looks at a mixture between M-steps.

    reseeded: the components that were started anew, three times as many as there are at most.

    Args:
        seed: of the points where they start.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.reseeded: list[Reseed] = []
        self._told_of_rounding = False

    def tell_of_rounding(self, p: Mixture, step: int) -> None:
        """Warn, once, of components so narrow or so far from the origin that sums about it lose
        their covariances.
        """
        columns = isinstance(p.components, Columns)
        if step % LOOK or self._told_of_rounding or not (columns or are_gaussians(p.components)):
            return
        if not local.needed(p, coefficients(p)):
            return
        self._told_of_rounding = True
        if world()[0]:  # the first rank says it for all
            return
        if isinstance(p.components, Columns):
            spread = p.components.spread
        else:
            variance = gaussians(p.components).marginals().log_var.exp()
            spread = p.components.mean.square() / variance
        farthest = spread.amax().sqrt().item()
        fit = "MixtureModel" if columns else "GMM"
        logger.warning(
            "components lie up to %.2g of their deviations from the origin, or their covariances"
            " are nearly singular: algorithm=em has sums about one origin, so those covariances"
            " lose digits, or end at the floor of rounding; jensen.%s.fit, which takes"
            " deviations from each mean, keeps them",
            farthest,
            fit,
        )

    def reseed(self, p: Mixture, seen: Statistics, step: int, prior: Prior, look: bool) -> Mixture:
        """`p`, or with its components anew that have no points, or lie on the covariance floor,
        where it is time to look.
        """
        if not are_gaussians(p.components) or (not look and step % LOOK != LOOK - 1):
            return p
        one = tree_map(lambda part: part[None], p)
        found = lost(one, tree_map(lambda part: part[None], seen), 0.5, prior)
        gone = found[: 3 * len(p.log_weight) - len(self.reseeded)]
        if not gone:
            return p
        for row, component, reason in gone:
            self.reseeded.append(Reseed(step + 1, row, component, reason))
            if world()[0] == 0:
                logger.warning(
                    "component %d was %s after step %d and was seeded anew", component, reason, step
                )
        generator = torch.Generator().manual_seed(fold(self.seed, "reseed", step) % (1 << 63))
        return tree_map(lambda part: part[0], reseed(one, gone, generator))

    def reseeded_at(self, step: int) -> bool:
        """Tell whether components were started anew after that M-step."""
        return any(event.iteration == step + 1 for event in self.reseeded)
