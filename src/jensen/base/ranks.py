"""Rows that are spread over the ranks of a distributed run; in a single process, all of them."""

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather as all_gather_with_gradient


def world() -> tuple[int, int]:
    """This rank and the number of ranks."""
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
    parts: list[Tensor] = list(all_gather_with_gradient(rows.contiguous()))  # type: ignore[no-untyped-call]
    return torch.cat(parts)
