"""Ranks that torchrun starts again after one of them died."""

import os

from lightning_fabric.plugins.environments import TorchElasticEnvironment
from torch import distributed


def join() -> None:
    """Joins the other ranks of a restart, before Lightning does.

    torchrun keeps the store by which ranks find one another, with the addresses of those that died (seen with torch 2.15): in
    a restart the same keys would lead there, so it gets keys of its own. Where torchrun runs on several machines it counts
    restarts on each, and nothing is done.
    """
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restart == "0" or not TorchElasticEnvironment.detect() or os.environ["GROUP_WORLD_SIZE"] != "1":
        return
    store, rank, world = next(distributed.rendezvous("env://"))
    distributed.init_process_group(store=distributed.PrefixStore(f"restart {restart}", store), rank=rank, world_size=world)
