"""The mean of a function of z under the aggregate posterior, and what of it is left to chance."""

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jensen.bound import overlap
from jensen.bound.aggregate import Draws
from jensen.family import gaussian
from jensen.family.gaussian import Gaussian

_ALIKE = 1e-10
"""The share of the variance of all control variates below which one is another's rounding: its slope
would make a mean of what is left of its digits.
"""

_NEAR = 0.1
"""Nats below log N from which overlaps may be too rare to show in the spread of the draws."""

_EVENTS = 30.0
"""Draws in an overlap, on average, from which that spread says enough of the standard error."""


@dataclass(frozen=True)
class Term:
    """The mean of a function of z under q(z), and what of each draw `(S,)` is left to chance;
    nothing if it is exact.
    """

    mean: Tensor
    residual: Tensor
    freedom: int
    unseen: Tensor | float = 0.0  # variance of the mean beyond that of the residuals

    @staticmethod
    def exact(mean: Tensor) -> "Term":
        return Term(mean, torch.zeros_like(mean), 1)

    @staticmethod
    def sum(terms: "list[Term]") -> "Term":
        """The estimate of one or more."""
        return functools.reduce(Term.__add__, terms)

    @staticmethod
    def zero(like: "Term") -> "Term":
        return Term.exact(torch.zeros_like(like.mean))

    @staticmethod
    def estimate(values: Tensor, controls: Tensor) -> "Term":
        """From the values at the draws, `(S,)`, and `controls` `(S, C)`, functions of the draws
        whose mean is 0.

        The regression estimator (Owen 2013, "Monte Carlo theory, methods and examples", section
        8.9).
        """
        centred = controls - controls.mean(0)
        inverse = torch.linalg.pinv(centred.T @ centred, rtol=_ALIKE, hermitian=True)
        slope = inverse @ (centred.T @ (values - values.mean()))
        rest = values - controls @ slope
        return Term(rest.mean(), rest - rest.mean(), max(len(values) - 1 - controls.shape[1], 1))

    @property
    def standard_error(self) -> Tensor:
        count = max(self.residual.numel(), 1)
        return (self.residual.square().sum() / (self.freedom * count) + self.unseen).sqrt()

    def with_rare_overlaps(self, log_ratio: Tensor, q: Gaussian, dataset_size: int) -> "Term":
        """Add what an estimate of E log q(z) lacks in variance; `log_ratio` `(S,)` is log q(z) -
        log q(z|x_row).
        """
        if log_ratio.mean() + math.log(dataset_size) > _NEAR:
            return self
        found = overlap.excess(q)
        count = len(log_ratio)
        # events of one size: their number; also 0 of 0
        if count * found.mean.square() >= _EVENTS * found.square:
            return self
        share = (dataset_size - 1) / max(len(q.mean) - 1, 1)  # each stands for so many
        lacking = share * found.square / count - self.standard_error.square()
        return replace(self, unseen=self.unseen + lacking.clamp(min=0))

    def __add__(self, other: "Term") -> "Term":
        return self._combined(self.mean + other.mean, self.residual + other.residual, other)

    def __sub__(self, other: "Term") -> "Term":
        return self._combined(self.mean - other.mean, self.residual - other.residual, other)

    def _combined(self, mean: Tensor, residual: Tensor, other: "Term") -> "Term":
        return Term(mean, residual, max(self.freedom, other.freedom), self.unseen + other.unseen)


def control_variates(draws: Draws, q: Gaussian) -> Tensor:
    """Functions of the draws with a known mean, less that mean, in units of their size: `(S, C)`, C
    at most S / 10.

    log q(z|x_row), which is all of log q(z) where posteriors do not overlap; and the first two
    moments of z, which are all of it where q(z) is Gaussian. They keep their digits of what is
    `about_mean`.
    """
    own_entropy = gaussian.entropy(q).sum(1)
    columns = [
        0.5 * (1 - draws.noise.square()).sum(1, keepdim=True),
        (own_entropy[draws.row] - own_entropy.mean())[:, None],
    ]
    z = draws.z
    squares = z.square() - (q.mean.square() + q.log_var.exp()).mean(0)
    room = len(z) // 10 - len(columns)
    for more in (z, squares):
        if more.shape[1] <= room:
            columns.append(more)
            room -= more.shape[1]
    if math.comb(z.shape[1], 2) <= room:
        first, second = torch.triu_indices(z.shape[1], z.shape[1], offset=1, device=z.device)
        expected = (q.mean.T @ q.mean / len(q.mean))[first, second]
        columns.append(z[:, first] * z[:, second] - expected)
    if len(z) < 20:
        columns = [z[:, :0]]
    controls = torch.cat(columns, 1)
    size = controls.square().mean(0).sqrt()
    return controls / torch.where(size > 0, size, torch.ones_like(size))
