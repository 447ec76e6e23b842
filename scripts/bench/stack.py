"""A sweep as one program against one job after another: CPU seconds, `hydra/launcher=stacked` and
`sequential`.

    python scripts/bench/stack.py [--models mlp,small,wide] [--members 15] [--at-once 2,15] [--rounds 3] [--compile]

Each is the whole command `python -m jensen.train -m`, on images of 28 x 28, or 64 x 64, of zeros
and ones, without validation. A number is of the steps alone: the command is run with few steps and with many,
and the difference is taken, of CPU time of one thread. Launchers take turns, and medians are shown.
`auto` has as many members in a stack as the launcher takes by itself, the others as many as asked for. With
`--compile` there is a stack of kernels too, which a run that is not counted has left in a cache.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
MODELS = {
    "mlp": (128, 28, "latent_dim=20", "model.encoder.hidden=[400]"),
    "small": (64, 28, "latent_dim=2", "model.encoder.hidden=[32]"),
    "wide": (64, 64, "latent_dim=10", "model.encoder.hidden=[400]"),
}
"""The minibatch, the side of the images, and the overrides of each."""
FEW = 50


def data(folder: Path, side: int) -> Path:
    """5,000 images of 0 and 255, `(N, side, side)`."""
    draw = np.random.default_rng(0)
    path = folder / f"images_{side}.npz"
    np.savez(path, images=(draw.random((5000, side, side, 1)) > 0.7).astype(np.uint8) * 255)
    return path


def seconds(
    folder: Path, path: Path, model: str, members: int, steps: int, words: list[str]
) -> float:
    """CPU seconds of a sweep."""
    batch, side, *sizes = MODELS[model]
    line = [
        *("data=images", f"data.path={path}", f"data.x_shape=[1,{side},{side}]"),
        *("model=mlp", *sizes, f"data.batch_size={batch}", "trainer.accelerator=cpu"),
        *("diagnostics=[]", "+trainer.limit_val_batches=0", "callbacks=[checkpoint]"),
        *("trainer.val_check_interval=100000", f"trainer.max_steps={steps}", "logger=[]"),
        f"objective.beta={','.join(str(1 + each / 4) for each in range(members))}",
    ]
    own = os.environ | {
        "OMP_NUM_THREADS": "1",
        "JENSEN_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(ROOT / "src"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "kernels"),
    }
    with tempfile.TemporaryDirectory(dir=folder) as sweep:
        command = [sys.executable, "-m", "jensen.train", "-m", f"hydra.sweep.dir={sweep}"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([*command, *line, *words], env=own, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="mlp,small")
    parser.add_argument("--at-once", default="", help="members of a stack, all by default: 2,15")
    parser.add_argument("--members", type=int, default=15)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="with algorithm.compile=true too")
    options = parser.parse_args()
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, {platform.machine()}, {capability}, one thread")
    print("| model | launcher | ms a model's step, median [least, most] | times as fast |")
    print("|---|---|---|---|")
    launchers = {
        "one after another": ["hydra/launcher=sequential"],
        "auto": ["hydra/launcher=stacked"],
    }
    for members in options.at_once.split(",") if options.at_once else [str(options.members)]:
        words = ["hydra/launcher=stacked", f"hydra.launcher.members={members}"]
        launchers[f"{members} at a time"] = words
    compiled = ["hydra/launcher=stacked", "algorithm.compile=true"]
    if options.compile:
        launchers["auto, compiled"] = compiled
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for model in options.models.split(","):
            path = data(folder, MODELS[model][1])
            found: dict[str, list[float]] = {name: [] for name in launchers}
            if options.compile:
                seconds(folder, path, model, options.members, FEW, compiled)
            for _ in range(options.rounds):
                for name, words in launchers.items():
                    few, many = (
                        seconds(folder, path, model, options.members, steps, words)
                        for steps in (FEW, FEW + options.steps)
                    )
                    found[name].append(1e3 * (many - few) / options.steps / options.members)
            base = statistics.median(found["one after another"])
            for name, times in found.items():
                if min(times) <= 0:
                    raise SystemExit(
                        f"--steps is {options.steps}: expected more, since these steps of {model},"
                        f" {name}, take less than the start of a sweep varies; 300 or more do"
                    )
                middle = statistics.median(times)
                spread = f"{middle:.3f} [{min(times):.3f}, {max(times):.3f}]"
                print(f"| {model} | {name} | {spread} | {base / middle:.2f} |", flush=True)


if __name__ == "__main__":
    main()
