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

import torch
from machine import product, synchronise
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

Report = Callable[..., None]


class Kind(NamedTuple):
    """A model: the overrides of `conf/train.yaml` that give it, and its minibatch."""

    batch: int
    overrides: tuple[str, ...]


KINDS = {
    "conv": Kind(64, ("data=sprites", "model=conv", "latent_dim=10")),
    "mlp": Kind(128, ("model=mlp", "latent_dim=20", "data.x_shape=[1,28,28]")),
}
OURS: dict[str, tuple[str, ...]] = {
    "jensen": (),
    "jensen, eager": ("algorithm.engine=eager",),
    "jensen, eager, K = 1": ("algorithm.engine=eager", "algorithm.steps_per_call=1"),
    "jensen, graph": ("algorithm.engine=graph",),
    "jensen, graph, K = 1": ("algorithm.engine=graph", "algorithm.steps_per_call=1"),
    "jensen, graph, bf16": ("algorithm.engine=graph", "trainer.precision=bf16-mixed"),
}
"""Overrides by what they measure; a key that this version does not have is said."""


WATCHED = 50
"""Steps after those, in which the device's work is counted."""


class Lengths(NamedTuple):
    """Images, steps before the clock starts, and steps that it measures."""

    images: int
    before: int
    steps: int


def main(report: Report, device: str, tiny: bool, model: str) -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    lengths = Lengths(500, 25, 25) if tiny else Lengths(65_536, 500, 2000)
    kind = KINDS[model]
    kind = kind._replace(batch=4) if tiny else kind
    bench = Bench(kind, device, lengths)
    flops = bench.flops()
    peak = product(device, torch.float32, 256 if tiny else 8192)
    report(name="a step's products", gigaflop=round(flops / 1e9, 3), batch=kind.batch)
    base: list[float] = []
    contenders: dict[str, Callable[[], dict[str, Any]]] = {
        "raw loop": bench.raw,
        "raw loop, one CUDA graph": bench.raw_graph,
        "Lightning's defaults": bench.lightning,
        **{name: _ours(bench, name) for name in OURS},
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


def _ours(bench: "Bench", name: str) -> Callable[[], dict[str, Any]]:
    return lambda: bench.ours(OURS[name])


def images(kind: Kind, examples: Any, device: str) -> Tensor:
    """`(N, 1, S, S)` of 0 and 1, uint8: sprites, or for the MLP the same at 28 x 28."""
    found = []
    for part in examples.stored.split(4096):
        x = examples.decode(part.to(device))
        if "data=sprites" not in kind.overrides:
            x = (functional.interpolate(x, (28, 28), mode="area") > 0.5).float()
        found.append(x.to(torch.uint8))
    return torch.cat(found)


def networks(kind: Kind) -> tuple[nn.Module, nn.Module]:
    """The layers of jensen's own networks: `(B, *event)` to `(B, 2 D)`, and `(B, D)` back."""
    from hydra.utils import instantiate

    from jensen.run.compose import compose

    data = [] if "data=sprites" in kind.overrides else ["data=torch_dataset"]
    cfg = compose("train", [*data, *kind.overrides])
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    return model.encoder.body, model.decoder


class Bench:
    """The contenders, each of which gives its record."""

    def __init__(self, kind: Kind, device: str, lengths: Lengths) -> None:
        from jensen.data.sprites import sprites

        self.kind = kind
        self.examples = sprites(size=lengths.images)  # rendered once for all contenders
        self.images = images(kind, self.examples, device)
        self.device = device
        self.lengths = lengths

    def flops(self) -> float:
        """Floating-point operations of the products of a step, forward and backward."""
        from torch.utils.flop_counter import FlopCounterMode

        encoder, decoder = (part.to(self.device) for part in networks(self.kind))
        with FlopCounterMode(display=False) as counter:
            loss(encoder, decoder, self.images[: self.kind.batch].float())[0].backward()
        return float(counter.get_total_flops())

    def _prepared(self, capturable: bool = False) -> tuple[Callable[[Tensor], Tensor], Any]:
        encoder, decoder = (part.to(self.device) for part in networks(self.kind))
        parameters = [*encoder.parameters(), *decoder.parameters()]
        optimiser = torch.optim.Adam(parameters, lr=1e-3, fused=True, capturable=capturable)

        def step(index: Tensor) -> Tensor:
            optimiser.zero_grad(set_to_none=True)
            found = loss(encoder, decoder, self.images[index].float())[0]
            found.backward()
            optimiser.step()
            return found

        return step, optimiser

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
        return self._timed(self._prepared()[0])

    def raw_graph(self) -> dict[str, Any]:
        """The same step captured whole, by hand: what a graph can reach."""
        if self.device == "cpu":
            return {"absent": "no CUDA graph on a CPU"}
        step, _ = self._prepared(capturable=True)
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

        encoder, decoder = networks(self.kind)
        data = TensorDataset(self.images.float().cpu())
        clock = _clock(self.device, self.lengths)
        fewer = self.lengths.steps // 2
        clock.steps = fewer
        with quiet() as folder:
            trainer = Trainer(
                max_steps=self.lengths.before + fewer + WATCHED,
                accelerator="gpu" if self.device != "cpu" else "cpu",
                devices=1,
                default_root_dir=folder,
                callbacks=[clock],
            )
            loader = DataLoader(data, self.kind.batch, shuffle=True)
            trainer.fit(_module(encoder, decoder), loader)
        return clock.record()

    def ours(self, overrides: Sequence[str]) -> dict[str, Any]:
        """A run of jensen as its command starts it, without diagnostics and validation."""
        if missing := absent(overrides):
            return {"absent": f"this version has no {', '.join(missing)}"}
        import jensen
        from jensen.run.compose import compose

        clock = _clock(self.device, self.lengths)
        words = [
            "diagnostics=[]",
            "+trainer.limit_val_batches=0",
            f"trainer.accelerator={'gpu' if self.device != 'cpu' else 'cpu'}",
            *overrides,
        ]
        steps = self.lengths.before + self.lengths.steps + WATCHED
        with quiet() as folder:
            if "data=sprites" in self.kind.overrides:
                more = [f"trainer.max_steps={steps}", f"data.batch_size={self.kind.batch}"]
                cfg = compose("train", [*self.kind.overrides, *more, *words])
                _train(cfg, folder, clock, self.examples)
            else:
                vae = jensen.VAE("mlp", "mlp", "bernoulli", latent_dim=20, x_shape=[1, 28, 28])
                jensen.fit(
                    vae,
                    self.images.cpu(),
                    max_steps=steps,
                    batch_size=self.kind.batch,
                    folder=folder,
                    callbacks=[clock],
                    overrides=words,
                )
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


def _train(cfg: Any, folder: str, clock: Any, examples: Any) -> None:
    from omegaconf import open_dict

    from jensen.run.given import giving, node
    from jensen.train import train

    with open_dict(cfg):
        cfg.callbacks["clock"] = node("clock", "Clock")
        cfg.data.source = node("data", "Examples")
    with giving({"clock": clock, "data": lambda **_: examples}):
        train(cfg, Path(folder))


def absent(overrides: Sequence[str]) -> list[str]:
    """The overridden keys of `algorithm` that this version does not have."""
    from jensen.run.compose import compose

    known = compose("train", []).algorithm
    keys = [word.partition("=")[0] for word in overrides]
    return [key for key in keys if key.startswith("algorithm.") and key[10:] not in known]


def loss(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The negative bound and its parts, `()` each, as a tutorial has them."""
    mean, log_var = encoder(x).chunk(2, -1)
    z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
    logit = decoder(z)
    distortion = functional.binary_cross_entropy_with_logits(logit, x, reduction="sum") / len(x)
    rate = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum() / len(x)
    return distortion + rate, distortion, rate


def _module(encoder: nn.Module, decoder: nn.Module) -> Any:
    from pytorch_lightning import LightningModule

    class Tutorial(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.decoder = decoder

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            found, distortion, rate = loss(self.encoder, self.decoder, batch[0])
            terms = {"loss": found, "distortion": distortion, "rate": rate}
            self.log_dict(terms, prog_bar=True)
            return found

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    return Tutorial()


def _clock(device: str, lengths: Lengths) -> Any:
    from pytorch_lightning import Callback

    class Clock(Callback):
        """Seconds from a step to a later one, at the ends of Lightning's batches."""

        steps = lengths.steps
        begin: tuple[int, float] | None = None
        end: tuple[int, float] | None = None
        watch: Any = None
        device_work: Mapping[str, Any] = MappingProxyType({})

        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            step = trainer.global_step
            if self.begin is None and step >= lengths.before:
                synchronise(device)
                self.begin = step, time.perf_counter()
            elif self.end is None and self.begin and step >= lengths.before + self.steps:
                synchronise(device)
                self.end = step, time.perf_counter()
                if device != "cpu":
                    self.watch = watched()
                    self.watch.start()
            elif self.watch and self.end and step >= self.end[0] + WATCHED // 2:
                synchronise(device)
                self.watch.stop()
                self.device_work = busy(self.watch, step - self.end[0])
                self.watch = None

        def record(self) -> dict[str, Any]:
            if self.begin is None or self.end is None:
                return {"fails": "it ended before its last step"}
            steps = self.end[0] - self.begin[0]
            rate = steps / (self.end[1] - self.begin[1])
            return {"steps_a_second": round(rate, 1), "steps": steps, **self.device_work}

    return Clock()
