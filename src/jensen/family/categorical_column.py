"""Columns of categories."""

from typing import NamedTuple, Self, final

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from jensen.base import random
from jensen.base.errors import InputError
from jensen.family.column import CERTAIN, Column, Natural, Sums, kept
from jensen.family.moments import TINY, PseudoCounts


class _Parameters(NamedTuple):
    log_share: Tensor


@final
class CategoricalColumn(_Parameters, Column):
    """A column of codes 0..C - 1 with probabilities exp(log_share), `(..., K, C)`."""

    name = "categorical"
    parameters = ("log_share",)
    sized = True
    expected = "a code of 0, 1, 2, ..."
    remedy = "encode it"

    @classmethod
    def alike(cls, shape: tuple[int, ...], like: Tensor) -> Self:
        return cls(like.new_zeros(shape).log_softmax(-1))

    @classmethod
    def at(cls, mean: Tensor, variance: Tensor) -> Self:
        raise InputError(
            "init is means and x has categorical columns: expected kmeans++, random or a Mixture"
        )

    @property
    def width(self) -> int:
        return 1

    @property
    def more(self) -> int:
        return self.log_share.shape[-1]

    @property
    def degrees(self) -> int:
        return self.log_share.shape[-1] - 1

    @property
    def mean(self) -> Tensor:
        """The mean code, `(..., K, 1)`."""
        codes = torch.arange(self.log_share.shape[-1]).to(self.log_share)
        return (self.log_share.softmax(-1) @ codes).unsqueeze(-1)

    def natural(self) -> Natural:
        zero = torch.zeros_like(self.log_share[..., :1])
        return Natural(zero, zero, self.log_share.log_softmax(-1))

    def statistics(self, x: Tensor, out: Tensor) -> None:
        codes = torch.arange(self.log_share.shape[-1], device=x.device).to(x)
        if out.requires_grad:
            out.copy_(x == codes.unsqueeze(-1))
        else:
            torch.eq(x, codes.unsqueeze(-1), out=out)

    def maximise(self, sums: Sums, prior: PseudoCounts) -> Self:
        seen = sums.seen + prior.values
        size = self.log_share.shape[-1]
        share = (sums.more + prior.values / size) / seen.clamp(min=TINY)
        log_share = share.clamp(min=CERTAIN).log().log_softmax(-1)
        return type(self)(kept(log_share, seen, self.log_share))

    def log_prior(self, prior: PseudoCounts) -> Tensor:
        return prior.values * self.log_share.log_softmax(-1).mean(-1).sum(-1)

    def of_free(self, free: Tensor) -> Self:
        moved = self.log_share + free.reshape(self.log_share.shape)
        return type(self)(moved.log_softmax(-1))

    def draw(self, component: Tensor, key: int, index: Tensor) -> Tensor:
        u = random.uniform(key, index, (), torch.float64)
        return chosen(self.log_share[component], u).unsqueeze(1).to(self.log_share)

    @classmethod
    def admits(cls, x: Tensor, size: int) -> Tensor:
        code = (x >= 0) & (x == x.round())
        return code & (x < size) if size else code

    @classmethod
    def refusal(cls, value: float, size: int) -> tuple[str, str]:
        if size and value == round(value) and value >= 0:
            return f"a code of 0..{size - 1}", f"set sizes to {int(value) + 1} or more"
        return cls.expected, cls.remedy

    @classmethod
    def scaled(cls, x: Tensor, mean: Tensor, variance: Tensor, size: int) -> Tensor:
        code = x[:, 0].round().long().clamp(max=size - 1)
        return one_hot(code, size).to(x) * 2**0.5


def chosen(log_share: Tensor, u: Tensor) -> Tensor:
    """The first category whose distribution function exceeds `u` `(N,)`, of `log_share` `(N, C)`."""
    reach = log_share.exp().cumsum(-1)
    reach = reach / reach[..., -1:]
    return (u.unsqueeze(-1) >= reach).sum(-1).clamp(max=reach.shape[-1] - 1)
