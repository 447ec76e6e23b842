"""How time and memory grow: of EM, the decomposition and a training step with N, D, K and the image
side; of a stack with its members; of a study with its runs.

    python scripts/bench/growth.py [--of em decomposition step members study] [--runs 72 288 1152]

Each table has CPU seconds and the peak of resident memory beyond what was there before, and the
slope: the exponent of the power of the size that fits best, 1 where it grows in proportion. A study
is simulated: one small run is trained and copied as often as asked, its checkpoint and its events as
hard links, with a setting and a seed of its own each (36 betas, and as many seeds as it takes).
Locatello et al. 2019 trained 10,800.
"""

import argparse
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

SRC = Path(__file__).resolve().parents[2] / "src"
BETAS = 36
RUN = (
    "data=sprites",
    "data.size=600",
    "data.validation=100",
    "model=mlp",
    "model.encoder.hidden=[16]",
    "diagnostics=[rate,decomposition,mig_hist20]",
    "trainer.max_steps=20",
    "trainer.val_check_interval=20",
    "trainer.accelerator=cpu",
)
"""The small run that a study is copied from."""

Made = Iterator[tuple[str, str, list[int], Callable[[int], Callable[[], Any]]]]
"""Tables: a title, what grows, its sizes, and the work of a size."""


# ---- what grows within a run -----------------------------------------------------------------------


def em() -> Made:
    from jensen.model.gmm import GMM

    def fit(n: int, d: int, k: int) -> Callable[[], Any]:
        x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
        settings: dict[str, Any] = {"tolerance": 0.0, "max_iter": 5, "accelerate": False}
        return lambda: GMM(k, init=x[:k].double(), **settings).fit(x)

    yield (
        "EM, 5 iterations, D = 16, K = 16",
        "N",
        [25_000, 100_000, 400_000],
        lambda n: fit(n, 16, 16),
    )
    yield "EM, N = 50,000, K = 16", "D", [4, 16, 64], lambda d: fit(50_000, d, 16)
    yield "EM, N = 50,000, D = 16", "K", [8, 32, 128], lambda k: fit(50_000, 16, k)


def decomposition() -> Made:
    from jensen.bound.decomposition import decompose
    from jensen.family.gaussian import Gaussian

    def parts(n: int, d: int) -> Callable[[], Any]:
        noise = torch.randn(2, n, d, generator=torch.Generator().manual_seed(0))
        q = Gaussian(noise[0], noise[1] / 2 - 2)
        return lambda: decompose(q, samples=2000, generator=torch.Generator().manual_seed(1))

    yield "decomposition, 2,000 draws, D = 10", "N", [2000, 8000, 32_000], lambda n: parts(n, 10)
    yield "decomposition, N = 2,000", "D", [10, 50, 200], lambda d: parts(2000, d)


def step() -> Made:
    from hydra.utils import instantiate

    from jensen.run.compose import compose

    def steps(side: int, latents: int = 10) -> Callable[[], Any]:
        shape = [f"data.x_shape=[1,{side},{side}]", f"latent_dim={latents}"]
        model = instantiate(compose("train", ["model=conv", *shape]).model)
        x = (torch.rand(16, 1, side, side) > 0.5).float()
        noise = torch.randn(16, latents)

        def three() -> None:
            for _ in range(3):
                bound = model(x, noise).bound
                (bound.distortion + bound.rate).mean().backward()

        return three

    yield "3 steps of conv, batch 16", "side", [32, 64, 128], steps
    yield "3 steps of conv, batch 16, 64 x 64", "latents", [10, 40, 160], lambda d: steps(64, d)


