"""What kernels of our own make of convolutions of stride 2 (`strided`): each alone beside cuDNN's, with the tiles
that are fastest, then a whole step by hand, then jensen's.
"""

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import alone  # noqa: F401
import loops
import torch
from kernels import PIECE, Way, measure
from machine import seconds
from torch import Tensor
from torch.nn import functional
from training import Bench, Lengths

REPEATS = 20
"""Calls in one graph, so that what it costs to begin one is not what is measured."""

_OURS = Way(torch.channels_last, strided=True, pieces=PIECE)
_BESIDE = _OURS._replace(streams=3)
WAYS = {
    "cuDNN": Way(torch.channels_last, pieces=PIECE),
    "our kernels": _OURS,
    "our kernels, 3 streams": _BESIDE,
}
COMPILED = {
    "our kernels, compiled": _OURS._replace(compiled=True),
    "our kernels, compiled, 3 streams": _BESIDE._replace(compiled=True),
    "our kernels, compiled, bf16, 3 streams": _BESIDE._replace(compiled=True, half=True),
}
"""The rest of a step by inductor's kernels, which take half a minute to be made: last."""


def main(report: Callable[..., None], device: str, tiny: bool) -> None:
    kind = loops.KINDS["conv"]
    if device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
        _layers(report, 2, device, tiny)
        report(name="steps", absent="interpreted kernels take minutes for one")
        return
    kind = kind._replace(batch=4) if tiny else kind
    _layers(report, kind.batch, device, tiny)
    images = loops.images(kind, loops.examples(kind, kind.batch), device)

    def by_hand(ways: dict[str, Way]) -> None:
        for name, way in ways.items():
            work = partial(measure, kind, way, images, device)
            _said(report, f"a step by hand, {name}", work)

    by_hand(WAYS)
    bench = Bench(kind, device, Lengths(100, 2, 2) if tiny else Lengths(20_000, 300, 1000))
    for streams in (0, 3):
        _said(report, f"jensen, {streams} streams", partial(_ours, bench, streams))
    by_hand(COMPILED)


def _said(report: Callable[..., None], name: str, work: Callable[[], dict[str, Any]]) -> None:
    begin = time.perf_counter()
    try:
        found = work()
    except Exception as error:  # the others are still of interest
        found = {"fails": f"{type(error).__name__}: {error}"[:600]}
    report(name=name, **found, took=round(time.perf_counter() - begin, 1))


def _ours(bench: Bench, streams: int) -> dict[str, Any]:
    from strided import tried

    with tried(streams):
        return bench.ours(())


def _layers(report: Callable[..., None], batch: int, device: str, tiny: bool) -> None:
    """Each of the model's layers: microseconds of a call, and how far its digits are from float64's."""
    from strided import CHOSEN, Shape

    sides = (2,) if tiny else (32, 16, 8, 4)
    for side in sides:
        shape = Shape(batch, side, side, 1 if side == sides[0] and not tiny else 32, 32, 4)
        for of in ("halved", "doubled", "slopes"):
            _said(
                report, f"{of} {side}", lambda of=of, shape=shape: _layer(of, shape, device, tiny)
            )
    report(
        name="tiles",
        **{f"{of} {shape.height}": list(tiles) for (of, shape), tiles in CHOSEN.items()},
    )


def _layer(of: str, shape: Any, device: str, tiny: bool) -> dict[str, Any]:
    from strided import CHOSEN, tiles_of

    small, large, weight = _tensors(shape, device)
    torchs = _torchs(of, shape.kernel)
    ours = _ours_of(of, shape.kernel)
    exact = torchs(small.double(), large.double(), weight.double())
    found: dict[str, Any] = {
        "error": _error(ours(small, large, weight, None), exact),
        "torchs_error": _error(torchs(small, large, weight), exact),
        "torchs_us": _microseconds(lambda: torchs(small, large, weight), device),
    }
    best = float("inf")
    for tiles in [tiles_of(of, shape)] if tiny else candidates(of, shape):
        try:
            each = _microseconds(partial(ours, small, large, weight, tiles), device)
        except Exception as error:  # tiles too large for a processor's memory
            found.setdefault("left_out", []).append(f"{list(tiles)}: {type(error).__name__}")
            continue
        found.setdefault("default_us", each)
        if each < best:
            best = found["us"] = each
            CHOSEN[of, shape] = tiles
    return found


def candidates(of: str, shape: Any) -> Iterator[Any]:
    """Tiles to try, those of `tiles_of` first."""
    from strided import tiles_of

    first = tiles_of(of, shape)
    yield first
    if of == "slopes":
        others = [(32, 64, 64), (32, 128, 32), (32, 32, 64)]
    else:
        columns = first.columns
        others = [(32, columns, 64), (64, columns, 32), (16, columns, 128)]
    for sides in others:
        if sides != first[:3]:
            yield first._replace(rows=sides[0], columns=sides[1], depth=sides[2])
    yield first._replace(stages=5)


def _tensors(shape: Any, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """A small image, a large one, and a weight, channels last."""
    torch.manual_seed(0)
    sizes = (
        (shape.batch, shape.small, shape.height, shape.width),
        (shape.batch, shape.large, 2 * shape.height, 2 * shape.width),
        (shape.small, shape.large, shape.kernel, shape.kernel),
    )
    order = torch.channels_last
    small, large, weight = (torch.randn(size).to(device, memory_format=order) for size in sizes)
    return small, large, weight


def _torchs(of: str, kernel: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The weight's slope alone, as ours has it with the bias's."""
    edge = kernel // 2 - 1
    if of == "halved":
        return lambda small, large, weight: functional.conv2d(large, weight, None, 2, edge)
    if of == "doubled":
        return lambda small, large, weight: functional.conv_transpose2d(
            small, weight, None, 2, edge
        )

    def slope(small: Tensor, large: Tensor, weight: Tensor) -> Tensor:
        settings = ([2, 2], [edge, edge], [1, 1], False, [0, 0], 1)
        wanted = [False, True, True]
        found: Tensor = torch.ops.aten.convolution_backward(
            small, large, weight, [len(weight)], *settings, wanted
        )[1]
        return found

    return slope


def _ours_of(of: str, kernel: int) -> Callable[..., Tensor]:
    import strided

    if of == "halved":
        return lambda small, large, weight, tiles: strided.halved(large, weight, tiles=tiles)
    if of == "doubled":
        return lambda small, large, weight, tiles: strided.doubled(small, weight, tiles=tiles)
    return lambda small, large, weight, tiles: strided.slopes(
        small, large, kernel, False, tiles=tiles
    )[0]


def _error(found: Tensor, exact: Tensor) -> float:
    """The largest, in parts of the largest number."""
    return float((found - exact).abs().max() / exact.abs().max())


def _microseconds(work: Callable[[], Any], device: str) -> float:
    """Of one call among many in a graph."""
    if device == "cpu":
        return round(1e6 * seconds(work, device), 1)
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(REPEATS):
            work()
    graph.replay()
    each = min(seconds(graph.replay, device) for _ in range(5))
    return round(1e6 * each / REPEATS, 2)
