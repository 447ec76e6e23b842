"""The family of each column of the points."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_choice, check_count
from jensen.model.points import column_said

FAMILIES = ("normal", "bernoulli", "poisson", "categorical")
"""In the order in which components have their columns."""

_EXPECTED = {
    "bernoulli": ("0 or 1", "binarise it"),
    "poisson": ("a whole number of at least 0", "round it"),
    "categorical": ("a code of 0, 1, 2, ...", "encode it"),
}

Families = str | Mapping[str, Sequence[int]]
"""One family for all columns, or the columns of each."""


def check_families(families: object) -> None:
    """Refuse what names no family, or a column twice."""
    if isinstance(families, str):
        check_choice("families", families, FAMILIES)
        return
    if not isinstance(families, Mapping) or not families:
        raise InputError(
            f"families is {families!r}: expected one of {', '.join(FAMILIES)}, or the columns of each,"
            ' such as {"normal": [0, 1], "bernoulli": [2]}'
        )
    owner: dict[int, str] = {}
    for family, columns in families.items():
        check_choice("families", family, FAMILIES)
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
    """The columns in the order of the components: normal, Bernoulli, Poisson, categorical.

    order: which of the points' columns each is. counts: how many there are of each family.
    sizes: the categories of each categorical column.
    """

    order: tuple[int, ...]
    counts: tuple[int, int, int, int]
    sizes: tuple[int, ...] = ()

    @classmethod
    def of(cls, families: Families, dim: int) -> "Schema":
        """The schema of points with `dim` columns.

        Raises:
            InputError: a column that there is none of, or one that no family has.
        """
        if isinstance(families, str):
            families = {families: range(dim)}
        columns = [[*families.get(name, ())] for name in FAMILIES]
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
        first, second, third, fourth = map(len, columns)
        return cls(tuple(order), (first, second, third, fourth))

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

    def place(self, family: str) -> slice:
        """The columns of a family, in order."""
        number = FAMILIES.index(family)
        start = sum(self.counts[:number])
        return slice(start, start + self.counts[number])

    def check(self, x: Tensor, before: int = 0, names: tuple[str, ...] | None = None) -> None:
        """Refuse values of ordered points `x` `(N, D)` that their family has not; `before` them came so
        many rows.
        """
        for family in FAMILIES[1:]:
            place = self.place(family)
            values = x[:, place]
            if not values.shape[1]:
                continue
            good = (values >= 0) & (values == values.round())
            if family == "bernoulli":
                good = (values == 0) | (values == 1)
            elif family == "categorical" and self.sizes:
                good &= values < torch.tensor(self.sizes, device=x.device)
            bad = ~(good | values.isnan())
            if bool(bad.any()):
                row, column = bad.nonzero()[0].tolist()
                self._refuse(
                    family, place.start + column, before + row, float(values[row, column]), names
                )

    def _refuse(
        self, family: str, column: int, row: int, value: float, names: tuple[str, ...] | None
    ) -> None:
        expected, remedy = _EXPECTED[family]
        size = (
            self.sizes[column - self.place(family).start]
            if family == "categorical" and self.sizes
            else 0
        )
        if size and value == round(value) and value >= 0:
            expected, remedy = f"a code of 0..{size - 1}", f"set sizes to {int(value) + 1} or more"
        raise InputError(
            f"row {row}, {column_said(self.order[column], names)} of x holds {value:g} and its family"
            f" is {family}: expected {expected}; {remedy}, or give that column to another family"
        )

    def with_sizes(self, sizes: Any, found: Tensor) -> "Schema":
        """The schema with `sizes` as given, one for all or one each, or those `found` `(Dc,)`."""
        count = self.counts[3]
        if sizes is None:
            return self._replace(sizes=tuple(max(2, int(size)) for size in found.tolist()))
        each = [sizes] * count if isinstance(sizes, int) else [*sizes]
        if len(each) != count:
            raise InputError(
                f"sizes has {len(each)} numbers and {count} columns are categorical: expected one for"
                " each, or one for all"
            )
        return self._replace(sizes=tuple(each))


def check_sizes(sizes: object) -> None:
    """Refuse numbers of categories that are none."""
    if sizes is None:
        return
    for size in sizes if isinstance(sizes, Sequence) and not isinstance(sizes, str) else [sizes]:
        check_count("sizes", size, least=2)
