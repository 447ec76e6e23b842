"""A stack of models as one program: model-steps a second, from the events of its members."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import alone  # noqa: F401
from loops import KINDS

CASES = (
    ("conv", 16, "grouped"),
    ("mlp", 16, "grouped"),
    ("conv", 16, "branches"),
    ("conv", 25, "grouped"),
)
"""The model, how many members, and what becomes of their convolutions."""

STEPS = 1000


COMPILED = (("mlp", 16, "grouped"),)


def main(report: Callable[..., None], device: str, tiny: bool, compiled: bool = False) -> None:
    from jensen.run.conf import conf_folder

    if not (conf_folder() / "hydra" / "launcher" / "stacked.yaml").exists():
        report(name="stacked", absent="this version has no hydra/launcher=stacked")
        return
    cases = COMPILED if compiled else CASES
    for model, members, convolutions in cases[:1] if tiny else cases:
        _measure(report, device, tiny, model, 3 if tiny else members, convolutions, compiled)


def _measure(
    report: Callable[..., None],
    device: str,
    tiny: bool,
    model: str,
    members: int,
    convolutions: str,
    compiled: bool,
) -> None:
    steps = 100 if tiny else STEPS
    overrides = [word for word in KINDS[model].overrides if not word.startswith("data")]
    betas = ",".join(str(1 + each / 4) for each in range(members))
    words = [
        "hydra/launcher=stacked",
        f"hydra.launcher.convolutions={convolutions}",
        f"algorithm.compile={str(compiled).lower()}",
        "data=sprites",
        f"data.size={1000 if tiny else 65_536}",
        f"data.batch_size={KINDS[model].batch}",
        "diagnostics=[]",
        "+trainer.limit_val_batches=0",
        f"trainer.max_steps={steps}",
        f"trainer.accelerator={'cpu' if device == 'cpu' else 'gpu'}",
        f"objective.beta={betas}",
        *overrides,
    ]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "sweep"
        own = os.environ | {"JENSEN_CACHE": str(Path(made) / "cache")}
        command = [sys.executable, "-m", "jensen.train", "-m", f"hydra.sweep.dir={folder}", *words]
        begin = time.perf_counter()
        done = subprocess.run(command, env=own, capture_output=True, text=True)
        took = time.perf_counter() - begin
        name = f"{model} 64 x 64, {members} members, {'compiled' if compiled else convolutions}"
        if done.returncode:
            report(name=name, fails=(done.stdout + done.stderr)[-1500:])
            return
        rates = [_rate(each.parent) for each in sorted(folder.glob("*/finished.json"))]
        report(
            name=name,
            finished=len(rates),
            model_steps_a_second=round(sum(rates), 1),
            steps=steps,
            took=round(took, 1),
        )


def _rate(folder: Path) -> float:
    """Steps a second of a run, of the latter half of what it logged."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    found = events.Scalars("train/loss")
    first, last = found[len(found) // 2 - 1], found[-1]
    return (last.step - first.step) / max(last.wall_time - first.wall_time, 1e-9)
