"""Moves of a component from where a mixture has one too many to where it has one too few."""

import math

import torch
from torch import Tensor

from jensen.base.tree import tree_map
from jensen.em.start import PSEUDO_COUNTS, Sample, moments_about, settle
from jensen.em.steps import m_step
from jensen.family.mixture import Mixture, log_joint, own

_STEPS = 10
"""EM steps after which a split is judged."""

_TRIES = 2
"""Splits for each move that is asked for."""

_LIMIT = 1 << 24
"""Elements of a joint `(S, M, K)`: 128 MiB of float64."""


def swapped(p: Mixture, sample: Sample, starts: int, generator: torch.Generator) -> Mixture:
    """Starts `(starts, K)` that are `p` `(K,)` with one component moved to a point of the sample.

    Component and point are drawn, the point by weight. There the component takes half of the one
    that is most probable (random swap EM: Zhao, Hautamaki, Karkkainen & Franti 2012, Pattern
    Recognition Letters 33, 2120-2126).
    """
    device = p.log_weight.device
    moved = torch.randint(len(p.log_weight), (starts,), generator=generator).to(device)
    place = sample.x[_drawn(sample.weights.expand(starts, -1), generator)]
    joint = log_joint(place, p).scatter(1, moved.unsqueeze(1), -math.inf)
    stack = tree_map(lambda part: part.expand(starts, *part.shape).clone(), p)
    settle(stack, torch.arange(starts, device=device), moved, joint.argmax(1), place)
    return stack._replace(log_weight=stack.log_weight.log_softmax(-1))


def exchanged(p: Mixture, sample: Sample, starts: int, generator: torch.Generator) -> Mixture:
    """Starts `(starts, K)` that are `p` `(K,)` with one component split and another left out: those
    that promise most, of several splits.

    Each split is climbed for a few steps on the sample, as a mixture of K + 1. What leaving a
    component out of it costs is the likelihood without it, before the others take over its points
    (in the manner of split and merge EM: Ueda, Nakano, Ghahramani & Hinton 2000, Neural Computation
    12, 2109-2128).
    """
    count = len(p.log_weight)
    most = max(1, _LIMIT // (len(sample.x) * (count + 1)))
    splits = min(count, _TRIES * starts, most)
    donor = torch.randperm(count, generator=generator)[:splits].to(p.log_weight.device)
    grown = _climbed(_split(p, sample, donor, generator), sample)
    promise = _without_each(grown, sample)
    promise[:, -1] = -math.inf  # these two would undo the split
    promise[torch.arange(splits), donor] = -math.inf
    best = promise.flatten().topk(min(starts, splits * max(count - 1, 1))).indices
    chosen = tree_map(lambda part: part[best // (count + 1)], grown)
    return _left_out(chosen, best % (count + 1))


def _drawn(odds: Tensor, generator: torch.Generator) -> Tensor:
    """A place in each row of `odds` `(S, M)`, drawn by them, `(S,)` int64."""
    reach = odds.cumsum(1)
    draw = torch.rand(len(odds), 1, generator=generator, dtype=torch.float64).to(odds)
    place = torch.searchsorted(reach, draw * reach[:, -1:], right=True).squeeze(1)
    return place.clamp(max=odds.shape[1] - 1)


def _split(p: Mixture, sample: Sample, donor: Tensor, generator: torch.Generator) -> Mixture:
    """`p` with one component more, `(S, K + 1)`: at a point of a donor's, with half its weight."""
    r = log_joint(sample.x, p).softmax(-1)[:, donor]
    place = sample.x[_drawn((r * sample.weights.unsqueeze(1)).mT, generator)]
    shared = [*p.components][len(own(p.components)) :]
    mine = [torch.cat([part, part[:1]]) for part in own(p.components)]
    one = Mixture(torch.cat([p.log_weight, p.log_weight[:1]]), type(p.components)(*mine, *shared))
    row = torch.arange(len(donor), device=donor.device)
    stack = tree_map(lambda part: part.expand(len(donor), *part.shape).clone(), one)
    settle(stack, row, torch.full_like(donor, len(p.log_weight)), donor, place)
    return stack


def _climbed(p: Mixture, sample: Sample) -> Mixture:
    """`p` `(S, K)` after a few steps of EM on the sample."""
    prior = PSEUDO_COUNTS._replace(variance=sample.var)
    for _ in range(_STEPS):
        r = log_joint(sample.x, p).softmax(-1) * sample.weights.unsqueeze(-1)
        p = m_step(p, moments_about(p.components, sample.x, r), prior)
    return p


def _without_each(p: Mixture, sample: Sample) -> Tensor:
    """The log-likelihood of the sample under `p` `(S, K)` without each of its components,
    `(S, K)`.
    """
    joint = log_joint(sample.x, p)
    others = torch.log1p(-joint.softmax(-1).clamp(max=1 - 1e-15))
    value = joint.logsumexp(-1, keepdim=True) + others - torch.log1p(-p.log_weight.exp())[:, None]
    return (value * sample.weights.unsqueeze(-1)).sum(-2)


def _left_out(p: Mixture, component: Tensor) -> Mixture:
    """`p` `(S, K)` without one component in each row, `(S, K - 1)`."""
    count = p.log_weight.shape[1]
    kept = torch.arange(count - 1, device=component.device).expand(len(component), -1)
    kept = kept + (kept >= component.unsqueeze(1))
    row = torch.arange(len(component), device=component.device).unsqueeze(1)
    mine = [part[row, kept] for part in own(p.components)]
    shared = [*p.components][len(mine) :]
    components = type(p.components)(*mine, *shared)
    return Mixture(p.log_weight[row, kept].log_softmax(-1), components)
