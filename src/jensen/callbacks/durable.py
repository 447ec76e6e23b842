"""Checkpoints that are whole or not there, also after a crash of the machine, and how a torn one is
told.

Lightning writes to a file in the system's temporary folder and moves it, which is a copy where that
is another file system, and asks for no flush to the disk: a crash may leave half a file under the
final name.
"""

import zipfile
from copy import copy
from operator import is_
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from torch import Tensor

from jensen.base.errors import InputError
from jensen.base.files import write


class Durable(TorchCheckpointIO):
    """Writes beside the target, flushes to the disk, and then takes the target's place, in one step
    of the file system.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        write(Path(path), lambda file: torch.save(compact(checkpoint), file))


def compact(value: Any) -> Any:
    """A tree of a checkpoint without tensors that are parts of larger ones, which would be written
    whole: those of a model in a stack.
    """
    if isinstance(value, Tensor):
        own = value.numel() * value.element_size()
        return value.clone() if value.untyped_storage().nbytes() > own else value
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        parts = [compact(part) for part in value]
        return value if all(map(is_, parts, value)) else type(value)(parts)
    if not isinstance(value, dict):
        return value
    changed = {key: part for key, each in value.items() if (part := compact(each)) is not each}
    if not changed:
        return value
    whole = copy(value)
    whole.update(changed)
    return whole


def read(path: Path) -> dict[str, Any]:
    """A checkpoint on the CPU; tensors and plain values only.

    A checkpoint is a zip archive with a CRC-32 of each part. torch looks at none of them, so a
    flipped bit would pass as a
    weight: they are checked here.

    Raises:
        InputError: the file is cut short, changed, or holds anything else, or NaN, which training
            never saves.
    """
    try:
        if not path.is_file():
            raise zipfile.BadZipFile("it is no file")
        with zipfile.ZipFile(path) as archive:
            # What torch.save wrote takes no more room in memory than on the disk; an archive of a
            # stranger's may.
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                raise zipfile.BadZipFile("it is compressed")
            if (part := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"the checksum of {part} is wrong")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        int(saved["global_step"])
        if broken := [name for name, value in saved["state_dict"].items() if holds_nan(value)]:
            raise zipfile.BadZipFile(f"{broken[0]} holds NaN")
    except Exception as error:  # a torn archive may fail anywhere in it
        found = str(error) if isinstance(error, zipfile.BadZipFile) else type(error).__name__
        raise InputError(
            f"{path} cannot be read ({found}): expected a whole checkpoint; restore that file"
        ) from error
    return dict(saved)


def holds_nan(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and bool(value.isnan().any())
