"""Parameters from expected statistics where there is no closed form: Newton's method in the logarithm
of what is positive, with the gradient of the implicit function.

The last Newton step is taken with gradient, from a place without: at a root that is the derivative
of the root. Solutions are float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from jensen.base.errors import InputError

STEPS = 30
"""The most Newton steps."""

_FARTHEST = 2.0
"""The most that a step moves a logarithm."""

_NEAR = 1e-6
"""The last step of what has converged, relative: the next would be its square."""


def of_expected_logs(m: Tensor) -> Tensor:
    """The concentrations `(..., C)` of the Dirichlet with E log p = `m` `(..., C)` (Minka 2000).

    Raises:
        InputError: no Dirichlet has them, or Newton's method has not converged.
    """
    m = m.double()
    if not bool((m.logsumexp(-1) < 0).all()):
        raise InputError(
            f"E log p is {_shown(m[m.logsumexp(-1) >= 0])}: expected logarithms of geometric means,"
            " whose exponentials add up to less than 1; give means of log p over points"
        )
    with torch.no_grad():
        others = m.shape[-1] - 1
        large = m.exp() * 0.5 * others / -m.logsumexp(-1, keepdim=True)
        start = torch.maximum(large, -others / (m.shape[-1] * m))  # of equal small ones
        for _ in range(3):
            start = _inverse_digamma(m + torch.digamma(start.sum(-1, keepdim=True)))

    def step(a: Tensor) -> Tensor:
        """J^-1 (m - E log p) for J = diag(trigamma(a)) - trigamma(sum a), by Sherman & Morrison."""
        total = a.sum(-1, keepdim=True)
        miss = m - torch.digamma(a) + torch.digamma(total)
        own = 1 / torch.polygamma(1, a.detach())
        shared = torch.polygamma(1, total.detach())
        rest = shared * (own * miss).sum(-1, keepdim=True)
        return own * (miss + rest / (1 - shared * own.sum(-1, keepdim=True)))

    return _newton(start, step, m, "E log p")


def of_log_gap(gap: Tensor, dim: int = 1) -> Tensor:
    """The degrees of freedom n > dim - 1 of the Wishart with log|E X| - E log|X| = `gap` `(...)`; of
    one dimension it is the gamma distribution with shape n / 2.

    Raises:
        InputError: a gap that is not above 0, or Newton's method has not converged.
    """
    gap = gap.double()
    if not bool((gap > 0).all()):
        raise InputError(
            f"log E x - E log x is {_shown(gap[~(gap > 0)])}: expected a number above 0, as of any"
            " numbers that differ; give means of x and of log x over points"
        )
    offsets = torch.arange(dim, dtype=torch.float64, device=gap.device)

    def step(u: Tensor) -> Tensor:
        """Newton's step of u = n - dim + 1."""
        n = u + dim - 1
        halves = 0.5 * (n.unsqueeze(-1) - offsets)
        miss = torch.digamma(halves).sum(-1) - dim * (0.5 * n).log() + gap
        fixed = n.detach()
        slope = 0.5 * torch.polygamma(1, halves.detach()).sum(-1) - dim / fixed
        return -miss / slope

    with torch.no_grad():
        start = torch.maximum(dim * (dim + 1) / (2 * gap) - dim + 1, 1 / gap)
    return _newton(start, step, gap, "log E x - E log x") + dim - 1


def _newton(start: Tensor, step: Callable[[Tensor], Tensor], given: Tensor, name: str) -> Tensor:
    """The root that steps from `start` go to, whose last step has the gradient."""
    found = start
    with torch.no_grad():
        for _ in range(STEPS):
            relative = (step(found) / found).clamp(-_FARTHEST, _FARTHEST)
            # upwards an additive step, downwards one in the logarithm: always positive
            found = torch.where(relative > 0, found * (1 + relative), found * relative.exp())
            if bool((relative.abs() < _NEAR).all()):
                break
        else:
            raise InputError(
                f"no parameters were found in {STEPS} Newton steps for {name} = {_shown(given)}:"
                " expected numbers that float64 can tell from the edge of what is possible"
            )
    return found + step(found)


def _inverse_digamma(y: Tensor) -> Tensor:
    """x with digamma(x) = y, nearly (Minka 2000, appendix C)."""
    x = torch.where(y >= -2.22, y.clamp(max=700).exp() + 0.5, -1 / (y + 0.5772156649))
    for _ in range(4):
        x = x - (torch.digamma(x) - y) / torch.polygamma(1, x)
    return x


def _shown(values: Tensor) -> str:
    return ", ".join(f"{value:g}" for value in values.detach().flatten()[:4].tolist())
