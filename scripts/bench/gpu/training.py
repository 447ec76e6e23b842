"""Steps a second of a VAE: the loop one would write by hand, Lightning's defaults, jensen.

All train the same networks with Adam on the same images, which lie on the device (but for
Lightning's defaults: a TensorDataset and a DataLoader). A number is that of the steps after the
first ones, by the wall clock, with the device waited for at both ends.
"""

import logging
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import alone  # noqa: F401
import loops
import torch
from machine import product, synchronise
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

Report = Callable[..., None]


OURS: dict[str, tuple[str, ...]] = {
    "jensen": (),
    "jensen, bf16": ("trainer.precision=bf16-mixed",),
    "jensen, K = 1": ("algorithm.steps_per_call=1",),
    "jensen, eager": ("algorithm.engine=eager",),
    "jensen, eager, K = 1": ("algorithm.engine=eager", "algorithm.steps_per_call=1"),
    "jensen, cudnn.benchmark": ("+trainer.benchmark=true",),
}
"""Overrides by what they measure; a key that this version does not have is said."""

COMPILED = {
    f"{name}, compiled": ("algorithm.compile=true", *words)
    for name, words in OURS.items()
    if name in ("jensen", "jensen, bf16")
}
"""The same by kernels that take a minute to be made: a section of its own."""


BESIDE = "jensen, weights beside"
"""jensen's default with `beside.tried`."""

WATCHED = 50
"""Steps after those, in which the device's work is counted."""


class Lengths(NamedTuple):
    """Images, steps before the clock starts, and steps that it measures."""

    images: int
    before: int
    steps: int


def main(report: Report, device: str, tiny: bool, model: str, compiled: bool = False) -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    lengths = Lengths(500, 25, 25) if tiny else Lengths(20_000, 300, 1000)
    kind = loops.KINDS[model]
    kind = kind._replace(batch=4) if tiny else kind
    bench = Bench(kind, device, lengths)
    flops = bench.flops()
    peak = product(device, torch.float32, 256 if tiny else 8192)
    report(name="a step's products", gigaflop=round(flops / 1e9, 3), batch=kind.batch)
    base: list[float] = []
    contenders: dict[str, Callable[[], dict[str, Any]]] = {
        "raw loop": bench.raw,
        **{name: _ours(bench, words) for name, words in (COMPILED if compiled else OURS).items()},
    }
    if not compiled:
        contenders |= {
            "raw loop, one CUDA graph": bench.raw_graph,
            BESIDE: lambda: _beside(bench),
            "Lightning's defaults": bench.lightning,  # last: it takes longest
        }
    for name, contender in contenders.items():
        begin = time.perf_counter()
        try:
            found = contender()
        except Exception as error:
            lines = [line for line in traceback.format_exc().splitlines() if "File" in line]
            report(name=name, fails=f"{type(error).__name__}: {error}"[:400], at=lines[-1].strip())
            continue
        if rate := found.get("steps_a_second"):
            base.append(rate)
            found |= {
                "of_raw": round(rate / base[0], 2),
                "percent_of_a_float32_product": round(100 * rate * flops / peak, 1),
            }
        report(name=name, **found, took=round(time.perf_counter() - begin, 1))


def _ours(bench: "Bench", words: Sequence[str]) -> Callable[[], dict[str, Any]]:
    return lambda: bench.ours(words)


def _beside(bench: "Bench") -> dict[str, Any]:
    from beside import tried

    with tried():
        return bench.ours(())


