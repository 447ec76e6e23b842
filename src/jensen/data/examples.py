"""A data set: examples in their stored form, how to decode them, and the factors that generated
them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from jensen.base.device import sent

Decode = Callable[[Tensor], Tensor]
"""`(B, *stored)` to float `(B, *event)`, on the device of its argument."""


def pixels(stored: Tensor) -> Tensor:
    """uint8 grey levels 0..255 to float32 in [0, 1]."""
    return stored.float() / 255


def identity(stored: Tensor) -> Tensor:
    """Stored as it is used."""
    return stored


class Rows(NamedTuple):
    """Examples as a data set has them; `decode` makes the `x` of a `base.batch.Batch` of `stored`.

    stored: `(B, *stored)`. factors: `(B, F)` int64. row: `(B,)` int64, their places in the data
        set.
    """

    stored: Tensor
    factors: Tensor
    row: Tensor


@dataclass(frozen=True)
class Examples(Dataset[Rows]):
    """N examples with F factors.

    stored: `(N, *stored)`, compact (packed bits, bytes, floats), in memory, memory-mapped or on a
        device.
    decode: turns gathered rows into observations. It runs after the transfer, so compact rows cross
        the bus.
    factors: `(N, F)` integers, factor f in range(sizes[f]).
    names: of the factors.
    sizes: number of values of each factor.
    bytewise: whether `stored` is uint8 of which `decode` takes each byte by itself, whatever the
        others are.
    note: what a person should know of how they were read; empty if nothing.
    whole: whether all of them are looked at before training; so it is with what is stored.
    """

    stored: Tensor
    decode: Decode
    factors: Tensor = field(default_factory=lambda: torch.empty(0))
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    bytewise: bool = False
    note: str = ""
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.names:
            none = self.stored.new_empty(len(self.stored), 0, dtype=torch.uint8)
            object.__setattr__(self, "factors", none)

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: Tensor) -> Rows:
        """The rows `index` `(B,)`, gathered in one call."""
        local = sent(index, self.stored.device)
        # Of bytes it copies whole rows, where indexing takes one after another: 18 times as long.
        return Rows(self.stored.index_select(0, local), self.factors[local].long(), local)

    def first(self) -> Rows:
        """The first row, for its shape."""
        return self[torch.zeros(1, dtype=torch.long)]

    @property
    def device(self) -> torch.device:
        return self.stored.device

    def to(self, device: torch.device | str) -> "Examples":
        """The same examples with all rows on `device`."""
        return replace(self, stored=self.stored.to(device), factors=self.factors.to(device))
