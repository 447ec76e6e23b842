"""The family of each column of the points."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_choice, check_count
from jensen.family.bernoulli_columns import BernoulliColumns
from jensen.family.categorical_column import CategoricalColumn
from jensen.family.column import Column
from jensen.family.columns import slices
from jensen.family.normal_columns import NormalColumns
from jensen.family.poisson_columns import PoissonColumns
from jensen.model.points import column_said

FAMILIES: tuple[type[Column], ...] = (
    NormalColumns,
    BernoulliColumns,
    PoissonColumns,
    CategoricalColumn,
)
"""Those that have a name, in the order in which components have their columns; others follow."""

Named = str | type[Column]

Families = Named | Mapping[Named, Sequence[int]]
"""One family for all columns, or the columns of each."""


def all_families(families: Families, own: Sequence[Any] = ()) -> tuple[type[Column], ...]:
    """The named ones, and those of one's own: classes among `families`, and `own`, classes or what
    Hydra makes of `_partial_: true`.

    Raises:
        InputError: one that is none, or two of one name.
    """
    given = families if isinstance(families, Mapping) else [families]
    mine = [getattr(each, "func", each) for each in (*given, *own) if not isinstance(each, str)]
    found = [*FAMILIES]
    for family in mine:
        if not (isinstance(family, type) and issubclass(family, Column)):
            raise InputError(
                f"families has {family!r}, which is no jensen.family.column.Column: expected a class"
                " that is; derive it from that"
            )
        same = next((other for other in found if other.name == family.name), family)
        if same is not family:
            raise InputError(
                f"families has {family.__qualname__} and {same.__qualname__}, both called"
                f" {family.name}: expected names that differ; give yours another"
            )
        if family not in found:
            found.append(family)
    return tuple(found)


def family_of(named: Named, every: Sequence[type[Column]]) -> type[Column]:
    """The family that is named, or given itself, of `every` one.

    Raises:
        InputError: there is none of that name.
    """
    if not isinstance(named, str):
        return named
    names = [family.name for family in every]
    check_choice("families", named, names)
    return every[names.index(named)]


def check_families(families: object, own: Sequence[Any] = ()) -> None:
    """Refuse what names no family, or a column twice."""
    if not isinstance(families, str | type | Mapping) or not families:
        names = ", ".join(family.name for family in FAMILIES)
        raise InputError(
            f"families is {families!r}: expected one of {names}, or the columns of each, such as"
            ' {"normal": [0, 1], "bernoulli": [2]}'
        )
    every = all_families(families, own)
    if not isinstance(families, Mapping):
        family_of(families, every)
        return
    owner: dict[int, str] = {}
    for named, columns in families.items():
        family = family_of(named, every).name
        if isinstance(columns, str) or not isinstance(columns, Sequence):
            raise InputError(
                f"families.{family} is {columns!r}: expected a list of columns, such as [0, 1]"
            )
        for column in columns:
            check_count(f"families.{family}", column, least=0)
            if column in owner:
                raise InputError(
                    f"families.{family} names column {column}, which families.{owner[column]} has:"
                    " expected each column once; remove it from one of them"
                )
            owner[column] = family


class Schema(NamedTuple):
    """The columns in the order of the components: normal, Bernoulli, Poisson, categorical, others.

    order: which of the points' columns each is. counts: how many there are of each of the `families`.
    sizes: the values that each column of a sized family may have; empty while they are not known.
    """

    order: tuple[int, ...]
    counts: tuple[int, ...]
    sizes: tuple[int, ...] = ()
    families: tuple[type[Column], ...] = FAMILIES

    @classmethod
    def of(cls, families: Families, dim: int, own: Sequence[Any] = ()) -> "Schema":
        """The schema of points with `dim` columns.

        Raises:
            InputError: a column that there is none of, or one that no family has.
        """
        every = all_families(families, own)
        if not isinstance(families, Mapping):
            families = {families: range(dim)}
        given = {family_of(named, every): [*columns] for named, columns in families.items()}
        columns = [given.get(family, []) for family in every]
        order = [column for group in columns for column in group]
        beyond = [column for column in order if column >= dim]
        if beyond:
            raise InputError(
                f"families names column {beyond[0]} and x has {dim} columns: expected 0..{dim - 1}"
            )
        if missing := sorted({*range(dim)} - {*order}):
            raise InputError(
                f"families leaves out column {missing[0]} of x: expected each of 0..{dim - 1} once;"
                " give it to one of them"
            )
        return cls(tuple(order), tuple(map(len, columns)), (), every)

    @property
    def is_plain(self) -> bool:
        """Tell whether the columns are in order as they come."""
        return self.order == tuple(range(len(self.order)))

    def ordered(self, x: Tensor) -> Tensor:
        """`x` `(..., D)` with its columns in order."""
        return x if self.is_plain else x[..., list(self.order)]

    def unordered(self, x: Tensor) -> Tensor:
        """The inverse of `ordered`."""
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return x if self.is_plain else x[..., back]

    @property
    def places(self) -> list[slice]:
        """The columns of each family, in order."""
        return slices(0, self.counts)

    @property
    def sized(self) -> int:
        """The number of columns that have a size."""
        return sum(
            count for family, count in zip(self.families, self.counts, strict=True) if family.sized
        )

    @property
    def sized_said(self) -> str:
        """The names of their families."""
        pairs = zip(self.families, self.counts, strict=True)
        return " and ".join(family.name for family, count in pairs if family.sized and count)

    def groups(self) -> "Iterator[Group]":
        """The groups that components have: a family's columns, and each column of a sized one."""
        sizes = iter(self.sizes or [0] * self.sized)
        for family, place in zip(self.families, self.places, strict=True):
            if not family.sized:
                yield Group(family, place, 0)
                continue
            for column in range(place.start, place.stop):
                yield Group(family, slice(column, column + 1), next(sizes))

    @property
    def continuous(self) -> Tensor:
        """Tell of each column in order whether its family is, `(D,)`."""
        each = [
            torch.full((count,), family.continuous)
            for family, count in zip(self.families, self.counts, strict=True)
        ]
        return torch.cat(each)

    def check(self, x: Tensor, before: int = 0, names: tuple[str, ...] | None = None) -> None:
        """Refuse values of ordered points `x` `(N, D)` that their family has not; `before` them came so
        many rows.
        """
        for group in self.groups():
            values = x[:, group.place]
            bad = ~(group.family.admits(values, group.size) | values.isnan())
            if bool(bad.any()):
                row, column = bad.nonzero()[0].tolist()
                value = float(values[row, column])
                expected, remedy = group.family.refusal(value, group.size)
                said = column_said(self.order[group.place.start + column], names)
                raise InputError(
                    f"row {before + row}, {said} of x holds {value:g} and its family is"
                    f" {group.family.name}: expected {expected}; {remedy}, or give that column to another"
                    " family"
                )

    def with_sizes(self, sizes: Any, found: Tensor) -> "Schema":
        """The schema with `sizes` as given, one for all or one each, or those `found` `(Dc,)`."""
        count = self.sized
        if sizes is None:
            return self._replace(sizes=tuple(max(2, int(size)) for size in found.tolist()))
        each = [sizes] * count if isinstance(sizes, int) else [*sizes]
        if len(each) != count:
            raise InputError(
                f"sizes has {len(each)} numbers and {count} columns are {self.sized_said}: expected one for"
                " each, or one for all"
            )
        return self._replace(sizes=tuple(each))


class Group(NamedTuple):
    """Columns of one family, or one column of a sized family, and their place in order."""

    family: type[Column]
    place: slice
    size: int


def check_sizes(sizes: object) -> None:
    """Refuse numbers of categories that are none."""
    if sizes is None:
        return
    for size in sizes if isinstance(sizes, Sequence) and not isinstance(sizes, str) else [sizes]:
        check_count("sizes", size, least=2)
