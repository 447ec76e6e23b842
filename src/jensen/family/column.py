"""Columns of one family, for each component of a mixture: what a row may have several groups of."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, NamedTuple, Self, cast

import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.family.moments import PseudoCounts

CERTAIN = 1e-12
"""A probability is never closer to 0 or 1 than this, nor a rate to 0, so that its logarithm is
finite.
"""


class Natural(NamedTuple):
    """log p(x) of each column is constant + linear x, and `more` . statistics(x) of all together.

    constant, linear: `(..., K, W)`. more: `(..., K, S)`.
    """

    constant: Tensor
    linear: Tensor
    more: Tensor


class Sums(NamedTuple):
    """Expected sufficient statistics under responsibilities r, float64.

    first: `(..., K, W)`, sum r x. more: `(..., K, S)`, sum r statistics(x). seen: `(..., K, W)`, sum r
        over points whose x is there.
    """

    first: Tensor
    more: Tensor
    seen: Tensor


class ColumnKind(ABC):
    """A family of columns before there are parameters: the values that it takes, and how it starts.

    name: what `families` calls it.
    parameters: what a checkpoint calls its tensors, each unlike those of other families.
    continuous: sums are about the columns' means rather than 0, and no column may be constant.
    sized: each column has a number of values of its own, and so is W = 1 column by itself, with
        tensors `(..., K, size)`.
    expected, remedy: in the sentence that refuses a value.
    """

    name: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]]
    continuous: ClassVar[bool] = False
    sized: ClassVar[bool] = False
    expected: ClassVar[str]
    remedy: ClassVar[str] = "mend it"

    @classmethod
    @abstractmethod
    def alike(cls, shape: tuple[int, ...], like: Tensor) -> Self:
        """Columns that are the same for all components, of tensors with this shape, in dtype and
        device as `like`.
        """

    @classmethod
    @abstractmethod
    def at(cls, mean: Tensor, variance: Tensor) -> Self:
        """Columns with means `(K, W)` and, where that says not all, the variance `(W,)`.

        Raises:
            InputError: a mean that no component can leave.
        """

    @classmethod
    @abstractmethod
    def admits(cls, x: Tensor, size: int) -> Tensor:
        """Tell of each value `(N, W)` whether it is one of the family's; size: of a sized column, 0
        where it is not known yet.
        """

    @classmethod
    @abstractmethod
    def scaled(cls, x: Tensor, mean: Tensor, variance: Tensor, size: int) -> Tensor:
        """Coordinates `(N, F)` of values `(N, W)` in which a deviation is about one unit."""

    @classmethod
    def refusal(cls, value: float, size: int) -> tuple[str, str]:
        """The expectation and the remedy for a `value` that is not admitted."""
        return cls.expected, cls.remedy


class Column(ColumnKind):
    """W independent columns of one exponential family, of K components; the other parent is a
    NamedTuple of tensors `(..., K, W)`.

    A family of one's own says what is abstract here and in `ColumnKind`, and `jensen.MixtureModel` is
    given its class; `BernoulliColumns` is a short one.
    """

    # ---- what a family says ---------------------------------------------------------------------

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """`(..., K, W)`."""

    @abstractmethod
    def natural(self) -> Natural: ...

    @abstractmethod
    def maximise(self, sums: Sums, prior: PseudoCounts) -> Self:
        """The closed-form maximum; a column stays as it is where nothing was seen. `prior` has the
        variance, floor and mean of these columns.
        """

    @abstractmethod
    def log_prior(self, prior: PseudoCounts) -> Tensor:
        """log density under `prior`, `(...)`, up to a constant."""

    @abstractmethod
    def draw(self, component: Tensor, key: int, index: Tensor) -> Tensor:
        """`(N, W)` draws, each of one `component` `(N,)`, by the random numbers of `key` and `index`
        `(N,)`.
        """

    # ---- what most families have alike ----------------------------------------------------------

    @property
    def width(self) -> int:
        """W."""
        return self.tensors()[0].shape[-1]

    @property
    def more(self) -> int:
        """S, the number of `statistics` beside the values."""
        return 0

    @property
    def degrees(self) -> int:
        """The number of free parameters of a component."""
        return sum(part.shape[-1] for part in self.tensors())

    def tensors(self) -> tuple[Tensor, ...]:
        """Its tensors, one for each of `parameters`."""
        return tuple(cast(Iterable[Tensor], self))

    def shifted(self, offset: Tensor) -> Self:
        """The columns of points moved by `offset`, `(W,)` or `(..., K or 1, W)`, which are continuous."""
        return self

    def statistics(self, x: Tensor, out: Tensor) -> None:
        """Fill `out` `(..., S, N)`, what `Natural.more` is of, from values `(..., W, N)`; where one is
        missing it is NaN. By torch's `out=` only where `out` requires no gradient.
        """
        assert out.shape[-2] == 0, f"{type(self).__name__} has `more`, and no statistics"

    def log_base(self, x: Tensor) -> Tensor | None:
        """The part of log p(x) that no parameter enters, `(..., N)` of values `(..., W, N)`, 0 where
        one is missing; None where there is none.
        """
        return None

    def free(self, about: Self) -> Tensor:
        """Coordinates without constraints, zero at `about`, `(..., F)`."""
        pairs = zip(self.tensors(), about.tensors(), strict=True)
        return torch.cat([(ours - theirs).flatten(-2) for ours, theirs in pairs], -1)

    def of_free(self, free: Tensor) -> Self:
        """The columns whose coordinates about these are `free`."""
        mine = self.tensors()
        moves = torch.split(free, [part.shape[-2:].numel() for part in mine], -1)
        pairs = zip(mine, moves, strict=True)
        return type(self)(*(part + move.reshape(part.shape) for part, move in pairs))


def kept(new: Tensor, seen: Tensor, old: Tensor) -> Tensor:
    """`new`, but `old` where nothing was seen."""
    return torch.where(seen > 0, new, old.double()).to(old.dtype)


def none(like: Tensor) -> Tensor:
    """The `more` of a family that has no other statistics, `(..., K, 0)`."""
    return like[..., :0]


def refuse_means(bad: Tensor, expected: str) -> None:
    """Refuse means to start from that no component could leave."""
    if bool(bad.any()):
        raise InputError(f"init holds a mean that no component can leave: expected {expected}")
