"""Batches of an `IterableDataset`, which one process reads from its beginning to its end."""

import logging

import torch
from torch.utils.data import DataLoader

from jensen.base.errors import InputError
from jensen.data.examples import Rows
from jensen.data.torch_dataset import Loader, Stream


def loader(
    stream: Stream, batch_size: int, workers: int, world: int, step: int, together: int
) -> DataLoader[Rows]:
    """A stream's batches.

    Args:
        world: the number of ranks.
        step: the optimiser step that comes next.
        together: batches that make up one.

    Raises:
        InputError: several processes would read it.
    """
    for key, found in (("data.workers", workers), ("the number of ranks", world)):
        if found > 1:
            raise InputError(
                f"{key} is {found} and the train split is {stream.name}, a stream, which is"
                " read by one process: expected 1; make it a map-style Dataset to have several"
            )
    if step:
        logging.getLogger(__name__).info(
            f"{stream.name} is a stream: from step {step} on it is read from its beginning, so"
            " this run is no longer the one that it would have been without a stop"
        )
    stream.batch_size = batch_size
    stream.together = together
    return Loader(
        stream, batch_size=None, num_workers=workers, pin_memory=torch.cuda.is_available()
    )
