"""A step of a stack of convolutional models as one CUDA graph, by what becomes of its convolutions."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import alone  # noqa: F401
import torch
from machine import seconds

MEMBERS = (5, 15)
KINDS = ("grouped", "branches", "strided")


def main(report: Callable[..., None], device: str, tiny: bool) -> None:
    for members in MEMBERS[:1] if tiny else MEMBERS:
        for kind in KINDS[:2] if device == "cpu" else KINDS:  # interpreted, the third takes minutes
            try:
                each, kernels = _measure(kind, members, device, tiny)
            except Exception as error:  # the others are still of interest
                report(name=f"{members} members, {kind}", fails=repr(error)[:600])
                continue
            rate = round(members / each, 1)
            report(
                name=f"{members} members, {kind}",
                model_steps_a_second=rate,
                ms_a_step=round(1e3 * each, 3),
                **kernels,
            )


def _measure(kind: str, members: int, device: str, tiny: bool) -> tuple[float, dict[str, Any]]:
    from jensen.algorithm.stacked import Stack, Words

    size = 2 if tiny else 64
    made = [_member(at, device) for at in range(members)]
    with _kernels(kind):
        stack = Stack(made, branched=kind == "branches")
    x = (torch.rand(members, size, 1, 64, 64, device=device) > 0.9).float()
    noise = torch.randn(members, size, 10, device=device)
    step = torch.zeros(members, dtype=torch.long, device=device)

    def look(words: Words) -> list[int]:
        return []

    def take() -> None:
        stack.step(x, noise, step, look)

    if device == "cpu":
        take()
        return seconds(take, device), {}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            take()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        take()
    graph.replay()
    each = seconds(graph.replay, device, 30)
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        graph.replay()
        torch.cuda.synchronize()
    events = profile.key_averages()
    slowest = sorted(events, key=lambda event: -event.device_time_total)[:8]
    return each, {
        "kernels": sum(event.count for event in events),
        "device_ms": round(sum(event.device_time_total for event in events) / 1e3, 3),
        "slowest": {
            event.key[:70]: [event.count, round(event.device_time_total / 1e3, 3)]
            for event in slowest
        },
    }


def _kernels(kind: str) -> AbstractContextManager[None]:
    if kind != "strided":
        return nullcontext()
    from strided import stacked

    return stacked()


def _member(at: int, device: str) -> Any:
    sys.path.append(str(Path(__file__).parents[3] / "tests"))
    from standing_in import standing_in

    from jensen.model import VAE, Bernoulli, ConvDecoder, ConvEncoder, StandardNormal
    from jensen.objective import Beta

    torch.manual_seed(at)
    sizes = ([1, 64, 64], 10, [32] * 4, [4] * 4, [256, 256])
    networks = ConvEncoder(*sizes), ConvDecoder(*sizes)
    model = VAE(*networks, Bernoulli(), StandardNormal(), 10).to(device)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True, capturable=device != "cpu")
    return standing_in(model, Beta(1.0 + at).to(device), adam)
