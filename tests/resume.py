"""What a run leaves, for comparing a run that was killed with one that was not."""

import struct
from pathlib import Path
from typing import Any

import torch
from tensorboard.compat.proto.event_pb2 import Event


def records(folder: Path) -> list[tuple[str, int, bytes]]:
    """Tag, step and value of every record of the event files that training wrote, sorted,
    duplicates and all.

    Read by the format, 8 bytes of length, 4 of checksum, the event, 4 of checksum: TensorBoard's
    own readers hide duplicates. Layouts, which every process writes once, are left out.
    """
    found = []
    for file in sorted(folder.glob("events.out.tfevents.*.train")):
        content = file.read_bytes()
        start = 0
        while start < len(content):
            (length,) = struct.unpack_from("<Q", content, start)
            event = Event.FromString(content[start + 12 : start + 12 + length])
            start += 16 + length
            found += [
                (value.tag, event.step, value.SerializeToString()) for value in event.summary.value
            ]
        assert start == len(content), f"{file} ends amid a record"
    return sorted(each for each in found if not each[0].startswith(("custom_scalars", "_hparams_")))


def equal(one: Any, other: Any) -> bool:
    """Bit for bit, tensors and all."""
    if isinstance(one, torch.Tensor):
        same = (
            isinstance(other, torch.Tensor)
            and one.dtype == other.dtype
            and one.shape == other.shape
        )
        return same and one.numpy(force=True).tobytes() == other.numpy(force=True).tobytes()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


TRAINED = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "global_step", "epoch")


def differences(whole: Path, killed: Path) -> list[str]:
    """Names of what differs between two runs: of what is trained in `last.ckpt` and `best.ckpt`,
    and of what is logged.
    """
    found = []
    for name in ("last", "best"):
        one, other = (
            torch.load(run / "checkpoints" / f"{name}.ckpt", map_location="cpu", weights_only=True)
            for run in (whole, killed)
        )
        found += [f"{name}.ckpt: {key}" for key in TRAINED if not equal(one[key], other[key])]
    one = records(whole)
    other = records(killed)
    found += [f"missing {tag} at {step}" for tag, step, _ in set(one) - set(other)]
    found += [f"extra {tag} at {step}" for tag, step, _ in set(other) - set(one)]
    if len(one) != len(other) and not found:
        found.append("a record is there twice")
    return found
