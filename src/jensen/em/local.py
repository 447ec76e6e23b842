"""Densities and moments about each component's own mean, exact however far apart the components are
or how narrow.

The products of `em.stream` err by eps * `spread`, and by eps times the condition number of a
covariance: beside a cluster a million deviations away, an outlier or a narrow ridge that is too
    much. Here every deviation x - mean_k
is taken by itself, which is some ten times as much work, and the sums are those of deviations.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from jensen.base.tree import tree_map, tree_where
from jensen.em import stream
from jensen.em.precision import ridge
from jensen.em.stream import Chunks, Statistics
from jensen.em.variational import expected
from jensen.family import columns
from jensen.family.columns import Columns
from jensen.family.family import Components
from jensen.family.full import FullGaussian
from jensen.family.gaussian import LOG_2PI, Gaussian
from jensen.family.mixture import Mixture, logsumexp
from jensen.family.moments import Moments, add
from jensen.family.spherical import SphericalGaussian
from jensen.family.tied import TiedGaussian

_LIMIT = 1 << 18
"""Elements of a temporary `(..., K, n, D)`: 2 MiB of float64."""

SPREAD = 4e10
"""The greatest `spread` or condition number for products in float64: there they err by 1e-5 of a
nat.
"""


class Local(NamedTuple):
    """The sums of an E-step, as `Statistics`, with moments about the means it was made with.

    base: `(...)`, the sum of what no parameter enters in the log-likelihood; 0 of Gaussians.
    """

    log_likelihood: Tensor
    moments: Moments
    base: Tensor


def figures(p: Mixture, coefficient: Tensor) -> Tensor:
    """The least constant of `p` `(..., K)`, and where columns are correlated the greatest `ridge`:
    `(1,)` or `(2,)`, of which `lossy` tells; `coefficient`: of `stream.coefficients`.
    """
    if isinstance(p.components, Columns):
        return -0.5 * p.components.spread.amax().reshape(1)
    least = coefficient[..., 0].amin()
    if p.components.mean.shape[-1] == 1 or not isinstance(
        p.components, TiedGaussian | FullGaussian
    ):
        return least.reshape(1)
    return torch.stack([least, ridge(p.components).amax()])


def lossy(least: float, steepest: float = 1.0) -> bool:
    """Tell whether products about the origin would lose too much."""
    # The first is -spread / 2, beside which the others of its terms are nothing here.
    return least < -0.5 * SPREAD or steepest > SPREAD


def needed(p: Mixture, coefficient: Tensor) -> bool:
    """Tell whether products about the origin would lose too much of `p`."""
    return lossy(*figures(p, coefficient).tolist())


def whiten(deviations: Tensor, components: Components) -> tuple[Tensor, Tensor]:
    """Deviations `(..., K, n, D)` in units of each component's covariance, and log |covariance|,
    `(..., K or 1)`.
    """
    _, shape = components
    if isinstance(components, TiedGaussian | FullGaussian):
        factor = (
            shape.double() if isinstance(components, FullGaussian) else shape.double().unsqueeze(-3)
        )
        whitened: Tensor = torch.linalg.solve_triangular(factor, deviations.mT, upper=False).mT
        return whitened, 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_var = (
        (shape if isinstance(components, Gaussian) else shape.unsqueeze(-1))
        .double()
        .expand(components.mean.shape)
    )
    return deviations * (-0.5 * log_var).exp().unsqueeze(-2), log_var.sum(-1)


def _location(components: Components) -> Tensor:
    """The points that deviations are from, `(..., K, D)`."""
    return components.location if isinstance(components, Columns) else components.mean


def _log_density(deviations: Tensor, components: Components) -> Tensor:
    """log p of `(..., K, n, D)`, `(..., n, K)`."""
    if isinstance(components, Columns):
        return columns.log_density_of(deviations, components)
    whitened, log_det = whiten(deviations, components)
    return (
        -0.5
        * (whitened.square().sum(-1) + (log_det + deviations.shape[-1] * LOG_2PI).unsqueeze(-1)).mT
    )


def log_joint(x: Tensor, p: Mixture) -> Tensor:
    """log p(x, k), `(..., N, D)` to `(..., N, K)` float64."""
    deviations = x.double().unsqueeze(-3) - _location(p.components).double().unsqueeze(-2)
    return p.log_weight_of_points() + _log_density(deviations, p.components)


def expect(chunks: Chunks, origin: Tensor, p: Mixture, beta: float = 1.0) -> Local:
    """The E-step of `em.stream.Stream` on the points of `chunks`; `p` `(..., K)` is about the
    origin.
    """
    mean = _location(p.components)
    parts = []
    for raw, weight in chunks(max(1, _LIMIT // mean.numel())):
        deviations = (raw.double() - origin.double()).unsqueeze(-3) - mean.unsqueeze(-2)
        w = deviations.new_ones(len(raw)) if weight is None else weight.double()
        joint = p.log_weight_of_points() + _log_density(deviations, p.components) / beta
        r = joint.softmax(-1).mT * w  # (..., K, n)
        log_likelihood = beta * (logsumexp(joint, -1) * w).sum(-1)
        found = gathered(p.components, r, deviations)
        base = torch.zeros_like(log_likelihood)
        if isinstance(p.components, Columns):
            base = columns.log_base_of(deviations, r, p.components)
        parts.append(Local(log_likelihood, found, base))
    return total(parts)


def gathered(components: Components, r: Tensor, deviations: Tensor) -> Moments:
    """The moments about the components' means from `r` `(..., K, n)` and deviations `(..., K, n,
    D)`.
    """
    if isinstance(components, Columns):
        return columns.moments_of(deviations, r, components)
    weighted = r.unsqueeze(-1) * deviations
    if isinstance(components, Gaussian):
        second = (weighted * deviations).sum(-2)
    elif isinstance(components, SphericalGaussian):
        second = (weighted * deviations).sum((-2, -1))
    else:
        second = weighted.mT @ deviations
        second = second.sum(-3) if isinstance(components, TiedGaussian) else second
    return Moments(components.mean, r.sum(-1), weighted.sum(-2), second)


def total(parts: list[Local]) -> Local:
    """The whole of its parts, all made with the same parameters."""
    log_likelihood = torch.stack([part.log_likelihood for part in parts]).sum(0)
    base = torch.stack([part.base for part in parts]).sum(0)
    return Local(log_likelihood, add([part.moments for part in parts]), base)


# ---- of either kind of sums
# -----------------------------------------------------------------------------


def moments(p: Mixture, s: Statistics | Local) -> Moments:
    """The moments of an E-step, for `m_step(p, ...)`."""
    return s.moments if isinstance(s, Local) else stream.moments(p, s)


def counts(s: Statistics | Local) -> Tensor:
    """The sum of each component's responsibilities, `(..., K)`."""
    return s.moments.total if isinstance(s, Local) else s.sums[..., 0]


def expected_log_joint(
    p: Mixture, coefficient: Tensor, s: Statistics | Local, beta: float = 1.0
) -> Tensor:
    """sum of r * (log p(x|k) + beta * log weight_k), `(...)`, as `em.stream.expected_log_joint`."""
    if not isinstance(s, Local):
        return stream.expected_log_joint(p, coefficient, s, beta)
    p = expected(p)
    m = s.moments
    components = p.components
    if isinstance(components, Columns):
        natural = components.shifted(-m.origin).natural()
        sums = torch.cat([m.total.unsqueeze(-1), m.first], -1)
        density: Tensor = torch.linalg.vecdot(natural, sums)
        return s.base + (density + beta * m.total * p.log_weight).sum(-1)
    shape: Tensor
    move = m.origin - components.mean  # of the origins, about the means of p
    first = move * m.first
    along = move.unsqueeze(-1) * m.first.unsqueeze(-2)
    outer = m.total[..., None, None] * move.unsqueeze(-1) * move.unsqueeze(-2) + along + along.mT
    squares = m.total.unsqueeze(-1) * move.square() + 2 * first
    _, shape = components
    if isinstance(components, Gaussian):
        log_det = shape.sum(-1)
        distance = ((m.second + squares) * (-shape).exp()).sum(-1)
    elif isinstance(components, SphericalGaussian):
        log_det = shape * move.shape[-1]
        distance = (m.second + squares.sum(-1)) * (-shape).exp()
    elif isinstance(components, TiedGaussian):
        log_det = 2 * shape.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        distance = _trace(shape, m.second + outer.sum(-3)).unsqueeze(-1) / move.shape[-2]
    else:
        log_det = 2 * shape.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        distance = _trace(shape, m.second + outer)
    density = -0.5 * (distance + m.total * (log_det + move.shape[-1] * LOG_2PI))
    return (density + beta * m.total * p.log_weight).sum(-1)


def _trace(scale_tril: Tensor, scatter: Tensor) -> Tensor:
    """tr(C^-1 S) by two triangular solutions."""
    half = torch.linalg.solve_triangular(scale_tril, scatter, upper=False)
    whitened = torch.linalg.solve_triangular(scale_tril, half.mT, upper=False)
    trace: Tensor = whitened.diagonal(dim1=-2, dim2=-1).sum(-1)
    return trace


def merged(
    chosen: Tensor, a: Statistics | Local, b: Statistics | Local, p: Mixture
) -> Statistics | Local:
    """The starts of `a` that are `chosen` `(R,)`, the others of `b`; of different kinds the sums
    keep their own origins.
    """
    if isinstance(a, Statistics) and isinstance(b, Statistics):
        return tree_where(chosen, a, b)
    first, second = (moments(p, s) for s in (a, b))
    mean = p.components.mean
    origins = (
        Moments(first.origin.expand(mean.shape), *first[1:]),
        Moments(second.origin.expand(mean.shape), *second[1:]),
    )
    kept = tree_where(chosen, *origins)
    base = tree_where(chosen, *(_base(p, s) for s in (a, b)))
    return Local(tree_where(chosen, a.log_likelihood, b.log_likelihood), kept, base)


def _base(p: Mixture, s: Statistics | Local) -> Tensor:
    if isinstance(s, Local):
        return s.base
    common = p.components.common(s.scatter) if isinstance(p.components, Columns) else None
    return torch.zeros_like(s.log_likelihood) if common is None else common


def picked(s: Statistics | Local, at: Tensor) -> Statistics | Local:
    """Those of the starts `at` `(n,)`."""
    if isinstance(s, Statistics):
        return tree_map(lambda part: part[at], s)
    m = s.moments
    origin = m.origin.expand(*m.total.shape, m.origin.shape[-1])
    return tree_map(lambda part: part[at], s._replace(moments=m._replace(origin=origin)))
