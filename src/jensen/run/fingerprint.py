"""The data of a run as they were."""

import hashlib

import torch

from jensen.data.examples import Examples
from jensen.data.module import DataModule


def fingerprint(data: DataModule) -> str:
    """SHA-256 of all examples and factors as they are stored, a second for 377 MB: a file that was
    changed makes other data.

    Behind it stand the names of those splits that were not read.
    """
    digest = hashlib.sha256()
    unread = ""
    for split in data.source.splits:
        examples = data.examples(split)
        digest.update(repr((split, examples.names, examples.sizes)).encode())
        if isinstance(examples, Examples):
            for tensor in (examples.stored, examples.factors):
                digest.update(repr((tensor.dtype, tensor.shape)).encode())
                digest.update(_bytes(tensor))
        elif examples.whole:
            parts = hashlib.sha256(), hashlib.sha256()
            for rows in data.source.read(split, data.workers):
                for part, tensor in zip(parts, rows, strict=False):
                    part.update(_bytes(tensor))
            digest.update(repr((examples.layout, [part.hexdigest() for part in parts])).encode())
        else:
            unread += f", {split} unhashed: {examples.name}"
    return digest.hexdigest() + unread


def _bytes(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
