"""Several ranks of one run, as SLURM or torchrun would start them, forked from a process that has
imported everything.
"""

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from composing import composed, read_once
from nursery import SERVER


def together(
    world: int, function: Callable[..., None], *arguments: Any, timeout: float = 240
) -> None:
    """`function(rank, *arguments)` on as many ranks as `world`, each of which must end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        SERVER.Process(target=_live, args=(rank, port, function, arguments))
        for rank in range(world)
    ]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join(timeout)
        each.kill()
        each.join()
    assert [each.exitcode for each in ranks] == [0] * world


def _live(rank: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    import torch
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    from jensen.diagnostics import picture

    torch.set_num_threads(1)
    # Ranks are compared by their numbers; a chart takes half of a small run.
    picture.pixels = lambda figure: torch.zeros(3, 8, 8, dtype=torch.uint8)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
    }
    rank_zero_only.rank = rank  # what Lightning reads at its import, which was before
    function(rank, *arguments)


def fit(rank: int, runs: Sequence[tuple[Path, Sequence[str]]]) -> None:
    """Trains runs, a folder and its overrides each, one after the other."""
    from jensen.launch.training import train

    read_once()
    for folder, overrides in runs:
        train(composed(*overrides), folder)
