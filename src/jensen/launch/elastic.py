"""Ranks that torchrun starts again after one of them died, on one machine or on several."""

import os
import time
from uuid import uuid4

from lightning_fabric.plugins.environments import TorchElasticEnvironment
from torch import distributed


def join() -> None:
    """Joins the other ranks of a restart, before Lightning does.

    torchrun's agents keep the store by which ranks find one another, with the addresses of those
    that died (seen with torch 2.15): in a restart the same keys would lead there, so it gets keys
    of its own.
    """
    if (
        not TorchElasticEnvironment.detect()
        or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    ):
        return
    store, rank, world = next(distributed.rendezvous("env://"))
    attempt = count_attempt(store, rank, world)
    if attempt > 1:
        distributed.init_process_group(
            store=distributed.PrefixStore(f"attempt {attempt}", store), rank=rank, world_size=world
        )


def count_attempt(store: distributed.Store, rank: int, world: int) -> int:
    """The number of this start of the ranks, from 1; the same on all of them.

    Each agent counts only the restarts that its own ranks caused, so rank 0 counts here, and
    answers every rank by a name that no rank has had before, until all have heard it: what dead
    ranks have left in the store leads nowhere.
    """
    if rank:
        name = uuid4().hex
        store.set(f"jensen/rank/{rank}", name)
        answer: str = store.get(f"jensen/attempt of/{name}").decode()
        store.set(f"jensen/joined/{answer}/{rank}", "")
        return int(answer)
    attempt: int = store.add("jensen/attempts", 1)
    missing = set(range(1, world))
    while missing:
        for other in sorted(missing):
            if store.check([f"jensen/rank/{other}"]):
                store.set(
                    f"jensen/attempt of/{store.get(f'jensen/rank/{other}').decode()}", str(attempt)
                )
            if store.check([f"jensen/joined/{attempt}/{other}"]):
                missing.remove(other)
        time.sleep(0.02)
    return attempt
