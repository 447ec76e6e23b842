"""The kernels of a step by hand as one CUDA graph: which they are, and what fewer of them would give."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import alone  # noqa: F401
import loops
import torch
from beside import Beside
from machine import seconds
from products import as_products
from torch import Tensor

from jensen.algorithm import advance

SHOWN = 24
"""Kernels of a table, those that take longest."""


class Way(NamedTuple):
    """How kernels of convolutions lie, what a forward pass is computed in, whether inductor makes its
    kernels, and whether convolutions are products (`products`) or kernels of our own (`strided`).
    """

    order: torch.memory_format = torch.contiguous_format
    half: bool = False
    compiled: bool = False
    beside: bool = False
    products: bool = False
    pieces: int = 0
    strided: bool = False
    streams: int = 0


PIECE = 8192
"""Numbers of a piece of a model that Adam takes at a time; 2,048 to 16,384 measured the same."""

WAYS = {
    "torch's order": Way(),
    "channels_last": Way(torch.channels_last, pieces=PIECE),
    "compiled": Way(compiled=True, pieces=PIECE),
    "compiled, channels_last": Way(torch.channels_last, compiled=True, pieces=PIECE),
    "compiled, channels_last, bf16": Way(
        torch.channels_last, half=True, compiled=True, pieces=PIECE
    ),
    "compiled, products": Way(products=True, compiled=True, pieces=PIECE),
    "compiled, products, bf16": Way(products=True, half=True, compiled=True, pieces=PIECE),
    "beside, channels_last, bf16": Way(torch.channels_last, half=True, beside=True, pieces=PIECE),
}


def main(report: Callable[..., None], device: str, tiny: bool) -> None:
    for model in ("mlp", "conv"):
        kind = loops.KINDS[model]
        kind = kind._replace(batch=4) if tiny else kind
        images = loops.images(kind, loops.examples(kind, kind.batch), device)
        for name, way in WAYS.items():
            if model == "mlp" and (way.products or way.order is not torch.contiguous_format):
                continue
            begin = time.perf_counter()
            try:
                found = measure(kind, way, images, device)
            except Exception as error:  # the others are still of interest
                found = {"fails": repr(error)[:600]}
            report(name=f"{model}, {name}", **found, took=round(time.perf_counter() - begin, 1))


def measure(kind: loops.Kind, way: Way, images: Tensor, device: str) -> dict[str, Any]:
    step = _step(kind, way, images, device)
    if device == "cpu":
        step()
        return {"ms_a_step": round(1e3 * seconds(step, device), 3)}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(11):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    graph.replay()
    each = seconds(graph.replay, device, 300)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        graph.replay()
        torch.cuda.synchronize()
    events = profile.key_averages()
    slowest = sorted(events, key=lambda event: -event.device_time_total)[:SHOWN]
    return {
        "steps_a_second": round(1 / each, 1),
        "kernels": sum(event.count for event in events),
        "device_us": round(sum(event.device_time_total for event in events), 1),
        "slowest": {
            event.key[:140]: [event.count, round(event.device_time_total, 1)] for event in slowest
        },
    }


def _step(kind: loops.Kind, way: Way, images: Tensor, device: str) -> Callable[[], None]:
    parts = [part.to(device).to(memory_format=way.order) for part in loops.networks(kind)]
    if way.products:
        parts = [as_products(part) for part in parts]
    if way.strided:
        from strided import strided

        parts = [strided(part, way.streams) for part in parts]
    weights = [weight for part in parts for weight in part.parameters()]
    capturable = device != "cpu"
    optimiser = torch.optim.Adam(weights, lr=1e-3, fused=True, capturable=capturable)
    loss = torch.compile(loops.loss) if way.compiled else loops.loss
    beside = Beside(torch.device(device)) if way.beside else None

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=way.half), beside or nullcontext():
            found = loss(*parts, images.float())[0]
        if beside is None:
            found.backward()
        else:
            beside.backward(found)
        if way.pieces:
            advance.PIECE = way.pieces
            advance.advance(optimiser)
        else:
            optimiser.step()

    return step
