"""Mixtures that are learned from minibatches of posteriors: how they start, and the size of a step."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from jensen.base.errors import check_count, check_number
from jensen.base.random import bits, fold, normal
from jensen.base.ranks import gather_batch, world
from jensen.bound.minibatch import minibatch_row
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture
from jensen.family.moments import Moments, like

_ROWS = fold(0, "mixture prior", "rows")
_NOISE = fold(0, "mixture prior", "noise")
"""Keys of the draws that start components. The minibatches are shuffled by the run's seed, so these
need not be.
"""


class OnlineMixture(nn.Module):
    """The start, and the size of steps, of a mixture that is learned from minibatches of posteriors;
    see `LearnedMixture`.

    Args:
        shape: `(..., K, D)`.
        warmup: the step at which it starts; at least 0.
        least: of the variances that it starts with.
        power, delay, forget: the step size.
    """

    started: Tensor
    begin: Tensor
    least: Tensor
    exponent: Tensor
    late: Tensor
    slowest: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        warmup: int,
        least: float,
        power: float,
        delay: float,
        forget: float,
    ) -> None:
        super().__init__()
        check_count("components", shape[-2])
        check_count("latent_dim", min(shape[:-2] + shape[-1:]))
        check_count("warmup", warmup, least=0)
        check_number("power", power, low=0, high=1)
        check_number("delay", delay, low=0)
        check_number("forget", forget, low=0, high=1)
        self.shape = shape
        self.warmup = warmup
        self.power = power
        self.delay = delay
        self.forget = forget
        self.register_buffer("started", torch.tensor(False))
        self._hold(begin=warmup, least=least, exponent=-power, late=delay, slowest=forget)

    def _hold(self, **numbers: float) -> None:
        """Keep numbers as buffers, so that a stack of models holds a stack of them."""
        for name, number in numbers.items():
            self.register_buffer(name, torch.tensor(number, dtype=torch.float64), persistent=False)

    def _size(self, step: Tensor) -> Tensor:
        """The size of EM's step, `()`."""
        since = (step.double() - self.begin).clamp(min=1)
        return (since + self.late).pow(self.exponent).clamp(min=self.slowest)

    def _take(
        self, own: Iterable[Tensor], fresh: Iterable[Tensor], moved: Iterable[Tensor], step: Tensor
    ) -> None:
        """Write what started, or what moved, into the state's tensors `own`; before the start leave
        them.
        """
        begin = ~self.started & (step >= self.begin)
        for mine, first, following in zip(own, fresh, moved, strict=True):
            following = torch.where(self.started, following.to(mine.dtype), mine)
            mine.copy_(torch.where(begin, first.to(mine.dtype), following))
        self.started.copy_(self.started | begin)

    def _rows(self, posterior: Gaussian, step: Tensor) -> Tensor:
        """An example for each component, `(K,)`: all different, if there are as many."""
        count = posterior.mean.shape[-2]
        components = self.shape[-2]
        order = bits(_ROWS, step.reshape(1), (count,))[0].argsort()
        return order[torch.arange(components, device=order.device) % count]

    def _start(self, posterior: Gaussian, rows: Tensor, step: Tensor, dim: int) -> Mixture:
        """Equal components at the examples `rows` `(K,)`, as wide as if they filled `dim` dimensions."""
        components = self.shape[-2]
        noise = posterior.log_var.exp().mean(-2, keepdim=True)
        whole = posterior.mean.var(-2, correction=0, keepdim=True) + noise
        mean = posterior.mean.index_select(-2, rows)
        count = posterior.mean.shape[-2]
        # those that share an example are drawn from the whole's variance about it
        if components > count:
            again = normal(_NOISE, step.reshape(1), self.shape, torch.float64)[0]
            again = again * (torch.arange(components, device=rows.device) >= count).unsqueeze(-1)
            mean = mean + whole.sqrt() * again
        variance = torch.maximum(whole * components ** (-2 / dim), noise).clamp(min=self.least)
        equal = torch.full_like(mean[..., 0], -math.log(components))
        return Mixture(equal, Gaussian(mean, variance.log().expand(mean.shape)))


def mean_moments(posterior: Gaussian, components: Gaussian, r: Tensor) -> Moments:
    """The moments of an example, the mean over the N of `posterior` `(..., N, D)` with
    responsibilities `(..., N, K)`.
    """
    own = components.moments(posterior.mean.double(), r)
    spread = r.mT @ posterior.log_var.double().exp()
    count = posterior.mean.shape[-2]
    return Moments(own.origin, own.total / count, own.first / count, (own.second + spread) / count)


def average(before: Moments, now: Moments, rate: Tensor | float) -> Moments:
    """(1 - rate) before + rate now, about one origin."""
    origin, *old = before
    return Moments(
        origin,
        *(torch.lerp(a, b, like(a, rate)) for a, b in zip(old, now[1:], strict=True)),
    )


def gathered(posterior: Gaussian) -> Gaussian:
    """All ranks' equal shares `(B / world, D)` of a minibatch, in its own order, `(B, D)`,
    detached, float64.
    """
    rank_after_rank = gather_batch(torch.stack([part.detach().double() for part in posterior], 1))
    ranks = world()[1]
    rows = minibatch_row(len(rank_after_rank), ranks, posterior.mean.device).argsort()
    mean, log_var = rank_after_rank[rows].unbind(1)
    return Gaussian(mean, log_var)
