# ruff: noqa: N803
"""Kernels of our own for convolutions of stride 2, tried: what a step costs without cuDNN's for small images.

A convolution takes a large image to one of half its sides and a transposed convolution takes it back,
and each is the other's slope, so three kernels are all there is: `halved`, `doubled`, and the slopes of
the weight and of the bias (`slopes`). Biases, ReLU and ReLU's slope are computed with them, images lie
channels last, and sums are taken in a fixed order: the same input gives the same digits.

No part of jensen: section `strides` measures them, and whether they become one is for a GPU to say.
With TRITON_INTERPRET=1 they run on a CPU, slowly, where tests compare them with torch's.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any, NamedTuple

import alone  # noqa: F401
import torch
import triton
import triton.language as tl
from torch import Tensor, autograd, nn
from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack

_ON_DEVICE = 264
"""Programs that keep an H200 busy: two for each of its 132 processors."""


class Tiles(NamedTuple):
    """Numbers that one program computes, and what it reads of a sum at a time.

    rows: pixels. columns: channels, or channels of a window. depth: of the sum.
    """

    rows: int
    columns: int
    depth: int
    warps: int = 4
    stages: int = 3


@triton.jit
def _windows(large, row, at, count, height, width, C: tl.constexpr, K: tl.constexpr):
    """What lies under number `at` of the window of a small image's pixel `row`, 0 outside."""
    pixel = row % (height * width)
    y = 2 * (pixel // width) - (K // 2 - 1) + at // (K * C)
    x = 2 * (pixel % width) - (K // 2 - 1) + at // C % K
    inside = (y >= 0) & (y < 2 * height) & (x >= 0) & (x < 2 * width)
    inside = inside & (row < count) & (at < K * K * C)
    image = row // (height * width)
    where = ((image * 2 * height + y) * 2 * width + x) * C + at % C
    return tl.load(large + where, mask=inside, other=0.0)


@triton.jit
def _finish(total, bias, kept, out, where, column, inside, valid,
            BIAS: tl.constexpr, RELU: tl.constexpr, KEPT: tl.constexpr):  # fmt: skip
    """Add the bias, apply ReLU or its slope at `kept`, and write."""
    if BIAS:
        total += tl.load(bias + column, mask=valid, other=0.0).to(tl.float32)[None, :]
    if RELU:
        total = tl.where(total < 0, 0.0, total)
    if KEPT:
        total = tl.where(tl.load(kept + where, mask=inside, other=0.0) > 0, total, 0.0)
    tl.store(out + where, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _halve(large, weight, bias, kept, small, count, height, width,
           CL: tl.constexpr, CS: tl.constexpr, K: tl.constexpr,
           ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
           BIAS: tl.constexpr, RELU: tl.constexpr, KEPT: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    member = tl.program_id(2).to(tl.int64)
    large += member * (count * 4 * CL)
    small += member * (count * CS)
    kept += member * (count * CS)
    weight += member * (K * K * CL * CS)
    bias += member * CS
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for begin in range(0, K * K * CL, DEPTH):
        at = begin + tl.arange(0, DEPTH)
        x = _windows(large, row[:, None], at[None, :], count, height, width, CL, K)
        real = (at[:, None] < K * K * CL) & (column[None, :] < CS)
        w = tl.load(weight + column[None, :] * (K * K * CL) + at[:, None], mask=real, other=0.0)
        total = tl.dot(x, w.to(x.dtype), total, input_precision=PRECISION)
    inside = (row[:, None] < count) & (column[None, :] < CS)
    where = row[:, None] * CS + column[None, :]
    _finish(total, bias, kept, small, where, column, inside, column < CS, BIAS, RELU, KEPT)


@triton.jit
def _double(small, weight, bias, kept, large, count, height, width,
            CL: tl.constexpr, CS: tl.constexpr, K: tl.constexpr,
            ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
            BIAS: tl.constexpr, RELU: tl.constexpr, KEPT: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Large pixels of one parity of y and one of x see the same K / 2 x K / 2 of a window's weights."""
    member = (tl.program_id(2) // 4).to(tl.int64)
    large += member * (count * 4 * CL)
    kept += member * (count * 4 * CL)
    small += member * (count * CS)
    weight += member * (K * K * CL * CS)
    bias += member * CL
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    odd_y = tl.program_id(2) // 2 % 2
    odd_x = tl.program_id(2) % 2
    edge: tl.constexpr = K // 2 - 1
    reach: tl.constexpr = K // 2
    first_i = (odd_y + edge) % 2
    first_j = (odd_x + edge) % 2
    image = row // (height * width)
    base_y = row % (height * width) // width
    base_x = row % width
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for begin in range(0, reach * reach * CS, DEPTH):
        at = begin + tl.arange(0, DEPTH)
        u = at // (reach * CS)
        v = at // CS % reach
        s = at % CS
        y = base_y[:, None] + ((odd_y + edge - first_i) // 2 - u)[None, :]
        x = base_x[:, None] + ((odd_x + edge - first_j) // 2 - v)[None, :]
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        inside = inside & (row[:, None] < count) & (at[None, :] < reach * reach * CS)
        where = ((image[:, None] * height + y) * width + x) * CS + s[None, :]
        values = tl.load(small + where, mask=inside, other=0.0)
        tap = (first_i + 2 * u) * K + first_j + 2 * v
        place = (s[:, None] * (K * K) + tap[:, None]) * CL + column[None, :]
        real = (at[:, None] < reach * reach * CS) & (column[None, :] < CL)
        w = tl.load(weight + place, mask=real, other=0.0)
        total = tl.dot(values, w.to(values.dtype), total, input_precision=PRECISION)
    up_y = 2 * base_y + odd_y
    up_x = 2 * base_x + odd_x
    pixel = (image * 2 * height + up_y) * 2 * width + up_x
    inside = (row[:, None] < count) & (column[None, :] < CL)
    where = pixel[:, None] * CL + column[None, :]
    _finish(total, bias, kept, large, where, column, inside, column < CL, BIAS, RELU, KEPT)


@triton.jit
def _outer(small, large, weights, biases, count, height, width, each, parts,
           CL: tl.constexpr, CS: tl.constexpr, K: tl.constexpr,
           ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
           OF_LARGE: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """A part of the pixels' sum of small x window, and of the sums of one of the two."""
    channel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.program_id(2) % parts
    member = (tl.program_id(2) // parts).to(tl.int64)
    large += member * (count * 4 * CL)
    small += member * (count * CS)
    weights += member * parts * (K * K * CL * CS)
    biases += member * parts * (4 * CL if OF_LARGE else CS)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    sums = tl.zeros((COLUMNS if OF_LARGE else ROWS,), dtype=tl.float32)
    for begin in range(0, each, DEPTH):
        row = part * each + begin + tl.arange(0, DEPTH)
        real = (channel[:, None] < CS) & (row[None, :] < count)
        left = tl.load(small + row[None, :] * CS + channel[:, None], mask=real, other=0.0)
        right = _windows(large, row[:, None], at[None, :], count, height, width, CL, K)
        total = tl.dot(left, right, total, input_precision=PRECISION)
        if OF_LARGE:
            sums += tl.sum(right.to(tl.float32), 0)
        else:
            sums += tl.sum(left.to(tl.float32), 1)
    inside = (channel[:, None] < CS) & (at[None, :] < K * K * CL)
    where = (part * CS + channel[:, None]) * (K * K * CL) + at[None, :]
    tl.store(weights + where, total, mask=inside)
    if OF_LARGE:
        # The 2 x 2 amid a window lie over each large pixel once.
        i = at // (K * CL) - (K // 2 - 1)
        j = at // CL % K - (K // 2 - 1)
        amid = (i >= 0) & (i < 2) & (j >= 0) & (j < 2) & (at < K * K * CL)
        if tl.program_id(0) == 0:
            tl.store(biases + (part * 4 + i * 2 + j) * CL + at % CL, sums, mask=amid)
    else:
        if tl.program_id(1) == 0:
            tl.store(biases + part * CS + channel, sums, mask=channel < CS)


@triton.jit
def _total(weights, biases, of_weight, of_bias, size, few,
           PARTS: tl.constexpr, OF_BIAS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Add the parts up: the weight's in all programs but the last ones, which have the bias's."""
    member = tl.program_id(1).to(tl.int64)
    weights += member * PARTS * size
    of_weight += member * size
    biases += member * OF_BIAS * few
    of_bias += member * few
    blocks = tl.cdiv(size, BLOCK)
    program = tl.program_id(0)
    if program < blocks:
        _add_up(weights, of_weight, program * BLOCK, size, PARTS, BLOCK)
    else:
        _add_up(biases, of_bias, (program - blocks) * BLOCK, few, OF_BIAS, BLOCK)


@triton.jit
def _add_up(parts, out, begin, size, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    at = begin + tl.arange(0, BLOCK)
    where = tl.arange(0, PARTS)[:, None] * size + at[None, :]
    found = tl.load(parts + where, mask=at[None, :] < size, other=0.0)
    tl.store(out + at, tl.sum(found, 0), mask=at < size)


class Shape(NamedTuple):
    """Examples, sides of the small image, channels of both, the window's side, all of one model, and models."""

    batch: int
    height: int
    width: int
    large: int
    small: int
    kernel: int
    members: int = 1

    @property
    def count(self) -> int:
        """Pixels of all small images of a model."""
        return self.batch * self.height * self.width

    @property
    def window(self) -> int:
        """Numbers under a window."""
        return self.kernel * self.kernel * self.large


CHOSEN: dict[tuple[str, Shape], Tiles] = {}
"""Tiles that were measured to be the fastest, by what is computed."""


def tiles_of(of: str, shape: Shape) -> Tiles:
    """Tiles so small that all processors have one, and no smaller."""
    if chosen := CHOSEN.get((of, shape)):
        return chosen
    if of == "slopes":
        return Tiles(_side(shape.small, 32), _side(shape.window, 64), 32)
    channels = shape.small if of == "halved" else shape.large
    columns = _side(channels, 64)
    programs = shape.members * triton.cdiv(channels, columns) * (1 if of == "halved" else 4)
    rows = _side(shape.count * programs // _ON_DEVICE, 128)
    depth = shape.window if of == "halved" else shape.kernel**2 // 4 * shape.small
    return Tiles(rows, columns, _side(depth, 64))


def _side(wanted: int, most: int) -> int:
    """A power of 2 from 16, the least of a product's sides, to `most`."""
    return max(16, min(most, triton.next_power_of_2(max(1, wanted))))


def precision() -> str:
    """TF32 where cuDNN would take it."""
    return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"


def halved(
    large: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    relu: bool = False,
    kept: Tensor | None = None,
    members: int = 1,
    tiles: Tiles | None = None,
) -> Tensor:
    """The convolution of stride 2 that halves both sides, of M models at once.

    Args:
        large: `(M B, C, 2 H, 2 W)`, channels last.
        weight: `(M C', C, k, k)`, channels last.
        bias: `(M C',)`.
        relu: of the sum.
        kept: `(M B, C', H, W)`: where it is not positive the result is 0 (the slope of a ReLU).
        members: M.
        tiles: other ones than `tiles_of`.

    Returns:
        `(M B, C', H, W)`, channels last.
    """
    shape = _shape(large.shape[2] // 2, large.shape[3] // 2, large, weight, members)
    tiles = tiles or tiles_of("halved", shape)
    small = _empty(large, shape.small, shape.height, shape.width)
    grid = triton.cdiv(shape.count, tiles.rows), triton.cdiv(shape.small, tiles.columns), members
    _launch(_halve, grid, (large, weight, bias, kept, small), shape, tiles, relu)
    return small


def doubled(
    small: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    relu: bool = False,
    kept: Tensor | None = None,
    members: int = 1,
    tiles: Tiles | None = None,
) -> Tensor:
    """The transposed convolution of stride 2 that doubles both sides, arguments as of `halved`.

    Args:
        small: `(M B, C, H, W)`.
        weight: `(M C, C', k, k)`.
        bias: `(M C',)`.
        kept: `(M B, C', 2 H, 2 W)`.

    Returns:
        `(M B, C', 2 H, 2 W)`, channels last.
    """
    shape = _shape(*small.shape[2:], small, weight, members)
    tiles = tiles or tiles_of("doubled", shape)
    large = _empty(small, shape.large, 2 * shape.height, 2 * shape.width)
    across = triton.cdiv(shape.large, tiles.columns)
    grid = triton.cdiv(shape.count, tiles.rows), across, 4 * members
    _launch(_double, grid, (small, weight, bias, kept, large), shape, tiles, relu)
    return large


def slopes(
    small: Tensor,
    large: Tensor,
    kernel: int,
    of_large: bool,
    members: int = 1,
    tiles: Tiles | None = None,
) -> tuple[Tensor, Tensor]:
    """The weights' slopes, `(M C, C', k, k)` channels last, and the biases'.

    Args:
        small: `(M B, C, H, W)`, channels last; with the large image one is what the layer was given, and
            the other the slope of what it gave.
        large: `(M B, C', 2 H, 2 W)`, channels last.
        kernel: side of the window.
        of_large: the bias is added to the large image (a transposed convolution).
        members: M.
        tiles: other ones than `tiles_of`.
    """
    batch = len(small) // members
    shape = Shape(batch, *small.shape[2:], large.shape[1], small.shape[1], kernel, members)
    tiles = tiles or tiles_of("slopes", shape)
    grid = triton.cdiv(shape.small, tiles.rows), triton.cdiv(shape.window, tiles.columns)
    most = min(_ON_DEVICE // (grid[0] * grid[1] * members), shape.count // tiles.depth)
    parts = 1 << max(1, most).bit_length() - 1
    each = triton.cdiv(triton.cdiv(shape.count, parts), tiles.depth) * tiles.depth
    size, few = shape.small * shape.window, shape.large if of_large else shape.small
    of_bias = parts * (4 if of_large else 1)
    weights = small.new_empty(members, parts, size, dtype=torch.float32)
    biases = small.new_empty(members, of_bias, few, dtype=torch.float32)
    _outer[(*grid, parts * members)](
        small, large, weights, biases, shape.count, shape.height, shape.width, each, parts,
        CL=shape.large, CS=shape.small, K=kernel,
        ROWS=tiles.rows, COLUMNS=tiles.columns, DEPTH=tiles.depth,
        OF_LARGE=of_large, PRECISION=precision(),
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    weight, bias = weights.new_empty(members * size), weights.new_empty(members * few)
    block = max(16, 4096 // max(parts, of_bias))
    programs = triton.cdiv(size, block) + triton.cdiv(few, block)
    _total[programs, members](weights, biases, weight, bias, size, few,
                              PARTS=parts, OF_BIAS=of_bias, BLOCK=block)  # fmt: skip
    return weight.view(-1, kernel, kernel, shape.large).permute(0, 3, 1, 2), bias


def _shape(height: int, width: int, image: Tensor, weight: Tensor, members: int) -> Shape:
    """As the sides of the small image, an image, and the weights of all models have it."""
    small, large, kernel, _ = weight.shape
    return Shape(len(image) // members, height, width, large, small // members, kernel, members)


def _empty(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """An image of the same batch and dtype, channels last."""
    return like.new_empty(len(like), height, width, channels).permute(0, 3, 1, 2)


def _launch(
    kernel: Any,
    grid: tuple[int, ...],
    tensors: tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor],
    shape: Shape,
    tiles: Tiles,
    relu: bool,
) -> None:
    image, weight, bias, kept, out = tensors
    kernel[grid](
        image, weight, weight if bias is None else bias, image if kept is None else kept, out,
        shape.count, shape.height, shape.width, CL=shape.large, CS=shape.small, K=shape.kernel,
        ROWS=tiles.rows, COLUMNS=tiles.columns, DEPTH=tiles.depth,
        BIAS=bias is not None, RELU=relu, KEPT=kept is not None, PRECISION=precision(),
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip


class Chain(nn.Module):
    """Convolutions that follow one another, with a ReLU after each, or transposed ones, with a ReLU between.

    Args:
        layers: `nn.Conv2d` or `nn.ConvTranspose2d`, of stride 2 and the padding that halves exactly; their
            parameters are used.
        beside: streams on which weights' slopes are computed, beside the chain of the others; 0 for none.
    """

    def __init__(self, layers: Sequence[nn.Conv2d | nn.ConvTranspose2d], beside: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        up = isinstance(layers[0], nn.ConvTranspose2d)
        self.way = Way(up, relu=not up, beside=beside)

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        settings = [each for layer in self.layers for each in (layer.weight, layer.bias)]
        return chained(x, self.way, *settings)


class Way(NamedTuple):
    """Whether layers double, whether a ReLU follows the last, streams for weights' slopes, and models."""

    up: bool
    relu: bool = False
    beside: int = 0
    members: int = 1


def chained(x: Tensor, way: Way, *settings: Tensor) -> Tensor:
    """Layers of M models after one another, by the weight and the bias of each, as `halved` has them."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        x = x.to(torch.get_autocast_dtype(kind))
    with torch.autocast(kind, enabled=False):
        found: Tensor = _Chain.apply(x, way, *settings)  # type: ignore[no-untyped-call]
    return found


class _Chain(autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, way: Way, *settings: Tensor) -> Tensor:  # type: ignore[override]
        weights = [_last(weight) for weight in settings[::2]]
        images = [_last(x)]
        apply = doubled if way.up else halved
        for number, (weight, bias) in enumerate(zip(weights, settings[1::2], strict=True), 1):
            relu = way.relu or number < len(weights)
            image = apply(images[-1], weight, bias, relu=relu, members=way.members)
            images.append(image)
        ctx.way = way
        ctx.save_for_backward(*weights, *images)
        return images[-1]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:  # type: ignore[override]
        way: Way = ctx.way
        saved = ctx.saved_tensors
        weights, images = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        slope = _last(slope)
        if way.relu:
            slope = slope * (images[-1] > 0)
        back = halved if way.up else doubled
        found: list[Tensor] = []
        with _Aside(slope.device, way) as aside:
            for number in reversed(range(len(weights))):
                aside(found, images[number], slope, weights[number].shape[-1])
                if number or ctx.needs_input_grad[0]:
                    kept = images[number] if number else None
                    slope = back(slope, weights[number], kept=kept, members=way.members)
        own = slope if ctx.needs_input_grad[0] else None
        ordered = [found[2 * at + part] for at in reversed(range(len(weights))) for part in (0, 1)]
        return own, None, *ordered


class _Aside:
    """Calls `slopes` on streams that take turns, and lets the step's stream wait for all at the end."""

    def __init__(self, device: torch.device, way: Way) -> None:
        count = way.beside if device.type == "cuda" else 0
        self.streams = [torch.cuda.Stream(device) for _ in range(count)]  # type: ignore[no-untyped-call]
        self.way = way
        self.held: list[Tensor] = []

    def __enter__(self) -> Callable[..., None]:
        return self.call

    def __exit__(self, *error: object) -> None:
        for stream in self.streams:
            torch.cuda.current_stream().wait_stream(stream)
        self.held.clear()

    def call(self, found: list[Tensor], given: Tensor, slope: Tensor, kernel: int) -> None:
        """Add a layer's slopes to those found, by what it was given and the slope of what it gave."""
        small, large = (given, slope) if self.way.up else (slope, given)
        if not self.streams:
            found += slopes(small, large, kernel, self.way.up, self.way.members)
            return
        self.held += small, large  # their memory is not given away before the end
        stream = self.streams[len(found) // 2 % len(self.streams)]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            found += slopes(small, large, kernel, self.way.up, self.way.members)


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def strided(part: nn.Sequential, beside: int = 0) -> nn.Sequential:
    """The same layers, of the same parameters, with chains in the place of runs of convolutions."""
    layers: list[nn.Module] = []
    run: list[nn.Conv2d | nn.ConvTranspose2d] = []
    for layer in part:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            run.append(layer)
        elif not (run and isinstance(layer, nn.ReLU)):
            layers += [Chain(run, beside)] if run else []
            run = []
            layers.append(layer)
    return nn.Sequential(*layers, *([Chain(run, beside)] if run else []))


@contextmanager
def tried(beside: int = 0) -> Iterator[None]:
    """jensen's convolutional networks with chains, where they are made within it."""
    from jensen.model import conv

    encoder, decoder = conv.ConvEncoder, conv.ConvDecoder
    ahead, back = encoder.forward, decoder.forward

    def encode(self: Any, x: Tensor) -> Any:
        from jensen.family.gaussian import Gaussian

        return Gaussian(*strided(self.body, beside)(x).chunk(2, dim=-1))

    def decode(self: Any, z: Tensor) -> Tensor:
        found: Tensor = strided(self, beside)(z)
        return found

    encoder.forward, decoder.forward = encode, decode  # type: ignore[method-assign]
    try:
        yield
    finally:
        encoder.forward, decoder.forward = ahead, back  # type: ignore[method-assign]


@contextmanager
def stacked() -> Iterator[None]:
    """jensen's stacks that are made within it, with these kernels for the convolutions of all models."""
    from jensen.algorithm import stacked_layers

    before = stacked_layers.rewrite

    def rewrite(*modules: nn.Module) -> None:
        before(*modules)
        for module in modules:
            for part in module.modules():
                if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                    part.forward = MethodType(_of_all, part)  # type: ignore[method-assign]

    users = [
        module
        for name, module in sys.modules.items()
        if name.startswith("jensen.") and getattr(module, "rewrite", None) is before
    ]
    for module in users:
        module.rewrite = rewrite  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in users:
            module.rewrite = before  # type: ignore[attr-defined]


def _of_all(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """A layer of the models of a stack, called as that of one."""
    from jensen.algorithm.stacked_layers import _all, _one

    images, weight, bias = _all(x), _all(layer.weight), _all(layer.bias)
    with temporarily_pop_interpreter_stack():
        members = len(weight)
        way = Way(isinstance(layer, nn.ConvTranspose2d), members=members)
        found = chained(images.flatten(0, 1), way, weight.flatten(0, 1), bias.flatten())
        found = found.unflatten(0, (members, -1))
    return _one(found, x)
