"""The overlap of posteriors that hardly do: the chance that draws of them rarely show.

Where posteriors lie apart, log q(z) is log q(z|x) - log N but for the few draws that fall between
two of them, and their excess l = log [sum_n q(z|x_n) / q(z|x)] is near 0 or of order 1. Most sets
of draws hold none of these and show no variance. The excess over one rival n is known in closed
form, nearly: of equal covariances, log r = log [q(z|x_n) / q(z|x)] is N(-a, 2 a) under q(z|x), with
    E sqrt(r) = exp(-a / 4) the Bhattacharyya coefficient; of others it is taken to be, at the same
coefficient, which is what counts: l and its square weigh the tails where r is near 1.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from jensen.family.gaussian import Gaussian

WORK = 1 << 25
"""Pairs of posteriors times dimensions that are looked at: a third of a second."""

_BLOCK = 1 << 20

_STEP = 0.25
_FARTHEST = 400.0
"""Beyond, the coefficient is below exp(-100)."""


class Excess(NamedTuple):
    """The mean and the mean square of l over draws of the aggregate posterior, `()`, in nats."""

    mean: Tensor
    square: Tensor


def excess(q: Gaussian) -> Excess:
    """The excess of log q(z) of the posteriors `q` `(N, D)` over that of each alone, rivals added
    up one by one.

    Exact as N(-a, 2 a) is, and where no draw lies between three; else too large. Of many posteriors
    only some are compared with all others.
    """
    count, dim = q.mean.shape
    some = min(count, max(WORK // (count * dim), 1))
    rows = torch.linspace(0, count - 1, some, device=q.mean.device).round().long()
    tables = _tables().to(q.mean)  # computed once, on the CPU
    total = tables.new_zeros(2)
    for block in torch.split(rows, max(_BLOCK // (count * dim), 1)):
        place = (_distance(q, block) / _STEP).clamp(max=tables.shape[1] - 2 + 0.999)
        low = place.floor().long()
        values = torch.lerp(tables[:, low], tables[:, low + 1], place - low).exp()
        values[:, torch.arange(len(block), device=block.device), block] = 0.0  # no rival of its own
        total += values.sum((1, 2))
    return Excess(*(total / some))


def _distance(q: Gaussian, rows: Tensor) -> Tensor:
    """a = -4 log E sqrt(r) of each of `rows` `(R,)` and every posterior, `(R, N)`."""
    mean, log_var = (part[rows][:, None] for part in q)
    both = log_var.exp() + q.log_var.exp()
    ratio = both.log() - 0.5 * (log_var + q.log_var) - torch.log(both.new_tensor(2.0))
    return ((mean - q.mean).square() / both + 2 * ratio).sum(2)


@cache
def _tables() -> Tensor:
    """Logarithms of E l and E l^2 at a = 0, `_STEP`, ..., `(2, A)`, for one rival; l = log (1 + r).

    Under the density tilted by sqrt(r) the logarithm of r is N(0, 2 a): E f(r) = exp(-a / 4) E'
    f(r) / sqrt(r), a smooth integral that is a sum over even steps to rounding.
    """
    a = torch.arange(_STEP, _FARTHEST + _STEP, _STEP, dtype=torch.float64)
    log_ratio = torch.linspace(-120, 120, 2401, dtype=torch.float64)  # in steps of 0.1
    density = (-log_ratio.square() / (4 * a[:, None])).exp() / (4 * torch.pi * a[:, None]).sqrt()
    excess = torch.nn.functional.softplus(log_ratio)
    logs = [
        (density * power * (-0.5 * log_ratio).exp() * 0.1).sum(1).log() - 0.25 * a
        for power in (excess, excess.square())
    ]
    certain = torch.log(torch.log(torch.tensor(2.0, dtype=torch.float64)))  # r = 1
    return torch.stack(
        [torch.cat([power * certain[None], log]) for power, log in zip((1, 2), logs, strict=True)]
    )
