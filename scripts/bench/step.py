"""A training step of the MLP, of one checkout against another's, in turns.

    python scripts/bench/step.py [OTHER/src] [--steps 200] [--rounds 15] [--override model=mlp ...]

Each checkout trains in a process of its own, as `jensen.train` does but for its callbacks, and
stands still while the other takes its `steps`; the one that goes first changes with each round. The
table gives medians over the rounds, and the ratio to the other checkout. Seconds are those of the
process's CPU time on a CPU, so that a busy machine does not matter.
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
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=15)
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
    for name, each in seconds.items():
        ratio = statistics.median(
            mine / base for mine, base in zip(each, seconds[[*sources][-1]], strict=True)
        )
        print(f"{name:6} {1e3 * statistics.median(each):8.3f} ms a step {ratio:8.3f}")


if __name__ == "__main__":
    main()
