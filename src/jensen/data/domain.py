"""A check of every value that a data set has, without decoding what cannot differ."""

from collections.abc import Callable

import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.base.tree import tree_map
from jensen.data.examples import Examples, Rows

Check = Callable[[Tensor], None]
"""Refuses observations `(B, *event)` with an `InputError`."""
Observe = Callable[[Rows], Tensor]
"""Stored examples to observations `(B, *event)`."""

_BYTES = 256
_CHUNK = 1 << 22
"""Numbers that are looked at in one go."""


def chunks(size: int, numbers: int) -> tuple[Tensor, ...]:
    """All `size` rows of as many `numbers` each, in parts to look at in one go."""
    return torch.arange(size).split(max(1, _CHUNK // max(1, numbers)))


def check_rows(rows: Rows, observe: Observe, check: Check, split: str) -> None:
    """Check the observations of some examples of a split.

    Raises:
        InputError: `check` refuses some of them; it names the first.
    """
    try:
        check(observe(rows))
    except InputError as error:
        if len(rows.row) == 1:
            raise InputError(
                f"{error} (example {rows.row.item()} of the {split} split, counted from 0)"
            ) from error
        for half in range(2):
            check_rows(
                tree_map(lambda part, half=half: part.tensor_split(2)[half], rows),
                observe,
                check,
                split,
            )
        raise


def check_bytes(examples: Examples, observe: Observe, check: Check, split: str) -> None:
    """Check the observations of all examples of a split whose stored bytes become numbers one by
    one.

    Mostly all 256 bytes would pass, and then nothing is read. Else those that are there are
    checked, in as few examples.

    Raises:
        InputError: `check` refuses some of them; it names the first.
    """
    try:
        check(observe(_all_bytes(examples)))
    except InputError:
        check_rows(examples[_telling_rows(examples.stored)], observe, check, split)


def _all_bytes(examples: Examples) -> Rows:
    """A few made-up examples that hold every byte."""
    stored = examples.stored
    count = -(-_BYTES // stored[0].numel())
    values = torch.arange(count * stored[0].numel(), device=stored.device) % _BYTES
    return Rows(
        stored=values.to(torch.uint8).reshape(count, *stored.shape[1:]),
        factors=torch.empty(count, 0, dtype=torch.long),
        row=torch.arange(count, device=stored.device),
    )


def _telling_rows(stored: Tensor) -> Tensor:
    """The first row of each byte that is anywhere in `stored` `(N, *stored)`, uint8: `(n,)`, n <=
    256, sorted.
    """
    flat = stored.flatten(1)
    size = max(1, _CHUNK // flat.shape[1])
    seen = torch.zeros(_BYTES, dtype=torch.bool)
    found: set[int] = set()
    for chunk, part in enumerate(flat.split(size)):
        present = torch.bincount(part.flatten(), minlength=_BYTES).cpu() > 0
        for value in (present & ~seen).nonzero()[:, 0].tolist():
            found.add(chunk * size + int((part == value).any(1).nonzero()[0, 0]))
        seen |= present
        if bool(seen.all()):
            break
    return torch.tensor(sorted(found))
