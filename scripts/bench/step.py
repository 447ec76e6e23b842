"""A training step of the MLP, of one checkout against another's, in turns.

    python scripts/bench/step.py [OTHER/src] [--steps 20] [--rounds 100] [--override model=mlp ...]

Each checkout trains in a process of its own, as `jensen.train` does but for its callbacks, and stands still while the other
takes its `steps`; the one that goes first changes with each round. Seconds are CPU time. The table gives what a tenth
of the rounds stayed below, since what else runs on the machine only adds, the median, and ratios to the other.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parents[2] / "src"
CONFIG = [
    "data=sprites",
    "model=mlp",
    "trainer.max_steps=-1",
    "trainer.max_epochs=-1",
    "diagnostics=[]",
]


def train(steps: int, overrides: list[str]) -> None:
    """Takes `steps` steps for each line read, and writes the seconds that one took."""
    import logging
    import tempfile

    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate
    from pytorch_lightning import Callback, Trainer, seed_everything

    import jensen

    class InTurns(Callback):
        def on_train_start(self, trainer, pl_module):
            self.wait()

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step % steps == 0:
                print((time.process_time() - self.start) / steps, flush=True)
                self.wait()

        def wait(self):
            if not sys.stdin.readline():
                os._exit(0)
            self.start = time.process_time()

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    folder = Path(jensen.__file__).parents[2] / "conf"
    with initialize_config_dir(str(folder), version_base="1.3"):
        cfg = compose("train", [*CONFIG, *overrides])
    seed_everything(0, verbose=False)
    quiet = {
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    with tempfile.TemporaryDirectory() as run:
        trainer = Trainer(
            accelerator="cpu",
            max_steps=10**9,
            limit_val_batches=0,
            callbacks=[InTurns()],
            default_root_dir=run,
            logger=False,
            use_distributed_sampler=False,
            **quiet,
        )
        trainer.fit(instantiate(cfg.algorithm), instantiate(cfg.data))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("other", nargs="?", type=Path, help="the src folder of another checkout")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--override", action="append", default=[])
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.steps, options.override)
        return
    sources = {"here": HERE} | ({"other": options.other.resolve()} if options.other else {})
    processes = {}
    for name, source in sources.items():
        more = [f"--override={each}" for each in options.override]
        command = [
            sys.executable,
            "-W",
            "ignore",
            __file__,
            "--train",
            f"--steps={options.steps}",
            *more,
        ]
        own = os.environ | {"PYTHONPATH": str(source)}
        processes[name] = subprocess.Popen(
            command,
            env=own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    for turn in range(options.rounds + 1):
        for name in [*sources] if turn % 2 else [*sources][::-1]:
            process = processes[name]
            process.stdin.write("go\n")
            process.stdin.flush()
            found = float(process.stdout.readline())
            if turn:  # the first is a warm-up
                seconds[name].append(found)
    for process in processes.values():
        process.stdin.close()
        process.wait()
    base = seconds[[*sources][-1]]
    print(f"{'':6} {'quickest tenth':>15} {'ratio':>7} {'median':>10} {'ratio':>7}")
    for name, each in seconds.items():
        quick, median = _tenth(each), statistics.median(each)
        ratios = quick / _tenth(base), median / statistics.median(base)
        print(
            f"{name:6} {1e3 * quick:12.3f} ms {ratios[0]:7.3f} {1e3 * median:7.3f} ms {ratios[1]:7.3f}"
        )


def _tenth(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) // 10]


if __name__ == "__main__":
    main()
