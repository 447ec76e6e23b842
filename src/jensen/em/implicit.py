"""Where EM ends: coordinates of a mixture, the residual of a step, and gradients through the fixed point.

At theta = F(theta, x) the implicit function theorem gives dtheta/dx = (I - J)^-1 dF/dx with J = dF/dtheta, so a
cotangent v becomes u = (I - J')^-1 v and then one vector-Jacobian product of one step (Christianson 1994; Bai, Kolter &
Koltun 2019, arXiv 1909.01377, theorem 1). No step but the last is kept. J of EM is the fraction of missing information: its
eigenvalues are real and in [0, 1) at a strict maximum (Dempster, Laird & Rubin 1977, section 3), most of them near 0, so
GMRES (Saad & Schultz 1986) needs few products. Where some are near 1, F is several steps (`steps_in_one`).
"""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from jensen.em import steps as em
from jensen.family.components import FLAT, Components, Prior
from jensen.family.mixture import Mixture

MOST_PRODUCTS = 25
"""Vector-Jacobian products that one gradient may take: 24 of GMRES and the one that hands the result on."""

_GOOD_RATE, _MOST_STEPS = 0.8, 16
"""A rate at which 24 products solve the system, and the EM steps that a product may go back through to have it."""

_DISPLACED, _WATCHED = 1e-4, 5
"""How far from the fixed point, in the units of `coordinates`, and over how many steps the rate is looked at."""

_SINGULAR = 1e-14
"""A pivot below this, against the largest, has no solution in it."""


def step(
    x: Tensor,
    p: Mixture,
    *,
    weights: Tensor | None = None,
    prior: Prior = FLAT,
    kept: Mixture | None = None,
    times: int = 1,
) -> Mixture:
    """F: an EM step from `p` on points `(..., N, D)` with `weights` `(..., N)`, or as many as `times` says.

    kept: where a component without any points stays; by default at `p`.
    """
    for _ in range(times):
        r = em.e_step(x, p)
        if weights is not None:
            r = r * weights.unsqueeze(-1)
        p = em.m_step(p if kept is None else kept, p.components.moments(x, r), prior)
    return p


@torch.no_grad()
def steps_in_one(x: Tensor, p: Mixture, *, weights: Tensor | None = None, prior: Prior = FLAT) -> int:
    """How many EM steps F should be made of near the fixed point `p`.

    The fixed point is the same, and the eigenvalues are those powers of J's, of which none then is near 1. The largest of J
    is the rate at which a small displacement of `p` shrinks, once it has shrunk for some steps.
    """
    size = coordinates(p, p).shape[-1]
    away = _DISPLACED * torch.arange(size, device=x.device).double().cos()
    moved = mixture_at(away.expand(*p.log_weight.shape[:-1], size), p)
    left = []
    for _ in range(2):
        p, moved = (step(x, q, weights=weights, prior=prior, times=_WATCHED) for q in (p, moved))
        left.append(torch.linalg.vector_norm(coordinates(moved, p), dim=-1))
    shrunk = (left[1] / left[0].clamp(min=1e-300)).flatten().tolist()
    rate = max(shrunk, default=0.0) ** (1 / _WATCHED)
    return min(_MOST_STEPS, max(1, math.ceil(math.log(_GOOD_RATE) / math.log(rate)))) if 0 < rate < 1 else 1


def coordinates(p: Mixture, about: Mixture) -> Tensor:
    """`p` as a vector `(..., P)` without constraints or units, zero where `p` is `about`; a linear map of x does not change it.

    Centred log-weights; means in standard deviations of `about`; and log-variances, or the Cholesky factor in units of
    that of `about`, with the logarithm of its diagonal.
    """
    weight = p.log_weight - about.log_weight
    mean, shape = (new - old for new, old in zip(p.components, about.components, strict=True))
    if hasattr(p.components, "scale_tril"):
        unit, factor = about.components.scale_tril, p.components.scale_tril  # type: ignore[attr-defined]
        mean = torch.linalg.solve_triangular(_each(unit, mean), mean.unsqueeze(-1), upper=False).squeeze(-1)
        factor = torch.linalg.solve_triangular(unit, factor.tril(), upper=False)
        shape = factor.tril(-1) + factor.diagonal(dim1=-2, dim2=-1).log().diag_embed()
        row, column = _triangle(mean)
        shape = shape[..., row, column]
    else:
        mean = mean / _deviation(about.components)
    batch = mean.shape[:-2]
    parts = (weight - weight.mean(-1, keepdim=True), mean, shape)
    return torch.cat([part.reshape(*batch, part.shape[len(batch) :].numel()) for part in parts], -1)


def mixture_at(theta: Tensor, about: Mixture) -> Mixture:
    """The mixture with the `coordinates` theta `(..., P)`."""
    mean, shape = about.components
    batch, structure = mean.shape[:-2], cast(Callable[[Tensor, Tensor], Components], type(about.components))
    weight_size, mean_size = about.log_weight.shape[-1], mean.shape[-2:].numel()
    weight, move, change = theta.tensor_split([weight_size, weight_size + mean_size], -1)
    log_weight = (about.log_weight + weight).log_softmax(-1)
    move = move.reshape(mean.shape)
    if hasattr(about.components, "scale_tril"):
        row, column = _triangle(mean)
        entries = change.reshape(*shape.shape[:-2], len(row))
        factor = entries.new_zeros(shape.shape)
        factor[..., row, column] = torch.where(row == column, entries.exp(), entries)
        move = (_each(shape, mean) @ move.unsqueeze(-1)).squeeze(-1)
        return Mixture(log_weight, structure(mean + move, shape @ factor))
    change = change.reshape(*batch, *shape.shape[len(batch) :])
    return Mixture(log_weight, structure(mean + move * _deviation(about.components), shape + change))


