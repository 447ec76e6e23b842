"""Two ranks on the one device, which talk by gloo: their losses are those of one rank."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import alone  # noqa: F401

STEPS = 60
RUN = (
    "data=sprites",
    "data.size=4096",
    "data.validation=256",
    "data.batch_size=64",
    "diagnostics=[]",
    "trainer.log_every_n_steps=5",
    f"trainer.max_steps={STEPS}",
    f"trainer.val_check_interval={STEPS}",
)
_GLOO = "{_target_:pytorch_lightning.strategies.DDPStrategy,process_group_backend:gloo}"
TOGETHER = ("trainer.devices=1", "trainer.num_nodes=2", f"trainer.strategy={_GLOO}")


def main(report: Callable[..., None], device: str, tiny: bool) -> None:
    accelerator = f"trainer.accelerator={'cpu' if device == 'cpu' else 'gpu'}"
    model = ["model=mlp", "model.encoder.hidden=[32]"] if tiny else []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        losses: dict[str, dict[int, float]] = {}
        for name, ranks, more in (("one", 1, ()), ("two", 2, TOGETHER)):
            begin = time.perf_counter()
            failed = _train(folder / name, ranks, [*RUN, accelerator, *model, *more])
            if failed:
                report(name=f"{name} rank{'s' * (ranks - 1)}", fails=failed[-1500:])
                return
            losses[name] = _losses(folder / name)
            report(
                name=f"{name} rank{'s' * (ranks - 1)}",
                logged=len(losses[name]),
                took=round(time.perf_counter() - begin, 1),
            )
        both = losses["one"].keys() & losses["two"].keys()
        gaps = [abs(losses["two"][s] / losses["one"][s] - 1) for s in both]
        equal = len(both) == len(losses["one"]) and max(gaps) < 1e-4
        report(
            name="losses of two and of one",
            steps=len(both),
            largest_relative_gap=max(gaps, default=None),
            equal=equal,
        )


def _train(folder: Path, ranks: int, overrides: list[str]) -> str:
    """Train as so many ranks, a node with one device each; what one said that failed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jensen.train", f"hydra.run.dir={folder}", *overrides]
    started = []
    for rank in range(ranks):
        own = os.environ | {
            "JENSEN_CACHE": str(folder.parent / "cache"),
            # Convolutions of half a minibatch round elsewhere: by TF32 losses part by 5e-4.
            "NVIDIA_TF32_OVERRIDE": "0",
        }
        if ranks > 1:
            own |= _node(rank, ranks, port)
        started.append(
            subprocess.Popen(
                command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    said = [process.communicate()[0] for process in started]
    codes: list[Any] = [process.returncode for process in started]
    return next((words for code, words in zip(codes, said, strict=True) if code), "")


def _node(rank: int, ranks: int, port: int) -> dict[str, str]:
    """The environment of a rank alone on its node, as torchrun sets it."""
    numbers = {
        "RANK": rank,
        "GROUP_RANK": rank,
        "LOCAL_RANK": 0,
        "WORLD_SIZE": ranks,
        "LOCAL_WORLD_SIZE": 1,
        "MASTER_PORT": port,
        "TORCHELASTIC_RESTART_COUNT": 0,
        "TORCHELASTIC_MAX_RESTARTS": 0,
    }
    words = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "bench"}
    return words | {name: str(value) for name, value in numbers.items()}


def _losses(folder: Path) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {event.step: event.value for event in events.Scalars("train/loss")}
