"""Integrals over a line of what is made of mixtures of Gaussians, at any scales.

Even steps as fine as the narrowest deviation would be as many as the longest distance has of them.
Here panels begin at the means and grow with the way from them, so K components take O(K) panels,
however far apart their deviations are. A panel is halved until its Gauss-Legendre sum is that of
its halves: most are at once, and not where the logarithm of a mixture turns from one far tail to
another.

A place is a way from an anchor, a mean near by, and never their sum: 1e-9 beyond a mean of 1e9 is
one too.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.base.tree import tree_map
from jensen.family.family import gaussians
from jensen.family.gaussian import LOG_2PI
from jensen.family.mixture import Mixture, logsumexp

_REACH = 40.0
"""Deviations beyond the outermost component that are covered: beyond, float64 has no density."""

_FIRST = 2.0
"""Deviations that the panel at an anchor is wide; each next one is as wide as all before it."""

NODES = 16
"""Places in a panel."""

_SETTLED = 1e-12
"""Distance that a panel's sum may have from that of its halves, of the size of the whole integral."""

_ROUNDS = 100
"""Times that a panel is halved."""

_MOST = 1 << 22
"""Panels times components that are halved at once: a second's work."""

_LIMIT = 1 << 16
"""Numbers in a temporary: 512 KB, which a core's cache holds."""


class Places(NamedTuple):
    """Points of a line: `anchor` `(P, 1)`, and `offset` `(P, S)`, the way from it."""

    anchor: Tensor
    offset: Tensor


class Panels(NamedTuple):
    """Intervals of a line, `(P,)`: from `low` to `high`, ways from an `anchor`."""

    anchor: Tensor
    low: Tensor
    high: Tensor

    def halves(self) -> "Panels":
        """`(2 P,)`, the two of a panel one after the other."""
        middle = 0.5 * (self.low + self.high)
        low = torch.stack([self.low, middle], 1).flatten()
        high = torch.stack([middle, self.high], 1).flatten()
        return Panels(self.anchor.repeat_interleave(2), low, high)

    def places(self) -> tuple[Places, Tensor]:
        """The Gauss-Legendre points of each, and their weights `(P, S)`."""
        node, weight = (each.to(self.low) for each in _gauss_legendre())
        width = (self.high - self.low).unsqueeze(1)
        return Places(
            self.anchor.unsqueeze(1), self.low.unsqueeze(1) + width * node
        ), width * weight


class Line(NamedTuple):
    """A mixture of one dimension: log-weights, means and deviations, `(K,)` each."""

    log_weight: Tensor
    mean: Tensor
    deviation: Tensor

    def standardised(self, at: Places) -> Tensor:
        """The places in deviations from each mean, `(P, S, K)`."""
        way = (at.anchor - self.mean).unsqueeze(1) + at.offset.unsqueeze(2)
        return way / self.deviation

    def log_joint(self, z: Tensor) -> Tensor:
        """log p(x, k) of `standardised` places, `(P, S, K)`."""
        return self.log_weight - self.deviation.log() - 0.5 * LOG_2PI - 0.5 * z.square()

    def log_prob(self, at: Places) -> Tensor:
        """`(P, S)`, nats."""
        return logsumexp(self.log_joint(self.standardised(at)), -1)

    def slope(self, at: Places) -> Tensor:
        """d log p / dx, `(P, S)`."""
        z = self.standardised(at)
        return -(self.log_joint(z).softmax(-1) * z / self.deviation).sum(-1)


class Integral(NamedTuple):
    """The integral, `(C,)`; by how much it may be off, `(C,)`, 0 where it is settled; and the
    panels that it is a sum over.
    """

    value: Tensor
    error: Tensor
    panels: Panels


Integrand = Callable[[Places], tuple[Tensor, Tensor]]
"""Places to values, `(P, S, C)`, and to the sizes of what those are differences of, which say how
many digits they have.
"""


def line(p: Mixture) -> Line:
    """The same in float64.

    Raises:
        InputError: more than one dimension.
    """
    dim = p.components.mean.shape[-1]
    if dim != 1:
        raise InputError(f"the events have {dim} dimensions: expected 1; use divergence.estimate")
    mean, log_var = gaussians(p.components).marginals()
    deviation = (0.5 * log_var.double()).exp()
    return Line(p.log_weight.double(), mean[:, 0].double(), deviation[:, 0])


