"""State that is global to a process, and that each of several jobs in it wants as its own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig

from jensen.algorithm.streams import Streams


@dataclass
class Scene:
    """Hydra's configuration of the job, where its log goes, and what it draws next of generators that
    all draw from.
    """

    hydra: Any
    handlers: list[logging.Handler]
    level: int
    streams: Streams

    def set(self) -> None:
        self.streams.put_back()
        HydraConfig.instance().cfg = self.hydra
        logging.root.handlers[:] = self.handlers
        if logging.root.level != self.level:  # which clears what each logger has remembered
            logging.root.setLevel(self.level)


def now() -> Scene:
    device = torch.device("cuda" if torch.cuda.is_initialized() else "cpu")
    return Scene(
        HydraConfig.instance().cfg,
        [*logging.root.handlers],
        logging.root.level,
        Streams(device),
    )


def close_logs() -> None:
    """Close the files of the log as it now is."""
    for handler in logging.root.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()


@contextmanager
def torch_at_rest() -> Iterator[None]:
    """Put back what Lightning has set around a training step, for others to set theirs: autocast, the
    default dtype, and whether gradients are recorded.

    Contexts that overlap, as those of two coroutines do, would put back what they found, which is
    the other's.
    """
    dtype = torch.get_default_dtype()
    recording = torch.is_grad_enabled()
    cast = [device for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)]
    for device in cast:
        torch.set_autocast_enabled(device, False)
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(recording)
        for device in cast:
            torch.autocast_increment_nesting()
            torch.set_autocast_enabled(device, True)
