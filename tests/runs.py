"""Short whole runs, and what they left in their folders."""

import subprocess
from pathlib import Path

import shell
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import TINY

TRAINER = (
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=5",
    "trainer.max_steps=30",
    "trainer.val_check_interval=12",
)
ILLUSTRATED = (*TINY, *TRAINER)
"""With the diagnostics of `conf/train.yaml`, whose pictures are most of such a run's work."""

QUICK = (*ILLUSTRATED, "diagnostics=[decomposition]")


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(
        str(folder), size_guidance={"scalars": 0, "images": 0, "histograms": 0}
    )
    accumulator.Reload()
    return accumulator


def scalar(folder: Path, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in events(folder).Scalars(tag)}


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def command(*overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`python -m jensen.train`, as a user would run it."""
    return shell.run(
        "jensen.train", *overrides, cwd=cwd, env={"PYTHONWARNINGS": "error::ResourceWarning"}
    )
