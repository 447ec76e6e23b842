"""Rows from all ranks, where each rank may hold another number of them."""

import torch
from torch import Tensor, distributed


def gather_rows(rows: Tensor) -> Tensor:
    """`(n_rank, ...)` on each rank to `(sum of n_rank, ...)` on all, rank after rank; `rows` itself in a single process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    world = distributed.get_world_size()
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world)]
    distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    sizes = [int(count) for count in counts]
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(world)]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
