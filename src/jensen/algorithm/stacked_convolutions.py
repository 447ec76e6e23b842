"""Convolutions of many models at once, by two matrix products in the place of a grouped one.

A kernel of side k = K s with stride s is a kernel of side K with stride 1 on the input whose pixels
were gathered into blocks of s x s, each a pixel of s^2 times as many channels. That one is the sum of
K^2 products with shifted inputs: one product for all of them, whose K^2 parts are added where they
belong. Nothing is copied s^2 K^2 times, as the columns of the usual product are, and the product is
one `bmm` over the models, where a grouped convolution of cuDNN takes its groups almost one by one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


def takes(layer: nn.Module) -> bool:
    """Tell whether a layer is one whose convolution can be computed so."""
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) or isinstance(layer.padding, str):
        return False
    plain = layer.groups == 1 and layer.padding_mode == "zeros" and {*layer.dilation} == {1}
    square = len({*layer.kernel_size}) == len({*layer.stride}) == len({*layer.padding}) == 1
    whole = layer.kernel_size[0] % layer.stride[0] == 0
    return plain and square and whole and {*getattr(layer, "output_padding", (0,))} == {0}


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """`conv2d` of each model: x `(M, B, C, H, W)`, weight `(M, O, C, k, k)`, bias `(M, O)` to `(M,
    B, O, h, w)`.

    >>> x, weight, bias = torch.randn(3, 2, 4, 8, 8), torch.randn(3, 5, 4, 4, 4), torch.randn(3, 5)
    >>> one = torch.nn.functional.conv2d(x[1], weight[1], bias[1], stride=2, padding=1)
    >>> torch.allclose(convolved(x, weight, bias, 2, 1)[1], one, atol=1e-4)
    True
    """
    models, out, _, side, _ = weight.shape
    taps = side // stride
    batch = x.shape[1]
    size = [(length + 2 * padding - side) // stride + 1 for length in x.shape[3:]]
    blocks = _blocks(x.transpose(1, 2), stride, padding, [each + taps - 1 for each in size])
    products = torch.bmm(_taps(weight, stride), blocks.flatten(2))
    parts = products.view(models, taps * taps, out, batch, *blocks.shape[3:])
    found = _added(parts, taps, size)
    if bias is not None:
        found = found + bias[:, :, None, None, None]
    return found.transpose(1, 2)


def transposed(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """`conv_transpose2d` of each model: x `(M, B, C, h, w)`, weight `(M, C, O, k, k)`, bias `(M,
    O)` to `(M, B, O, H, W)`.
    """
    models, _, out, side, _ = weight.shape
    taps = side // stride
    batch = x.shape[1]
    size = [(length - 1) * stride - 2 * padding + side for length in x.shape[3:]]
    placed = _placed(x.transpose(1, 2), taps)
    products = torch.bmm(_taps(weight, stride).mT, placed.flatten(3).flatten(1, 2))
    height, width = placed.shape[4:]
    blocks = products.view(models, out, stride, stride, batch, height, width)
    whole = blocks.permute(0, 1, 4, 5, 2, 6, 3).reshape(
        models, out, batch, height * stride, width * stride
    )
    found = whole[..., padding : padding + size[0], padding : padding + size[1]]
    if bias is not None:
        found = found + bias[:, :, None, None, None]
    return found.transpose(1, 2)


def _taps(weight: Tensor, stride: int) -> Tensor:
    """`(M, O, C, k, k)` as `(M, K K O, C s s)`: a row for each tap and output channel."""
    models, out, channels, side, _ = weight.shape
    taps = side // stride
    split = weight.view(models, out, channels, taps, stride, taps, stride)
    return split.permute(0, 3, 5, 1, 2, 4, 6).reshape(
        models, taps * taps * out, channels * stride * stride
    )


def _blocks(x: Tensor, stride: int, padding: int, size: Sequence[int]) -> Tensor:
    """x `(M, C, B, H, W)` as blocks of pixels `(M, C s s, B, *size)`, padded or cut to fill them."""
    models, channels, batch, height, width = x.shape
    after = [
        each * stride - length - padding for each, length in zip(size, (height, width), strict=True)
    ]
    padded = pad(x, (padding, after[1], padding, after[0]))
    split = padded.view(models, channels, batch, size[0], stride, size[1], stride)
    return split.permute(0, 1, 4, 6, 2, 3, 5).reshape(
        models, channels * stride * stride, batch, *size
    )


def _added(parts: Tensor, taps: int, size: Sequence[int]) -> Tensor:
    """The sum of the shifted parts `(M, K K, O, B, h + K - 1, w + K - 1)`: `(M, O, B, h, w)`."""
    total: Tensor | None = None
    for place, part in enumerate(parts.unbind(1)):
        down, along = divmod(place, taps)
        shifted = part[..., down : down + size[0], along : along + size[1]]
        total = shifted if total is None else total + shifted
    assert total is not None
    return total


def _placed(x: Tensor, taps: int) -> Tensor:
    """x `(M, C, B, h, w)` at each shift: `(M, K K, C, B, h + K - 1, w + K - 1)`, zero elsewhere."""
    most = taps - 1
    return torch.stack(
        [
            pad(x, (along, most - along, down, most - down))
            for down in range(taps)
            for along in range(taps)
        ],
        1,
    )
