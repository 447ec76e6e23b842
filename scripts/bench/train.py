"""A training step of a VAE: jensen, the loop one would write by hand, Lightning, other libraries.

    python scripts/bench/train.py [--models tiny mlp conv] [--rounds 40] [--steps 50]
                                  [--contenders raw jensen ...] [--peers FOLDER]

Every contender trains the same networks with Adam on the same images, in a process of its own that
stands still while the others take their steps, in turns whose order changes. Seconds are CPU time
of the process. The table gives the median and the quartiles of the rounds, and the ratio of medians
to the raw loop: images in memory, fused Adam, torch's own loss. The peers are installed by pip into
FOLDER, beside this environment's torch and Lightning; one that cannot be is said, and left out.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
SRC = HERE.parents[2] / "src"
IMAGES = 20_000
VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "MKL_ENABLE_INSTRUCTIONS",
)
OURS: dict[str, tuple[str, ...]] = {
    "jensen": (),
    "jensen, K = 1": ("algorithm.steps_per_call=1",),
    "jensen, compiled": ("algorithm.compile=true",),
    "jensen, bf16": ("trainer.precision=bf16-mixed",),
}
"""Overrides by what they measure."""
PEERS: dict[str, tuple[str, ...]] = {
    "pythae": ("pythae", "imageio"),
    "disent": ("disent", "lightning"),
}
"""Packages of each, installed without what they ask for, which is here but for `MORE`."""
MORE: dict[str, tuple[str, ...]] = {"pythae": ("pydantic",)}
"""Packages that they need beside those, installed with what these ask for."""


class Turns:
    """Waits for a line before each `steps` steps, and writes the CPU seconds of one."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.taken = 0
        self.begun = False

    def at(self, taken: int) -> None:
        """So many steps have been taken."""
        if not self.begun:  # what comes before the first turn is a start
            self.begun = True
            self._wait(taken)
        elif taken - self.taken >= self.steps:
            seconds = (time.process_time() - self.start) / (taken - self.taken)
            print(f"STEP {seconds}", file=sys.__stdout__, flush=True)
            self._wait(taken)

    def more(self) -> None:
        """Another step has been taken."""
        self._count = getattr(self, "_count", 0) + 1
        self.at(self._count)

    def _wait(self, taken: int) -> None:
        if not sys.stdin.readline():
            os._exit(0)
        self.taken = taken
        self.start = time.process_time()


# ---- contenders: each trains until its turns end --------------------------------------------------


