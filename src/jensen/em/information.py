"""Fisher information of a mixture's parameters: what points say of them, and what EM does not see.

    observed   -d^2 log p(x) / d theta^2            of the points, at the parameters
    opg        sum of outer products of scores      of the points; no second derivatives
    expected   N times the mean of those products over the mixture itself
    complete   the observed information if components were known, averaged over the responsibilities

At a maximum the eigenvalues of 1 - complete^-1 observed are the rates at which EM approaches it in
each direction: the information that is missing (Dempster, Laird & Rubin 1977, section 4).

Parameters are the K - 1 first weights, the means, and the variances or the lower triangle of the
covariances: the numbers that people read, in the units of the points.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, final

import torch
from torch import Tensor

from jensen.bound import quadrature
from jensen.bound.divergence import stratified
from jensen.bound.quadrature import Line, Panels, Places
from jensen.em import missing
from jensen.em.coordinates import coordinates, mixture_at
from jensen.em.steps import e_step, m_step
from jensen.family.family import Components
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture, log_joint, logsumexp, shift
from jensen.family.spherical import SphericalGaussian
from jensen.family.tied import TiedGaussian

KINDS = ("observed", "expected", "opg")

_LIMIT = 1 << 21
"""Numbers in a temporary: 16 MB."""

_DRAWS = 1 << 17
"""Draws for the expected information in more than one dimension."""

_PUSH = 1e-5
"""Deviations that the parameters are moved by to watch EM bring them back."""

_AWAY = 1e-4
"""Deviations off the end where gains are measured: they are far above a likelihood's rounding."""

_STEPS = 10_000
_STILL = 1e-11
"""Deviations that are no step any more."""

_NONE = 1e-8
"""A ratio that is rounding alone: one step arrives, as with one component."""

_STEADY = 1e-7
"""The change of a ratio of successive steps that counts as none."""


class Convergence(NamedTuple):
    """The speed at which plain EM comes to its end: what theory says, beside what it does there.

    information_missing: the largest eigenvalue of 1 - complete^-1 observed. steps, gains: the
    measured ratios of successive steps, and of successive gains of the log-likelihood, which is the
    square of the other.
    """

    information_missing: float
    steps: float
    gains: float

    def __str__(self) -> str:
        missing = self.information_missing
        rows = (("steps", missing, self.steps), ("gains", missing**2, self.gains))
        table = [
            f"each of EM's {name}, of the last: {expected:.4f} by information missing,"
            f" {found:.4f} measured"
            for name, expected, found in rows
        ]
        return "\n".join(table)