class Bench:
    """The contenders, each of which gives its record."""

    def __init__(self, kind: loops.Kind, device: str, lengths: Lengths) -> None:
        self.kind = kind
        self.examples = loops.examples(kind, lengths.images)  # rendered once for all contenders
        self.images = loops.images(kind, self.examples, device)
        self.device = device
        self.lengths = lengths

    def flops(self) -> float:
        """Floating-point operations of the products of a step, forward and backward."""
        from torch.utils.flop_counter import FlopCounterMode

        encoder, decoder = (part.to(self.device) for part in loops.networks(self.kind))
        with FlopCounterMode(display=False) as counter:
            loops.loss(encoder, decoder, self.images[: self.kind.batch].float())[0].backward()
        return float(counter.get_total_flops())

    def _timed(self, step: Callable[[Tensor], Any]) -> dict[str, Any]:
        """Steps over shuffled epochs, and what the device did in some of them."""
        before, steps = self.lengths.before, self.lengths.steps
        batches: list[Tensor] = []

        def take(count: int) -> None:
            for _ in range(count):
                if not batches:
                    order = torch.randperm(len(self.images), device=self.device)
                    batches.extend(order.split(self.kind.batch)[: len(order) // self.kind.batch])
                step(batches.pop())

        take(before)
        synchronise(self.device)
        begin = time.perf_counter()
        take(steps)
        synchronise(self.device)
        rate = steps / (time.perf_counter() - begin)
        return {"steps_a_second": round(rate, 1)} | self._profiled(lambda: take(20), 20)

    def _profiled(self, work: Callable[[], Any], steps: int) -> dict[str, Any]:
        if self.device == "cpu":
            return {}
        with watched() as watch:
            work()
            torch.cuda.synchronize()
        return busy(watch, steps)

    def raw(self) -> dict[str, Any]:
        """The loop one would write by hand: images on the device, fused Adam."""
        return self._timed(loops.raw_step(self.kind, self.images, self.device))

    def raw_graph(self) -> dict[str, Any]:
        """The same step captured whole, by hand: what a graph can reach."""
        if self.device == "cpu":
            return {"absent": "no CUDA graph on a CPU"}
        step = loops.raw_step(self.kind, self.images, self.device, capturable=True)
        index = torch.arange(self.kind.batch, device=self.device)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(11):
                step(index)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step(index)

        def replay(batch: Tensor) -> None:
            index.copy_(batch)
            graph.replay()

        return self._timed(replay)

    def lightning(self) -> dict[str, Any]:
        """A LightningModule as the tutorials have it, in a Trainer with its defaults."""
        from pytorch_lightning import Trainer

        data = TensorDataset(self.images.float().cpu())
        fewer = self.lengths.steps // 2
        clock = Clock(self.device, self.lengths._replace(steps=fewer))
        with quiet() as folder:
            trainer = Trainer(
                max_steps=self.lengths.before + fewer + WATCHED,
                accelerator="gpu" if self.device != "cpu" else "cpu",
                devices=1,
                default_root_dir=folder,
                callbacks=[loops.after_each_call(clock.look)],
            )
            loader = DataLoader(data, self.kind.batch, shuffle=True)
            trainer.fit(loops.tutorial(self.kind), loader)
        return clock.record()

    def ours(self, overrides: Sequence[str]) -> dict[str, Any]:
        """A run of jensen as its command starts it, without diagnostics and validation."""
        if missing := loops.absent(overrides):
            return {"absent": f"this version has no {', '.join(missing)}"}
        clock = Clock(self.device, self.lengths)
        steps = self.lengths.before + self.lengths.steps + WATCHED
        words = [
            *self.kind.overrides,
            f"data.batch_size={self.kind.batch}",
            f"trainer.max_steps={steps}",
            f"trainer.accelerator={'gpu' if self.device != 'cpu' else 'cpu'}",
            *overrides,
        ]
        with quiet() as folder:
            hook = loops.after_each_call(clock.look)
            loops.train(words, Path(folder) / "run", self.examples, hook)
        return clock.record()


@contextmanager
def quiet() -> Iterator[str]:
    """A folder that goes, and nothing said meanwhile."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Path("/dev/null").open("w") as nowhere,
        redirect_stderr(nowhere),
        redirect_stdout(nowhere),
    ):
        yield folder


def watched() -> Any:
    """A profiler of what the device does."""
    from torch.profiler import ProfilerActivity, profile

    return profile(activities=[ProfilerActivity.CUDA])


def busy(watch: Any, steps: int) -> dict[str, Any]:
    """Kernels and copies a step, and the microseconds in which they kept the device busy."""
    events = [each for each in watch.events() if each.device_type.name == "CUDA"]
    total = sum(each.time_range.elapsed_us() for each in events)
    return {
        "kernels_a_step": round(len(events) / steps, 1),
        "device_us_a_step": round(total / steps, 1),
    }


class Clock:
    """Seconds from a step to a later one, and what the device does in some steps after that."""

    def __init__(self, device: str, lengths: Lengths) -> None:
        self.device = device
        self.lengths = lengths
        self.begin: tuple[int, float] | None = None
        self.end: tuple[int, float] | None = None
        self.watch: Any = None
        self.device_work: Mapping[str, Any] = MappingProxyType({})
        self.why = ""

    def look(self, trainer: Any) -> None:
        """One of Lightning's batches has ended."""
        step = trainer.global_step
        calls = getattr(trainer.lightning_module, "calls", None)
        self.why = getattr(getattr(calls, "_drive", None), "why", "")
        before, steps = self.lengths.before, self.lengths.steps
        if self.begin is None and step >= before:
            synchronise(self.device)
            self.begin = step, time.perf_counter()
        elif self.end is None and self.begin and step >= before + steps:
            synchronise(self.device)
            self.end = step, time.perf_counter()
            if self.device != "cpu":
                self.watch = watched()
                self.watch.start()
        elif self.watch and self.end and step >= self.end[0] + WATCHED // 2:
            synchronise(self.device)
            self.watch.stop()
            self.device_work = busy(self.watch, step - self.end[0])
            self.watch = None

    def record(self) -> dict[str, Any]:
        if self.begin is None or self.end is None:
            return {"fails": "it ended before its last step"}
        steps = self.end[0] - self.begin[0]
        rate = steps / (self.end[1] - self.begin[1])
        eager = {"eager_because": self.why} if self.why else {}
        return {"steps_a_second": round(rate, 1), "steps": steps, **self.device_work, **eager}