def raw(name: str, model: str, turns: Turns, folder: Path) -> None:
    import loops
    import torch

    kind = loops.KINDS[model]
    x = loops.images(kind, loops.examples(kind, IMAGES), "cpu")
    step = loops.raw_step(kind, x, "cpu")
    while True:
        order = torch.randperm(len(x))
        for index in order.split(kind.batch)[: len(x) // kind.batch]:
            step(index)
            turns.more()


def ours(name: str, model: str, turns: Turns, folder: Path) -> None:
    import loops

    kind = loops.KINDS[model]
    if missing := loops.absent(OURS[name]):
        raise SystemExit(f"this version has no {', '.join(missing)}")
    words = [*kind.overrides, f"data.batch_size={kind.batch}", "trainer.max_steps=1000000"]
    words += ["trainer.accelerator=cpu", *OURS[name]]
    hook = loops.after_each_call(lambda trainer: turns.at(trainer.global_step))
    loops.train(words, folder / "run", loops.examples(kind, IMAGES), hook)


def lightning(name: str, model: str, turns: Turns, folder: Path) -> None:
    """Its defaults: a TensorDataset, a DataLoader, three numbers on the bar."""
    _lightning(model, turns, folder, "tensors", _tensors)


def pytorch_vae(name: str, model: str, turns: Turns, folder: Path) -> None:
    """The step of PyTorch-VAE's experiment: items by ToTensor, numbers of Python logged."""
    _lightning(model, turns, folder, "numbers", _items)


def _tensors(x: Any) -> Any:
    from torch.utils.data import TensorDataset

    return TensorDataset(x.float())


def _items(x: Any) -> Any:
    from torch.utils.data import Dataset
    from torchvision.transforms import ToTensor

    class Items(Dataset[Any]):
        pictures = (x[:, 0].numpy() * 255)[..., None]
        decode = ToTensor()

        def __len__(self) -> int:
            return len(self.pictures)

        def __getitem__(self, row: int) -> tuple[Any, int]:
            return self.decode(self.pictures[row]), 0

    return Items()


def _lightning(
    model: str, turns: Turns, folder: Path, log: str, dataset: Callable[[Any], Any]
) -> None:
    import loops
    from pytorch_lightning import Trainer
    from torch.utils.data import DataLoader

    kind = loops.KINDS[model]
    x = loops.images(kind, loops.examples(kind, IMAGES), "cpu")
    hook = loops.after_each_call(lambda trainer: turns.at(trainer.global_step))
    trainer = Trainer(
        max_steps=1_000_000, accelerator="cpu", default_root_dir=folder, callbacks=[hook]
    )
    loader = DataLoader(dataset(x), kind.batch, shuffle=True, drop_last=True)
    trainer.fit(loops.tutorial(kind, log), loader)


def pythae(name: str, model: str, turns: Turns, folder: Path) -> None:
    import loops
    import torch
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    kind = loops.KINDS[model]
    x = loops.images(kind, loops.examples(kind, IMAGES), "cpu").float()
    body, layers = loops.networks(kind)
    latent = next(int(word[11:]) for word in kind.overrides if word.startswith("latent_dim="))

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Any) -> Any:
            mean, log_var = self.body(x).chunk(2, -1)
            return ModelOutput(embedding=mean, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, z: Any) -> Any:  # its binary cross-entropy takes probabilities
            return ModelOutput(reconstruction=self.layers(z).sigmoid())

    class Hook(TrainingCallback):
        def on_train_step_end(self, training_config: Any, **_: Any) -> None:
            turns.more()

    config = VAEConfig(tuple(x.shape[1:]), latent_dim=latent, reconstruction_loss="bce")
    trainer = BaseTrainer(
        VAE(config, Encoder(), Decoder()),
        BaseDataset(x, torch.ones(len(x))),
        training_config=BaseTrainerConfig(
            output_dir=str(folder),
            per_device_train_batch_size=kind.batch,
            num_epochs=1000,
            learning_rate=1e-3,
            no_cuda=True,
        ),
        callbacks=[Hook()],
    )
    trainer.train()


def disent(name: str, model: str, turns: Turns, folder: Path) -> None:
    import lightning
    import loops
    from disent.frameworks.vae import BetaVae
    from disent.model import AutoEncoder, DisentDecoder, DisentEncoder
    from torch.utils.data import DataLoader, Dataset

    kind = loops.KINDS[model]
    x = loops.images(kind, loops.examples(kind, IMAGES), "cpu").float()
    body, layers = loops.networks(kind)
    latent = next(int(word[11:]) for word in kind.overrides if word.startswith("latent_dim="))

    class Encoder(DisentEncoder):
        def __init__(self) -> None:
            super().__init__(x_shape=tuple(x.shape[1:]), z_size=latent, z_multiplier=2)
            self.body = body

        def encode(self, x: Any) -> Any:
            return self.body(x)

    class Decoder(DisentDecoder):
        def __init__(self) -> None:
            super().__init__(x_shape=tuple(x.shape[1:]), z_size=latent, z_multiplier=1)
            self.layers = layers

        def decode(self, z: Any) -> Any:
            return self.layers(z)

    class Items(Dataset[Any]):
        def __len__(self) -> int:
            return len(x)

        def __getitem__(self, row: int) -> Any:
            return {"x_targ": (x[row],)}

    framework = BetaVae(
        model=AutoEncoder(Encoder(), Decoder()),
        cfg=BetaVae.cfg(
            optimizer="adam",
            optimizer_kwargs={"lr": 1e-3},
            recon_loss="bce",
            loss_reduction="mean_sum",
            beta=1.0,
        ),
    )

    class Hook(lightning.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            turns.more()

    trainer = lightning.Trainer(
        max_steps=1_000_000, accelerator="cpu", default_root_dir=folder, callbacks=[Hook()]
    )
    trainer.fit(framework, DataLoader(Items(), kind.batch, shuffle=True, drop_last=True))


CONTENDERS: dict[str, Callable[[str, str, Turns, Path], None]] = {
    "raw": raw,
    **dict.fromkeys(OURS, ours),
    "Lightning's defaults": lightning,
    "PyTorch-VAE's pattern": pytorch_vae,
    "pythae": pythae,
    "disent": disent,
}


def child(options: argparse.Namespace) -> None:
    """Train as one contender; only its turns are written to stdout."""
    import logging

    import torch

    torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (until the process ends)
    with tempfile.TemporaryDirectory() as folder:
        CONTENDERS[options.child](options.child, options.model, Turns(options.steps), Path(folder))


# ---- turns ----------------------------------------------------------------------------------------


def install(name: str, folder: Path) -> str:
    """Install a peer into a folder of its own; the reason where that fails."""
    where = folder / name
    done = where / "installed"
    if done.exists():
        return ""
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(where)]
    for words in (("--no-deps", *PEERS[name]), MORE.get(name, ())):
        if not words:
            continue
        found = subprocess.run([*command, *words], capture_output=True, text=True)
        if found.returncode:
            return found.stderr.strip().splitlines()[-1]
    done.touch()
    return ""


