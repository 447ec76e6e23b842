"""Rows that are spread over the ranks of a distributed run; in a single process, all of them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, distributed


class _Thread(threading.local):
    """Whether this thread works for its process alone; no ContextVar, which torch.compile cannot follow
    in torch 2.11.
    """

    alone = False


_thread = _Thread()


@contextmanager
def alone() -> Iterator[None]:
    """Have what is done within be this process's own, though it be a rank: of a training that has ended
    the ranks stay. Another thread, one that is begun within too, goes on with the ranks.
    """
    before = _thread.alone
    _thread.alone = True
    try:
        yield
    finally:
        _thread.alone = before


def world() -> tuple[int, int]:
    """This rank and the number of ranks."""
    return (0, 1) if _thread.alone else processes()


def processes() -> tuple[int, int]:
    """The rank of this process and the number of all that a training has begun, `alone` or not."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def gather_rows(rows: Tensor) -> Tensor:
    """`(n_rank, ...)` on each rank to `(sum of n_rank, ...)` on all, rank after rank. No
    gradient.
    """
    if world()[1] == 1:
        return rows
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world()[1])]
    distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    sizes = [int(count) for count in counts]
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def gather_batch(rows: Tensor) -> Tensor:
    """The ranks' equal shares `(B / world, ...)` of a minibatch as the whole `(B, ...)`, rank after
    rank, with gradient.

    The gradient of every rank's use of a row reaches the rank that owns it, summed.
    """
    if world()[1] == 1:
        return rows
    found: Tensor = _Gathered.apply(rows.contiguous())  # type: ignore[no-untyped-call]
    return found


def said_by_any_rank(word: str) -> str:
    """The words of the first rank that says anything; empty if none does. All ranks have to ask."""
    if world()[1] == 1:
        return word
    words = [""] * world()[1]
    distributed.all_gather_object(words, word)
    return next(filter(None, words), "")


class Agreement:
    """A number that all ranks come to, on the host: to agree waits for no device. Made on all ranks at
    once.
    """

    def __init__(self) -> None:
        self._group: distributed.ProcessGroup | None = None
        if world()[1] > 1:
            self._group = cast(distributed.ProcessGroup, distributed.new_group(backend="gloo"))

    def most(self, number: int) -> int:
        """The largest of the ranks' numbers. All of them have to ask."""
        if self._group is None:
            return number
        found = torch.tensor(number)
        distributed.all_reduce(found, distributed.ReduceOp.MAX, group=self._group)
        return int(found)


class _Gathered(torch.autograd.Function):
    """Not `torch.distributed.nn.functional.all_gather`, of which torch.compile can make no kernel."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world()[1])]
        distributed.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        rank, ranks = world()
        summed = slope.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed)
        return summed.chunk(ranks)[rank]