@final
class Plain(NamedTuple):
    """A mixture's free parameters as one vector `(P,)`, and back; of the structure of `like`
    `(K,)`.
    """

    like: Mixture

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each, as `mean[1,0]`: component, then coordinate."""
        count, dim = self.like.components.mean.shape
        ks, ds = range(count), range(dim)
        lower = [(i, j) for i in ds for j in range(i + 1)]
        weights = [f"weight[{k}]" for k in ks[:-1]]
        means = [f"mean[{k},{d}]" for k in ks for d in ds]
        if isinstance(self.like.components, SphericalGaussian):
            shapes = [f"variance[{k}]" for k in ks]
        elif isinstance(self.like.components, Gaussian):
            shapes = [f"variance[{k},{d}]" for k in ks for d in ds]
        elif isinstance(self.like.components, TiedGaussian):
            shapes = [f"covariance[{i},{j}]" for i, j in lower]
        else:
            shapes = [f"covariance[{k},{i},{j}]" for k in ks for i, j in lower]
        return (*weights, *means, *shapes)

    def vector(self) -> Tensor:
        """The parameters of `like`, `(P,)` float64."""
        mean, shape = self.like.components
        if isinstance(self.like.components, TiedGaussian | FullGaussian):
            row, column = torch.tril_indices(*shape.shape[-2:], device=shape.device)
            shape = (shape @ shape.mT)[..., row, column]
        else:
            shape = shape.exp()
        weights = self.like.log_weight.exp()[:-1]
        return torch.cat([weights, mean.flatten(), shape.flatten()]).double()

    def mixture(self, theta: Tensor) -> Mixture:
        """The mixture with the parameters `theta` `(P,)`."""
        mean, shape = self.like.components
        count, dim = mean.shape
        weights, means, rest = theta.split(
            [count - 1, count * dim, len(theta) - count + 1 - count * dim]
        )  # type: ignore[no-untyped-call]
        log_weight = torch.cat([weights, 1 - weights.sum(0, keepdim=True)]).log()
        structure: Callable[..., Components] = type(self.like.components)
        place = means.reshape(count, dim)
        if structure in (Gaussian, SphericalGaussian):
            return Mixture(log_weight, structure(place, rest.log().reshape(shape.shape)))
        row, column = torch.tril_indices(dim, dim, device=theta.device)
        where = torch.zeros(dim, dim, dtype=torch.long, device=theta.device)
        where[row, column] = where[column, row] = torch.arange(len(row), device=theta.device)
        entries = rest.reshape(*shape.shape[:-2], len(row))
        factor = torch.linalg.cholesky(entries[..., where])
        return Mixture(log_weight, structure(place, factor))


def observed(x: Tensor, p: Mixture, weights: Tensor | None = None) -> Tensor:
    """Minus the second derivatives of sum log p(x) in the parameters, `(P, P)` float64."""

    def value(theta: Tensor, part: Tensor, w: Tensor, plain: Plain) -> Tensor:
        return w @ _joint(part, plain.mixture(theta)).logsumexp(-1)

    return -_curvature(value, x, p, weights)


def complete(x: Tensor, p: Mixture, weights: Tensor | None = None) -> Tensor:
    """The same of the expected log-joint, responsibilities held where they are."""

    def value(theta: Tensor, part: Tensor, w: Tensor, plain: Plain) -> Tensor:
        r = _joint(part, plain.like).softmax(-1)
        return w @ (r * _joint(part, plain.mixture(theta))).sum(-1)

    return -_curvature(value, x, p, weights)


def opg(x: Tensor, p: Mixture, weights: Tensor | None = None) -> Tensor:
    """The sum over points of scores times scores, `(P, P)` float64."""
    points, plain, w = _about(x, p, weights)
    total = torch.zeros(len(plain.names), len(plain.names)).to(w)
    for part, own in _parts(points, w, plain):
        slope = _scores(part, plain)
        total += slope.mT @ (own.unsqueeze(-1) * slope)
    return total


def expected(count: float, p: Mixture, seed: int = 0) -> Tensor:
    """The information that so many points are expected to hold, `(P, P)` float64.

    By quadrature in one dimension, in more a mean over 131,072 draws, stratified by component.
    """
    if p.components.mean.shape[-1] == 1:
        found = _integrated(p)
        if found is not None:
            return count * found
    x = stratified(p, _DRAWS, torch.Generator().manual_seed(seed))
    return count * opg(x, p) / len(x)


def _integrated(p: Mixture) -> Tensor | None:
    """The information of a point in one dimension; None where quadrature does not settle it."""
    line = quadrature.line(p)

    def own(at: Places) -> tuple[Tensor, Tensor]:
        """The share of each component's parameters in the diagonal, in its own units."""
        z = line.standardised(at)
        joint = line.log_joint(z)
        log_p = logsumexp(joint, -1).unsqueeze(-1)
        share = (2 * joint - log_p - line.log_weight).exp()
        value = share * (1 + z.square() + z.square().square())
        return value, value

    found = quadrature.integral(own, line)
    if bool((found.error != 0).any()):
        return None
    tied = isinstance(p.components, TiedGaussian)
    total = torch.zeros(()).to(line.mean)
    height = max(1, _LIMIT // (quadrature.NODES * 3 * len(line.mean)))
    for part in zip(*(torch.split(each, height) for each in found.panels), strict=True):
        at, weight = Panels(*part).places()
        slope, log_p = _line_scores(at, line, tied)
        total = total + slope.mT @ ((log_p.exp() * weight).reshape(-1, 1) * slope)
    return total


def _line_scores(at: Places, p: Line, tied: bool) -> tuple[Tensor, Tensor]:
    """d log p / d theta `(P S, parameters)` and log p `(P, S)`, in closed form, which unlike `_scores`
    has no digits to lose between means many deviations apart.
    """
    z = p.standardised(at)
    joint = p.log_joint(z)
    log_p = logsumexp(joint, -1)
    r = (joint - log_p.unsqueeze(-1)).exp()
    each = r / p.log_weight.exp()
    weights = each[..., :-1] - each[..., -1:]
    means = r * z / p.deviation
    variances = 0.5 * r * (z.square() - 1) / p.deviation.square()
    if tied:
        variances = variances.sum(-1, keepdim=True)
    return torch.cat([weights, means, variances], -1).flatten(0, 1), log_p


def covariance(information: Tensor) -> Tensor | None:
    """Its inverse, whatever the units of the parameters; None where it is not positive definite."""
    scale = information.diagonal().clamp(min=1e-300).rsqrt()
    factor, failed = torch.linalg.cholesky_ex(scale[:, None] * information * scale)
    if bool(failed) or not bool(information.isfinite().all()):
        return None
    return scale[:, None] * torch.cholesky_inverse(factor) * scale


def rates(x: Tensor, p: Mixture, weights: Tensor | None = None) -> Tensor:
    """The eigenvalues of 1 - complete^-1 observed, `(P,)`, ascending: EM's rate in each
    direction.
    """
    whole, seen = complete(x, p, weights), observed(x, p, weights)
    scale = whole.diagonal().clamp(min=1e-300).rsqrt()
    factor = torch.linalg.cholesky(scale[:, None] * whole * scale)
    lost = scale[:, None] * (whole - seen) * scale
    half = torch.linalg.solve_triangular(factor, lost, upper=False)
    both: Tensor = torch.linalg.solve_triangular(factor, half.mT, upper=False)
    values: Tensor = torch.linalg.eigvalsh(0.5 * (both + both.mT))
    return values


def measured_rate(x: Tensor, p: Mixture, weights: Tensor | None = None, seed: int = 0) -> float:
    """The ratio of successive steps of plain EM at its end, where only the slowest direction is
    left of them. Gains of the log-likelihood fall by the square of the ratio.

    EM goes on from `p` to its end; then it is moved a little from there again and again, along the
    step that it has just made, until it always comes back by the same part.
    """
    points, plain, w = _about(x, p, weights)
    return _slowest(points, w, _end(points, w, plain.like), seed)[0]


def convergence(x: Tensor, p: Mixture, weights: Tensor | None = None, seed: int = 0) -> Convergence:
    """The rate of plain EM at its end, predicted and measured; the gains are those of two steps from
    a place off the end in the slowest direction.
    """
    points, plain, w = _about(x, p, weights)
    end = _end(points, w, plain.like)
    steps, direction = _slowest(points, w, end, seed)
    at = mixture_at(direction * (_AWAY / direction.norm().clamp(min=1e-300)), end)
    heights = []
    for _ in range(3):
        heights.append(float(w @ _joint(points, at).logsumexp(-1)))
        at = _step(points, w, at)
    first = heights[1] - heights[0]
    gains = (heights[2] - heights[1]) / first if first > 0 else 0.0
    return Convergence(float(rates(x, p, weights)[-1]), steps, gains)


def _slowest(points: Tensor, w: Tensor, end: Mixture, seed: int) -> tuple[float, Tensor]:
    """The ratio of successive steps near the end of EM, and the direction of the last."""
    width = coordinates(end, end).shape[-1]
    push = torch.randn(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    push = push.to(w)
    ratio = 0.0
    for _ in range(_STEPS):
        last = ratio
        left = coordinates(_step(points, w, mixture_at(push * (_PUSH / push.norm()), end)), end)
        ratio = float(left.norm()) / _PUSH
        if abs(ratio - last) < _STEADY * ratio or ratio < _NONE:
            break
        push = left
    return ratio, push


def _end(points: Tensor, w: Tensor, p: Mixture) -> Mixture:
    for _ in range(_STEPS):
        following = _step(points, w, p)
        moved = float(coordinates(following, p).norm())
        p = following
        if moved < _STILL:
            break
    return p


def _step(points: Tensor, w: Tensor, p: Mixture) -> Mixture:
    """One step of plain EM."""
    if bool(points.isnan().any()):
        none = points.new_zeros(points.shape[1])
        return m_step(p, missing.local(lambda _: [(points, w)], none, p).moments)
    return m_step(p, p.components.moments(points, e_step(points, p) * w.unsqueeze(-1)))


Value = Callable[[Tensor, Tensor, Tensor, Plain], Tensor]


def _curvature(value: Value, x: Tensor, p: Mixture, weights: Tensor | None) -> Tensor:
    points, plain, w = _about(x, p, weights)
    theta = plain.vector()
    total = torch.zeros(len(theta), len(theta)).to(w)
    for part, own in _parts(points, w, plain):
        total += torch.func.jacrev(torch.func.grad(value))(theta, part, own, plain)
    return 0.5 * (total + total.mT)


def _scores(x: Tensor, plain: Plain) -> Tensor:
    """d log p(x_n) / d theta, `(n, P)`."""

    def value(theta: Tensor) -> Tensor:
        return _joint(x, plain.mixture(theta)).logsumexp(-1)

    # A point's score by its own reverse pass would take n of them; of the pass itself, which is
    # linear in what it starts from, it takes P.
    back = torch.func.vjp(value, plain.vector())[1]
    slopes: Tensor = torch.func.jacrev(lambda seed: back(seed)[0])(x.new_zeros(len(x)))
    return slopes.mT


def _joint(x: Tensor, p: Mixture) -> Tensor:
    if bool(x.isnan().any()):
        return p.log_weight + missing.log_density(x, p)
    return log_joint(x, p)


def _about(x: Tensor, p: Mixture, weights: Tensor | None) -> tuple[Tensor, Plain, Tensor]:
    """Points, parameters and weights about a place near the means: no parameter's derivative
    changes by it.
    """
    origin = p.components.mean.double().mean(0)
    w = torch.ones(len(x)).to(origin) if weights is None else weights.to(origin)
    return x.double() - origin, Plain(shift(p, -origin)), w


def _parts(x: Tensor, w: Tensor, plain: Plain) -> Iterator[tuple[Tensor, Tensor]]:
    count, dim = plain.like.components.mean.shape
    size = max(1, _LIMIT // (len(plain.names) * count * dim))
    return zip(torch.split(x, size), torch.split(w, size), strict=True)
