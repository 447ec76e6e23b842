"""Divergences of several distributions from each other, from draws of each and densities of all."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.bound.divergence import mean_of_strata


class Source(NamedTuple):
    """A distribution by draws `(S, D)`, S even, and its log density, `(N, D)` to `(N,)`."""

    draws: Tensor
    log_prob: Callable[[Tensor], Tensor]


class Pairs(NamedTuple):
    """KL(row || column) and the Jensen-Shannon divergence, `(M, M)` each, nats, with their standard
    errors.
    """

    kl: Tensor
    kl_error: Tensor
    jensen_shannon: Tensor
    jensen_shannon_error: Tensor


def pairs(sources: Sequence[Source]) -> Pairs:
    """The divergences of each two of the sources, means over the draws.

    Each two consecutive draws are taken for a stratum (`divergence.stratified`); of draws that are
    independent that is right too.

    >>> one, two = (torch.distributions.Normal(torch.tensor([m]).double(), 1.0) for m in (0.0, 2.0))
    >>> draws = torch.linspace(-4, 4, 2000).double().unsqueeze(1)
    >>> source = Source(one.sample((2000,)), lambda x: one.log_prob(x).sum(1))
    >>> other = Source(two.sample((2000,)), lambda x: two.log_prob(x).sum(1))
    >>> pairs([source, other]).kl.round()
    tensor([[0., 2.],
            [2., 0.]], dtype=torch.float64)

    Raises:
        InputError: distributions of several spaces.
    """
    dims = {each.draws.shape[1] for each in sources}
    if len(dims) > 1:
        raise InputError(
            f"the distributions have {' and '.join(map(str, sorted(dims)))} dimensions: expected the same"
            " space"
        )
    logs = [[other.log_prob(each.draws).double() for other in sources] for each in sources]
    count = len(sources)
    kl, kl_error, js, js_error = torch.zeros(4, count, count, dtype=torch.float64).unbind()
    for i in range(count):
        for j in range(count):
            if i == j:
                continue
            kl[i, j], kl_error[i, j] = mean_of_strata(logs[i][i] - logs[i][j])
            if i < j:
                parts = [
                    mean_of_strata(logs[at][at] - torch.logaddexp(logs[at][i], logs[at][j]))
                    for at in (i, j)
                ]
                value = math.log(2) + 0.5 * (parts[0].value + parts[1].value)
                error = 0.5 * torch.stack([part.standard_error for part in parts]).norm()
                js[i, j] = js[j, i] = value
                js_error[i, j] = js_error[j, i] = error
    return Pairs(kl, kl_error, js, js_error)
