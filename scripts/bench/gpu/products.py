"""Convolutions of stride 2 as products of matrices, tried: what cuDNN's own kernels for small images cost.

A convolution gathers the windows of its input into rows, and one product makes all outputs. Its adjoint, a
transposed convolution, gathers windows of 2 x 2 (for kernels of 4 x 4), and one product makes the four
outputs between them; to few channels it multiplies first, and sums. Each is the other's slope. Memory
holds channels last throughout.

No part of jensen. `kernels` measures it, compiled, since gathering is a kernel for each slice otherwise.
"""

from collections.abc import Sequence
from typing import Any

import alone  # noqa: F401
import torch
from torch import Tensor, autograd, nn
from torch.nn import functional


def as_products(part: nn.Sequential) -> nn.Sequential:
    """The same layers, of the same parameters, with products in the place of convolutions."""
    layers: list[nn.Module] = []
    last = False
    for layer in part:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            if not last:
                layers.append(Turned(0, 2, 3, 1))
            layers.append(Product(layer))
            last = True
        elif isinstance(layer, nn.Flatten):
            layers += [Turned(0, 3, 1, 2), layer]
            last = False
        else:
            layers.append(layer)
    return nn.Sequential(*layers, *([Turned(0, 3, 1, 2)] if last else []))


class Turned(nn.Module):
    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


class Product(nn.Module):
    """A convolution, or a transposed one, of stride 2 and a padding that halves, or doubles, exactly."""

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.weight = layer.weight
        self.bias = layer.bias
        self.transposed = isinstance(layer, nn.ConvTranspose2d)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` to `(B, H / 2, W / 2, C')`, or `(B, 2 H, 2 W, C')`."""
        half = torch.is_autocast_enabled(x.device.type)
        kind = torch.get_autocast_dtype(x.device.type) if half else x.dtype
        with torch.autocast(x.device.type, enabled=False):
            apply = _Doubling.apply if self.transposed else _Halving.apply
            found: Tensor = apply(x.to(kind), self.weight.to(kind))  # type: ignore[no-untyped-call]
            return found if self.bias is None else found + self.bias.to(kind)


def rows(x: Tensor, kernel: int) -> Tensor:
    """All windows of a kernel, each a row: `(B, H, W, C)` to `(B H/2 W/2, k k C)`."""
    _, height, width, channels = x.shape
    edge = kernel // 2 - 1
    padded = functional.pad(x, (0, 0, edge, edge, edge, edge))
    windows = [
        padded[:, i : i + height : 2, j : j + width : 2]
        for i in range(kernel)
        for j in range(kernel)
    ]
    return torch.cat(windows, -1).reshape(-1, kernel * kernel * channels)


def halved(windows: Tensor, weight: Tensor, shape: Sequence[int]) -> Tensor:
    """The convolution of `rows`, with a weight `(C', C, k, k)`, to `(B, H/2, W/2, C')`."""
    matrix = weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])
    return (windows @ matrix).view(shape[0], shape[1] // 2, shape[2] // 2, -1)


def doubled(x: Tensor, weight: Tensor) -> Tensor:
    """The adjoint: `(B, H, W, C)` to `(B, 2 H, 2 W, C')` by a weight `(C, C', k, k)`."""
    batch, height, width, channels = x.shape
    out, kernel = weight.shape[1], weight.shape[-1]
    reach = kernel // 2
    if kernel * kernel * out < reach * reach * channels:
        matrix = weight.permute(0, 2, 3, 1).reshape(channels, -1)
        each = (x.reshape(-1, channels) @ matrix).view(
            batch, height, width, reach, 2, reach, 2, out
        )
        total = sum(
            functional.pad(
                each[:, :, :, i, :, j],
                (0, 0, 0, 0, 0, 0, j, reach - 1 - j, i, reach - 1 - i),
            )
            for i in range(reach)
            for j in range(reach)
        )
    else:
        edge = reach - 1
        padded = functional.pad(x, (0, 0, edge, edge, edge, edge))
        windows = [
            padded[:, edge - i : padded.shape[1] - i, edge - j : padded.shape[2] - j]
            for i in range(reach)
            for j in range(reach)
        ]
        gathered = torch.cat(windows, -1).reshape(-1, reach * reach * channels)
        matrix = weight.view(channels, out, reach, 2, reach, 2).permute(2, 4, 0, 3, 5, 1)
        product = gathered @ matrix.reshape(reach * reach * channels, 4 * out)
        total = product.view(batch, height + edge, width + edge, 2, 2, out)
    # In twos, with `edge` of them cut on either side in all.
    whole = total.permute(0, 1, 3, 2, 4, 5).reshape(
        batch, 2 * (height + reach - 1), 2 * (width + reach - 1), out
    )
    cut = reach - 1
    return whole[:, cut : cut + 2 * height, cut : cut + 2 * width]


class _Halving(autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        windows = rows(x, weight.shape[-1])
        ctx.save_for_backward(windows, weight)
        return halved(windows, weight, x.shape)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:  # type: ignore[override]
        windows, weight = ctx.saved_tensors
        of_x = doubled(slope, weight) if ctx.needs_input_grad[0] else None
        matrix = windows.t() @ slope.reshape(-1, slope.shape[-1])
        kernel = weight.shape[-1]
        of_weight = matrix.view(kernel, kernel, weight.shape[1], -1).permute(3, 2, 0, 1)
        return of_x, of_weight


class _Doubling(autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        return doubled(x, weight)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        kernel = weight.shape[-1]
        windows = rows(slope, kernel)
        of_x = halved(windows, weight, slope.shape) if ctx.needs_input_grad[0] else None
        matrix = windows.t() @ x.reshape(-1, x.shape[-1])
        of_weight = matrix.view(kernel, kernel, weight.shape[1], -1).permute(3, 2, 0, 1)
        return of_x, of_weight