def start(name: str, model: str, options: argparse.Namespace) -> subprocess.Popen[str]:
    paths = [str(SRC), str(HERE.parent)]
    paths += [str(options.peers / name)] if name in PEERS else []
    threads = {key: str(options.threads) for key in VARIABLES[:3]}
    own = os.environ | threads | {"PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-W", "ignore", str(HERE), "--child", name, "--model", model]
    command += ["--steps", str(options.steps), "--threads", str(options.threads)]
    return subprocess.Popen(
        command,
        env=own,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if not options.verbose else None,
        text=True,
    )


def turn(process: subprocess.Popen[str]) -> float | None:
    """Have a contender take its steps: CPU seconds of one; None if it has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write("go\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    for line in process.stdout:
        if line.startswith("STEP "):
            return float(line.removeprefix("STEP "))
    return None


def compare(model: str, names: Sequence[str], options: argparse.Namespace) -> None:
    """The table of a model."""
    processes = {}
    seconds: dict[str, list[float]] = {}
    for name in names:  # one after another, so that no start takes the time of another's steps
        process = start(name, model, options)
        if turn(process) is None:  # a warm-up
            said = process.stderr.read() if process.stderr else ""
            print(f"  {name}: fails: {(said.strip().splitlines() or ['?'])[-1][:200]}", flush=True)
            continue
        processes[name] = process
        seconds[name] = []
    for place in range(options.rounds):
        for name in [*processes] if place % 2 else [*processes][::-1]:
            found = turn(processes[name])
            if found is not None:
                seconds[name].append(found)
    for process in processes.values():
        process.kill()
        process.wait()
    base = statistics.median(seconds["raw"]) if seconds.get("raw") else None
    print(f"\n{model}: microseconds of CPU a step")
    print(f"  {'':22} {'median':>9} {'quartiles':>19} {'of raw':>8}")
    for name, each in seconds.items():
        low, middle, high = (1e6 * value for value in statistics.quantiles(each, n=4))
        ratio = f"{middle / 1e6 / base:8.2f}" if base else ""
        print(f"  {name:22} {middle:9.0f} {low:9.0f} {high:9.0f} {ratio}", flush=True)


def setting(options: argparse.Namespace) -> str:
    import torch

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "-"

    lines = [
        f"python {platform.python_version()}, torch {torch.__version__}"
        f" ({torch.backends.cpu.get_cpu_capability()}), lightning {of('pytorch-lightning')},"
        f" {options.threads} thread(s), {len(os.sched_getaffinity(0))} cores",
        f"{options.rounds} rounds of {options.steps} steps; "
        + ", ".join(f"{name} {os.environ.get(name, 'unset')}" for name in VARIABLES),
    ]
    for name in PEERS:
        for found in sorted((options.peers / name).glob(f"{name}-*.dist-info")):
            lines.append(found.name.removesuffix(".dist-info").replace("-", " "))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--models", nargs="+", default=["tiny", "mlp", "conv"])
    parser.add_argument("--contenders", nargs="+", default=[*CONTENDERS], choices=[*CONTENDERS])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=50, help="a multiple of 25")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers", type=Path, default=cache / "jensen" / "bench_peers")
    parser.add_argument("--verbose", action="store_true", help="what the contenders say")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    names = []
    for name in options.contenders:
        if name in PEERS and (why := install(name, options.peers)):
            print(f"{name} cannot be installed: {why}")
            continue
        names.append(name)
    print(setting(options), flush=True)
    for model in options.models:
        compare(model, names, options)


if __name__ == "__main__":
    main()
