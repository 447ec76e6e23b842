"""A check of every value that a data set has, without decoding what cannot differ."""

from collections.abc import Callable

import torch
from torch import Tensor

from jensen.base.batch import Batch
from jensen.base.errors import InputError
from jensen.data.examples import Examples

Check = Callable[[Tensor], None]
"""Refuses observations `(B, *event)` with an `InputError`."""
Observe = Callable[[Batch], Tensor]
"""Stored examples to observations `(B, *event)`."""

_BYTES = 256
_CHUNK = 1 << 22
"""Numbers that are looked at in one go."""


def check_all(examples: Examples, observe: Observe, check: Check, split: str) -> None:
    """Check the observations of all examples of a split, chunk by chunk.

    Raises:
        InputError: `check` refuses some of them; it names the first.
    """
    size = max(1, _CHUNK // max(1, observe(examples[torch.zeros(1, dtype=torch.long)]).numel()))
    for rows in torch.arange(len(examples)).split(size):
        _check_rows(rows, examples, observe, check, split)


def check_bytes(examples: Examples, observe: Observe, check: Check, split: str) -> None:
    """Check the observations of all examples of a split whose stored bytes become numbers one by one.

    Mostly all 256 bytes would pass, and then nothing is read. Else those that are there are checked, in as few examples.

    Raises:
        InputError: `check` refuses some of them; it names the first.
    """
    try:
        check(observe(_all_bytes(examples)))
    except InputError:
        _check_rows(_telling_rows(examples.stored), examples, observe, check, split)


def _check_rows(rows: Tensor, examples: Examples, observe: Observe, check: Check, split: str) -> None:
    try:
        check(observe(examples[rows]))
    except InputError as error:
        if len(rows) == 1:
            raise InputError(f"{error} (example {rows.item()} of the {split} split, counted from 0)") from error
        for half in rows.tensor_split(2):
            _check_rows(half, examples, observe, check, split)
        raise


def _all_bytes(examples: Examples) -> Batch:
    """A few made-up examples that hold every byte."""
    stored = examples.stored
    count = -(-_BYTES // stored[0].numel())
    values = torch.arange(count * stored[0].numel(), device=stored.device) % _BYTES
    return Batch(
        x=values.to(torch.uint8).reshape(count, *stored.shape[1:]),
        factors=torch.empty(count, 0, dtype=torch.long),
        row=torch.arange(count, device=stored.device),
    )


def _telling_rows(stored: Tensor) -> Tensor:
    """The first row of each byte that is anywhere in `stored` `(N, *stored)`, uint8: `(n,)`, n <= 256, sorted."""
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
