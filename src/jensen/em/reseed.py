"""Components that are lost on the way, and start anew."""

from typing import NamedTuple, final

import torch
from torch import Tensor

from jensen.base.tree import tree_map
from jensen.em.collapse import on_floor
from jensen.em.local import Local, counts
from jensen.em.start import settle
from jensen.em.steps import Prior
from jensen.em.stream import Statistics
from jensen.family.family import gaussians
from jensen.family.mixture import Mixture
from jensen.family.tied import TiedGaussian

_TRIES = 2
"""A component that collapses there once more stays: an outlier, or copies of one point, are what
the likelihood wants.
"""


class Lost(NamedTuple):
    """A component of a row of mixtures, and why it is lost: "empty" or "collapsed"."""

    row: int
    component: int
    reason: str


class Reseed(NamedTuple):
    """A component that was started anew: after which iteration, of which start, and why ("empty" or
    "collapsed").
    """

    iteration: int
    start: int
    component: int
    reason: str


def lost(p: Mixture, s: Statistics | Local, share: float, prior: Prior) -> list[Lost]:
    """The components of `p` `(R, K)` with a total below `share` or on the covariance floor."""
    empty = counts(s) < share
    found = (
        [Lost(row, component, "empty") for row, component in empty.nonzero().tolist()]
        if bool(empty.any())
        else []
    )
    if not prior.has_floor or isinstance(p.components, TiedGaussian):
        return found
    flat = on_floor(p, getattr(prior, "floor", 0.0)) & ~empty
    flat &= ~flat.all(-1, keepdim=True)  # all at once is the data's shape, not a component's fate
    return found + [Lost(row, component, "collapsed") for row, component in flat.nonzero().tolist()]


def reseed(p: Mixture, gone: list[Lost], generator: torch.Generator) -> Mixture:
    """Each lost component takes half of the heaviest one of its row, at a point drawn from that."""
    p = tree_map(torch.clone, p)
    mean = p.components.mean
    deviations = (0.5 * gaussians(p.components).marginals().log_var).exp()
    for row, component, _ in gone:
        donor = int(p.log_weight[row].argmax())
        noise = torch.randn(deviations.shape[-1], generator=generator, dtype=torch.float64).to(
            deviations
        )
        settle(p, row, component, donor, mean[row, donor] + deviations[row, donor] * noise)
        deviations[row, component] = deviations[row, donor]
    return p._replace(log_weight=p.log_weight.log_softmax(-1))


@final
class Seeding:
    """The components that start anew, and a budget for it.

    reseeded: the components that did. budget: how many more may.
    """

    def __init__(self, share: float, budget: int, prior: Prior, generator: torch.Generator) -> None:
        self.share = share
        self.budget = budget
        self.prior = prior
        self.generator = generator
        self.reseeded: list[Reseed] = []
        self._places: list[
            tuple[int, Tensor]
        ] = []  # where components of which start have collapsed

    def find(self, p: Mixture, s: Statistics | Local, starts: list[int]) -> list[Lost]:
        """The lost of `starts` that are to start anew: not what has collapsed at the same place
        before, `_TRIES` times.
        """
        if not self.budget:
            return []
        found = [
            each for each in lost(p, s, self.share, self.prior) if not self._stays(each, p, starts)
        ]
        return found[: self.budget]

    def _stays(self, each: Lost, p: Mixture, starts: list[int]) -> bool:
        mean = p.components.mean[each.row, each.component]
        before = [place for start, place in self._places if start == starts[each.row]]
        there = sum(bool(torch.isclose(mean, place, rtol=1e-9).all()) for place in before)
        return each.reason == "collapsed" and there >= _TRIES

    def seed(self, gone: list[Lost], p: Mixture, starts: list[int], iteration: int) -> Mixture:
        """`p` with those that are `gone` started anew."""
        for each in gone:
            if each.reason == "collapsed":
                self._places.append((starts[each.row], p.components.mean[each.row, each.component]))
            self.reseeded.append(Reseed(iteration, starts[each.row], each.component, each.reason))
        self.budget -= len(gone)
        return reseed(p, gone, self.generator)
