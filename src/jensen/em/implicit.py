"""The fixed point of EM: the residual of a step, and gradients through it.

At theta = F(theta, x) the implicit function theorem gives dtheta/dx = (I - J)^-1 dF/dx with J =
dF/dtheta, so a cotangent v becomes u = (I - J')^-1 v and then one vector-Jacobian product of one
step (Christianson 1994; Bai, Kolter & Koltun 2019, arXiv 1909.01377, theorem 1). No step but the
last is kept. J of EM is the fraction of missing information: its eigenvalues are real and in [0, 1)
at a strict maximum (Dempster, Laird & Rubin 1977, section 3), most of them near 0, so GMRES (Saad &
Schultz 1986) needs few products. Where some are near 1, F is several steps (`steps_in_one`).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from jensen.base.tree import tree_where
from jensen.em import steps as em
from jensen.em.coordinates import coordinates, mixture_at
from jensen.family.mixture import Mixture
from jensen.family.moments import FLAT, PseudoCounts

MOST_PRODUCTS = 25
"""Vector-Jacobian products that one gradient may take: 24 of GMRES and the one that hands the
result on.
"""

_GOOD_RATE = 0.8
_MOST_STEPS = 16
"""A rate at which 24 products solve the system, and the EM steps that a product may go back through
to have it.
"""

_DISPLACED = 1e-4
_WATCHED = 5
"""Distance from the fixed point, in the units of `coordinates`, and steps, by which the rate is
told.
"""

_SINGULAR = 1e-14
"""A pivot below this, against the largest, has no solution in it."""


def step(
    x: Tensor,
    p: Mixture,
    *,
    weights: Tensor | None = None,
    prior: PseudoCounts = FLAT,
    kept: Mixture | None = None,
    times: int | Tensor = 1,
) -> Mixture:
    """F: an EM step from `p` on points `(..., N, D)` with `weights` `(..., N)`, or as many as
    `times` says.

    kept: where a component without any points stays; by default at `p`.
    times: for each of B sets its own number, `(B,)`, or one for all.
    """
    if isinstance(times, int):
        most = times
    else:
        most = int(times.max()) if times.numel() else 0
    for done in range(most):
        r = em.e_step(x, p)
        if weights is not None:
            r = r * weights.unsqueeze(-1)
        new = em.m_step(p if kept is None else kept, p.components.moments(x, r), prior)
        p = new if isinstance(times, int) else tree_where(done < times, new, p)
    return p


@torch.no_grad()
def steps_in_one(
    x: Tensor, p: Mixture, *, weights: Tensor | None = None, prior: PseudoCounts = FLAT
) -> Tensor:
    """The number of EM steps that F should be made of near the fixed point `p` of each set, `(B,)`
    int64.

    The fixed point is the same, and the eigenvalues are those powers of J's, of which none then is
    near 1. The largest of J is the rate at which a small displacement of `p` shrinks, once it has
    shrunk for some steps.
    """
    size = coordinates(p, p).shape[-1]
    away = _DISPLACED * torch.arange(size, device=x.device).double().cos()
    moved = mixture_at(away.expand(*p.log_weight.shape[:-1], size), p)
    left = []
    for _ in range(2):
        p, moved = (step(x, q, weights=weights, prior=prior, times=_WATCHED) for q in (p, moved))
        left.append(torch.linalg.vector_norm(coordinates(moved, p), dim=-1))
    rate = (left[1] / left[0].clamp(min=1e-300)) ** (1 / _WATCHED)
    slow = (rate > 0) & (rate < 1)
    steps = (math.log(_GOOD_RATE) / rate.where(slow, 0.5).log()).ceil().clamp(1, _MOST_STEPS)
    whole: Tensor = steps.where(slow, 1).long()
    return whole


def gmres(
    product: Callable[[Tensor], Tensor], b: Tensor, rtol: float, limit: int
) -> tuple[Tensor, Tensor]:
    """u with A u = b for a stack of systems `(B, P)`, by at most `limit` calls of `product`, v to A
    v `(B, P)`.

    Returns u and |A u - b| / |b|, `(B,)`. A system that has reached `rtol` takes no part in later
    steps, so its solution does not depend on the others. Saad & Schultz 1986, algorithm 4, from u =
    0, with orthogonalisation done twice.
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
        basis.append(
            torch.where(
                (active & (length > 0)).unsqueeze(-1), w / length.clamp(min=1e-300).unsqueeze(-1), 0
            )
        )
        y, error = _least_squares(hessenberg[:, : column + 2, : column + 1], error, active)
    u = (
        (torch.stack(basis[: y.shape[1]], 1).mT @ y).squeeze(-1)
        if y.shape[1]
        else torch.zeros_like(b)
    )
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
    def forward(
        ctx: Any, theta: Tensor, solve: Callable[..., Tensor], *constants: Tensor
    ) -> Tensor:
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
    """theta `(B, P)` = F(theta*, x) unchanged; its gradient becomes that of the fixed point theta*
    = 0 of F, as x varies.

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