def peak(work: Callable[[], Any]) -> tuple[float, float]:
    """CPU seconds of a call, and MiB by which it raises the peak of resident memory (Linux)."""
    work()  # warms up
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    begin = time.process_time()
    work()
    return time.process_time() - begin, (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The exponent of the power law that fits best, by least squares of logarithms."""
    x = [math.log(size) for size in sizes]
    y = [math.log(max(value, 1e-9)) for value in values]
    mean = sum(x) / len(x)
    over = sum((a - mean) ** 2 for a in x)
    return sum((a - mean) * b for a, b in zip(x, y, strict=True)) / over


def table(title: str, of: str, sizes: Sequence[int], found: Sequence[tuple[float, float]]) -> None:
    print(f"\n{title}\n  {of:>8} {'seconds':>9} {'MiB':>9}")
    for size, (seconds, mib) in zip(sizes, found, strict=True):
        print(f"  {size:8,} {seconds:9.3f} {mib:9.1f}")
    if len(sizes) > 1:
        seconds, memory = zip(*found, strict=True)
        known = min(memory) >= 1  # of less than a MiB it says nothing
        grown = f"{slope(sizes, memory):9.2f}" if known else f"{'-':>9}"
        print(f"  {'slope':>8} {slope(sizes, seconds):9.2f} {grown}", flush=True)


# ---- a study -----------------------------------------------------------------------------------------


def simulate(folder: Path, runs: int) -> list[str]:
    """A sweep's folder of so many finished runs; the overrides that swept them."""
    from omegaconf import OmegaConf

    from jensen.run.identity import affecting, identity

    seeds = -(-runs // BETAS)
    swept = [f"objective.beta={','.join(map(str, range(1, BETAS + 1)))}", f"seed=range({seeds})"]
    first = folder / "beta=1_seed=0"
    _command("train", "-m", f"hydra.sweep.dir={folder}", *RUN, "objective.beta=1", "seed=0")
    (made,) = (path.parent for path in folder.glob("*/finished.json"))
    made.rename(first)
    text = (first / ".hydra" / "config.yaml").read_text()
    base = affecting(OmegaConf.create(text))
    assert json.loads((first / "finished.json").read_text())["identity"] == identity(
        OmegaConf.create(text)
    )
    other = affecting(OmegaConf.create(_with(text, 2, 1)))
    changed = [key for key in base if base[key] != other[key]]
    for number in range(1, runs):
        seed, place = divmod(number, BETAS)
        beta = place + 1
        new = folder / f"beta={beta}_seed={seed}"
        shutil.copytree(first, new, copy_function=os.link)
        mine = {
            key: (beta if "beta" in key else seed) if key in changed else value
            for key, value in base.items()
        }
        mark = hashlib.sha256(json.dumps(mine, sort_keys=True, default=str).encode()).hexdigest()
        _rewrite(new / ".hydra" / "config.yaml", _with(text, beta, seed))
        for name in ("finished.json", ".hydra/identity.json"):
            entry = json.loads((first / name).read_text())
            _rewrite(new / name, json.dumps(entry | {"identity": mark}))
        scores = json.loads((first / "scores.json").read_text())
        for name in scores["bound"]:
            scores["bound"][name] += 0.01 * beta + 0.1 * ((seed * 7 + beta) % 5)
        _rewrite(new / "scores.json", json.dumps(scores))
    return swept


def _with(text: str, beta: int, seed: int) -> str:
    text = re.sub(r"(?m)^seed: \d+$", f"seed: {seed}", text)
    return re.sub(r"(?m)^  beta: [\d.]+$", f"  beta: {beta}", text)


def _rewrite(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)  # it is a link to the first run's
    path.write_text(text)


def _command(name: str, *words: str) -> tuple[float, float, str]:
    """CPU seconds and peak MiB of a command, and what it said."""
    own = os.environ | {"PYTHONPATH": str(SRC)}
    line = [sys.executable, "-m", f"jensen.{name}", *words]
    process = subprocess.Popen(
        line, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"jensen.{name} failed: {said[-1500:]}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, said


def study(runs: Sequence[int]) -> None:
    plans = ("the plan, where no index is", "the plan again")
    found: dict[str, list[tuple[float, float]]] = {
        "jensen.report": [],
        **{plan: [] for plan in plans},
    }
    for count in runs:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made) / "study"
            swept = simulate(folder, count)
            found["jensen.report"].append(_command("report", f"sweep={folder}", "models=false")[:2])
            words = [f"hydra.sweep.dir={folder}", *RUN, *swept]
            for plan in plans:
                seconds, mib, said = _command("train", "-m", *words)
                assert f"{count} skipped" in said or count % BETAS, said[
                    -500:
                ]  # nothing is trained
                found[plan].append((seconds, mib))
    for name, each in found.items():
        table(f"a study: {name} (CPU seconds)", "runs", runs, each)


def members() -> None:
    """1,000 steps of a stack of MLPs, less a command of 100, and the peak of the whole process."""
    sizes = [2, 8, 32]
    found = []
    for count in sizes:
        swept = f"objective.beta={','.join(map(str, range(1, count + 1)))}"
        words = [*RUN, "hydra/launcher=stacked", "hydra.launcher.members=32", swept]
        seconds = []
        for steps in (100, 1100):
            with tempfile.TemporaryDirectory() as made:
                ends = [f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}"]
                last = _command("train", "-m", f"hydra.sweep.dir={made}", *words, *ends)
                seconds.append(last[0])
        found.append((seconds[1] - seconds[0], last[1]))
    table("1,000 steps of a stack (MiB: of the process)", "members", sizes, found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = {"em": em, "decomposition": decomposition, "step": step}
    commands = ("members", "study")
    parser.add_argument("--of", nargs="+", default=[*kinds, *commands], choices=[*kinds, *commands])
    parser.add_argument("--runs", type=int, nargs="+", default=[72, 288, 1152])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.of:
        if name == "study":
            study(options.runs)
            continue
        if name == "members":
            members()
            continue
        for title, of, sizes, make in kinds[name]():
            table(title, of, sizes, [peak(make(size)) for size in sizes])


if __name__ == "__main__":
    main()
