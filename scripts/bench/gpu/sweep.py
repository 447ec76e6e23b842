"""A whole beta sweep as its user starts it: a stack of 25, 4,000 steps each, with all scores at the end."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import alone  # noqa: F401

MEMBERS = 25
STEPS = 4000
SCORES = (
    "rate,decomposition,mig_exact,mig_hist20,mig_sup,infomec,beta_vae,factor_vae,sap_r2,modularity"
)
TREES = ",dci_boost20"
"""What takes longer than all the others."""


def main(report: Callable[..., None], device: str, tiny: bool) -> None:
    scores = SCORES if tiny else SCORES + TREES
    steps = 50 if tiny else STEPS
    words = [
        "hydra/launcher=stacked",
        "data=sprites",
        "data.validation=8192",
        *(["data.size=10000", "model=mlp"] if tiny else ["model=conv"]),
        f"diagnostics=[{scores}]",
        f"trainer.max_steps={steps}",
        f"trainer.val_check_interval={steps}",
        f"trainer.accelerator={'cpu' if device == 'cpu' else 'gpu'}",
        "objective.beta=" + ",".join(str(1 + each / 4) for each in range(2 if tiny else MEMBERS)),
    ]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "sweep"
        own = os.environ | {"JENSEN_CACHE": str(Path(made) / "cache")}
        command = [sys.executable, "-m", "jensen.train", "-m", f"hydra.sweep.dir={folder}", *words]
        begin = time.time()
        done = subprocess.run(command, env=own, capture_output=True, text=True)
        took = time.time() - begin
        said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        if done.returncode:
            report(name="sweep", fails=said[-1500:])
            return
        trained = [_last_step(each.parent) - begin for each in folder.glob("*/finished.json")]
        report(
            name=f"{len(trained)} x {steps} steps, {1 + scores.count(',')} diagnostics",
            seconds=round(took, 1),
            first_trained=round(min(trained), 1),
            last_trained=round(max(trained), 1),
            said=said[-1500:],
        )


def _last_step(folder: Path) -> float:
    """When a run logged its last step, in seconds since 1970."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return float(events.Scalars("train/loss")[-1].wall_time)