def integral(integrand: Integrand, *lines: Line) -> Integral:
    """The integral over the whole line of what varies as the logarithms of these mixtures do."""
    left = panels(*lines)
    count = sum(len(each.mean) for each in lines)
    coarse, _ = _sums(integrand, left, count)
    value = torch.zeros_like(coarse[0])
    size = torch.zeros_like(value)
    error = torch.zeros_like(value)
    done: list[Panels] = []
    for _ in range(_ROUNDS):
        halves = left.halves()
        sums, sizes = _sums(integrand, halves, count)
        fine = sums.reshape(-1, 2, sums.shape[1]).sum(1)
        off = (fine - coarse).detach().abs()
        settled = (off <= _SETTLED * (size + sizes.sum(0))).all(1)
        twice = settled.repeat_interleave(2)
        value = value + fine[settled].sum(0)
        size = size + sizes[twice].sum(0)
        done.append(_some(halves, twice))
        left, coarse = _some(halves, ~twice), sums[~twice]
        error = off[~settled].sum(0)
        if not 0 < len(left.low) * count <= _MOST:
            break
    return Integral(value + coarse.sum(0), error, _joined([*done, left]))


def panels(*lines: Line) -> Panels:
    """Panels that hold all of some mixtures, each no wider than its distance from the nearest
    anchor, or than the deviations there.
    """
    mean = torch.cat([each.mean for each in lines]).detach()
    deviation = torch.cat([each.deviation for each in lines]).detach()
    anchor, scale = _anchors(mean, deviation)
    end = _REACH * deviation.max()
    gaps = 0.5 * anchor.diff()
    before = torch.cat([end[None], gaps])
    after = torch.cat([gaps, end[None] + mean.max() - anchor[-1]])

    longest = torch.maximum(before.max(), after.max())
    levels = math.ceil(math.log2(float(longest / scale.min()))) + 1
    power = torch.arange(levels, dtype=mean.dtype, device=mean.device)
    edge = _FIRST * scale.unsqueeze(1) * torch.cat([power.new_zeros(1), power.exp2()])
    sides = []
    for sign, reach in ((-1, before), (1, after)):
        ends = sign * torch.minimum(edge, reach.unsqueeze(1))
        low, high = (ends[:, 1:], ends[:, :-1]) if sign < 0 else (ends[:, :-1], ends[:, 1:])
        kept = high > low
        sides.append(Panels(anchor.unsqueeze(1).expand_as(low)[kept], low[kept], high[kept]))
    return _joined(sides)


def _anchors(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Means, ascending, of which one is within a deviation of every mean, `(A,)`; and the narrowest
    deviation at each.
    """
    order = mean.argsort()
    places: list[float] = []
    scales: list[float] = []
    for place, scale in zip(mean[order].tolist(), deviation[order].tolist(), strict=True):
        if places and place - places[-1] <= min(scale, scales[-1]):
            scales[-1] = min(scale, scales[-1])
        else:
            places.append(place)
            scales.append(scale)
    return mean.new_tensor(places), mean.new_tensor(scales)


def _sums(integrand: Integrand, over: Panels, count: int) -> tuple[Tensor, Tensor]:
    """The integrals over panels, and of the sizes, `(P, C)` each."""
    values: list[Tensor] = []
    sizes: list[Tensor] = []
    height = max(1, _LIMIT // (NODES * count))
    for part in zip(*(torch.split(each, height) for each in over), strict=True):
        at, weight = Panels(*part).places()
        for kept, found in zip((values, sizes), integrand(at), strict=True):
            kept.append((found * weight.unsqueeze(2)).sum(1))
    return torch.cat(values), torch.cat(sizes).detach()


def _some(these: Panels, which: Tensor) -> Panels:
    return tree_map(lambda part: part[which], these)


def _joined(several: list[Panels]) -> Panels:
    return Panels(*(torch.cat(parts) for parts in zip(*several, strict=True)))


@cache
def _gauss_legendre() -> tuple[Tensor, Tensor]:
    """Nodes in [0, 1] and weights, `(S,)` each (Golub & Welsch 1969)."""
    k = torch.arange(1, NODES, dtype=torch.float64)
    off = k / (4 * k.square() - 1).sqrt()
    value, vector = torch.linalg.eigh(off.diag(1) + off.diag(-1))
    return 0.5 * (1 + value), vector[0].square()
