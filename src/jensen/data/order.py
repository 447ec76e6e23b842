"""The examples that make up a batch, as a function of the seed and the step.

A run, its resumed copy and its twin on several ranks see the same batches in the same order:
nothing is advanced, so nothing has to be saved.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from jensen.base.errors import InputError
from jensen.base.random import fold, permutation


class Shuffled(Sampler[Tensor]):
    """This rank's share `(batch_size / world,)` of each global batch, epoch after epoch, in an
    order of its own each.

    position: the number of batches the run has already seen, asked whenever an epoch starts or is
        resumed.
    together: batches that make up an optimiser step.
    limit: the most batches of an epoch, asked then too. Fewer than there are make epochs that go
        through one order after another, each from where the one before has ended.
    The examples that do not fill a last step wait for another epoch.
    """

    def __init__(
        self,
        rows: Tensor,
        batch_size: int,
        seed: int,
        rank: int,
        world: int,
        position: Callable[[], int],
        together: int = 1,
        limit: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.position = position
        self.together = together
        self.limit = limit

    def __len__(self) -> int:
        return len(self.rows) // (self.batch_size * self.together) * self.together

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.rest(self.position()):
            yield batch[self.rank :: self.world]

    def rest(self, position: int) -> list[Tensor]:
        """The batches of all ranks, `(batch_size,)` each, from `position` to the end of its
        epoch.
        """
        most = int(min(len(self), self.limit()))
        # The last step of a limited epoch may be of fewer batches, and is a step all the same.
        steps = math.ceil(most / self.together)
        return self.batches(position, most - position % (steps * self.together))

    def batches(self, position: int, count: int) -> list[Tensor]:
        """So many batches of all ranks from `position` on, out of one order after another."""
        found: list[Tensor] = []
        while len(found) < count:
            number, start = divmod(position + len(found), len(self))
            order = self.rows[permutation(fold(self.seed, "epoch", number), len(self.rows))]
            found += order.split(self.batch_size)[start : len(self)]
        return found[:count]


class Chunked(Sampler[Tensor]):
    """The batches of an order, several in one: those up to the next multiple of `size` of them, or
    to the end of the epoch. Its length is the number of batches, which is what is counted.
    """

    def __init__(self, order: Shuffled, size: int) -> None:
        self.order = order
        self.size = size

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Tensor]:
        order = self.order
        position = order.position()
        batches = [each[order.rank :: order.world] for each in order.rest(position)]
        begin = 0
        while begin < len(batches):
            end = begin + self.size - (position + begin) % self.size
            yield torch.cat(batches[begin:end])
            begin = end


class Keyed(Sampler[tuple[int, Tensor]]):
    """The batches of an order, each with a key of its optimiser step, for what is drawn while its
    items are read.
    """

    def __init__(self, order: Shuffled) -> None:
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        for place, rows in enumerate(self.order, self.order.position()):
            yield fold(self.order.seed, "item", place // self.order.together), rows


class InTurn(Sampler[Tensor]):
    """This rank's share of each global batch of `rows`, every row once, none repeated to fill up.

    The batches differ by at most one row, and there are few enough of them that no rank's share is
    empty.

    Raises:
        InputError: fewer rows than ranks.
    """

    def __init__(self, rows: Tensor, batch_size: int, rank: int, world: int) -> None:
        if len(rows) < world:
            raise InputError(
                f"there are {len(rows)} examples to evaluate: expected at least one for each of"
                f" the {world} ranks"
            )
        self.batches = torch.tensor_split(
            rows, min(-(-len(rows) // batch_size), len(rows) // world)
        )
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.batches:
            yield batch[self.rank :: self.world]