def _each(scale_tril: Tensor, mean: Tensor) -> Tensor:
    """A factor for each component."""
    return scale_tril if scale_tril.dim() > mean.dim() else scale_tril.unsqueeze(-3)


def _triangle(mean: Tensor) -> tuple[Tensor, Tensor]:
    dim = mean.shape[-1]
    row, column = torch.tril_indices(dim, dim, device=mean.device)
    return row, column


def _deviation(components: Components) -> Tensor:
    mean, log_var = components
    return (0.5 * (log_var if log_var.dim() == mean.dim() else log_var.unsqueeze(-1))).exp()


def gmres(product: Callable[[Tensor], Tensor], b: Tensor, rtol: float, limit: int) -> tuple[Tensor, Tensor]:
    """u with A u = b for a stack of systems `(B, P)`, by at most `limit` calls of `product`, v to A v `(B, P)`.

    Returns u and |A u - b| / |b|, `(B,)`. A system that has reached `rtol` takes no part in later steps, so its solution does
    not depend on the others. Saad & Schultz 1986, algorithm 4, from u = 0, with orthogonalisation done twice.
    """
    size = torch.linalg.vector_norm(b, dim=-1)
    error = (size > 0).to(b)
    basis = [b / torch.where(size > 0, size, 1).unsqueeze(-1)]
    hessenberg = b.new_zeros(len(b), limit + 1, limit)
    y = b.new_zeros(len(b), 0, 1)
    for column in range(limit):
        active = error > rtol
        if not bool(active.any()):
            break
        span = torch.stack(basis, 1)
        w = product(basis[-1])
        for _ in range(2):
            along = span @ w.unsqueeze(-1)
            w = w - (span.mT @ along).squeeze(-1)
            hessenberg[:, : column + 1, column] += along.squeeze(-1)
        length = torch.linalg.vector_norm(w, dim=-1)
        hessenberg[:, column + 1, column] = length
        # A finished system gets a column that is orthogonal to all else: its coefficient is 0.
        hessenberg[:, : column + 2, column] *= active.unsqueeze(-1)
        hessenberg[:, column + 1, column] += ~active
        basis.append(torch.where((active & (length > 0)).unsqueeze(-1), w / length.clamp(min=1e-300).unsqueeze(-1), 0))
        y, error = _least_squares(hessenberg[:, : column + 2, : column + 1], error, active)
    u = (torch.stack(basis[: y.shape[1]], 1).mT @ y).squeeze(-1) if y.shape[1] else torch.zeros_like(b)
    return u * size.unsqueeze(-1), error


def _least_squares(hessenberg: Tensor, error: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    """The y that minimises |e_1 - H y|, and the minimum; `error` again where not `active`."""
    first = torch.zeros_like(hessenberg[:, :, :1])
    first[:, 0] = 1
    q, r = torch.linalg.qr(hessenberg)
    pivot = r.diagonal(dim1=-2, dim2=-1)
    lost = pivot.abs() <= _SINGULAR * pivot.abs().amax(-1, keepdim=True)
    r = r + (1e300 * lost.to(r)).diag_embed()
    y = torch.linalg.solve_triangular(r, q.mT @ first, upper=True)
    found = torch.linalg.vector_norm(first - hessenberg @ y, dim=(-2, -1))
    return y, torch.where(active, found, error)


class _Implicit(torch.autograd.Function):
    """The identity, whose backward is u = (I - J')^-1 v."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, solve: Callable[..., Tensor], *constants: Tensor) -> Tensor:
        ctx.solve = solve
        ctx.save_for_backward(*constants)
        return theta.clone()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        constants = ctx.saved_tensors
        return ctx.solve(v, *constants), None, *(None for _ in constants)


def implicit(
    theta: Tensor,
    move: Callable[..., Tensor],
    constants: tuple[Tensor, ...],
    *,
    rtol: float,
    report: Callable[[Tensor], None],
) -> Tensor:
    """theta `(B, P)` = F(theta*, x) unchanged; its gradient becomes that of the fixed point theta* = 0 of F, as x varies.

    move: `move(theta, *constants)` is F with x constant, one system a row.
    report: is given the relative error `(B,)` of the linear systems when a gradient has been taken.
    Gradients of the gradient are refused, since GMRES is not differentiated.
    """

    def solve(v: Tensor, *constants: Tensor) -> Tensor:
        with torch.enable_grad(), torch.autocast(v.device.type, enabled=False):
            at = torch.zeros_like(v, requires_grad=True)
            moved = move(at, *constants)

        def product(u: Tensor) -> Tensor:
            return u - torch.autograd.grad(moved, at, u, retain_graph=True)[0]

        u, error = gmres(product, v, rtol, MOST_PRODUCTS - 1)
        report(error)
        return u

    found: Tensor = _Implicit.apply(theta, solve, *constants)  # type: ignore[no-untyped-call]
    return found
