"""p(x|z) of images in which each pixel is told those before it: a PixelCNN."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from jensen.base.errors import InputError, check_count, check_counts
from jensen.base.random import fold
from jensen.model.autoregressive import check_binary
from jensen.model.choice import check_choosing, choose, sharpened


class PixelCNN(nn.Module):
    """Gated masked convolutions over images (van den Oord et al. 2016, arXiv 1606.05328): a pixel is
    told those above it, and to its left in its row; all its channels at once. Two stacks, so that
    none of those is out of sight within `reach` = layers x (kernel - 1) / 2 + 1 rows or columns.

    Pixels are `levels` grey levels of [0, 1]; of two it is the decoder's number plus a function.

    Args:
        x_shape: of an image. channels: of features. layers, kernel: an odd side. levels: of grey.
    """

    mean_is_drawn = True

    def __init__(
        self,
        x_shape: Sequence[int],
        channels: int = 32,
        layers: int = 4,
        kernel: int = 3,
        levels: int = 2,
    ) -> None:
        super().__init__()
        check_counts("x_shape", x_shape)
        if len(x_shape) != 3:
            raise InputError(
                f"model/likelihood=pixelcnn takes images, and data.x_shape is {list(x_shape)}:"
                " expected [channels, height, width]; use model/likelihood=made"
            )
        for name, count in (("channels", channels), ("layers", layers)):
            check_count(name, count)
        check_count("levels", levels, least=2)
        check_count("kernel", kernel, least=3)
        if kernel % 2 == 0:
            raise InputError(f"kernel is {kernel}: expected an odd number; take {kernel + 1}")
        self.x_shape = tuple(x_shape)
        self.levels = levels
        self.reach = layers * (kernel // 2) + 1
        self.blocks = nn.ModuleList(
            _Gated(x_shape[0] if not place else channels, channels, kernel, x_shape[0], not place)
            for place in range(layers)
        )
        self.head = nn.Conv2d(channels, x_shape[0] * levels, 1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def logits(self, output: Tensor, x: Tensor) -> Tensor:
        """`(B, C, H, W)` each to `(B, C, H, W, levels)`: a pixel of all before it."""
        condition = output.to(self.head.weight.dtype)
        down = across = 2 * x.to(condition) - 1
        for block in self.blocks:
            down, across = block(down, across, condition)
        return self._told(across, condition)

    def _told(self, across: Tensor, condition: Tensor) -> Tensor:
        """The logits of the last layer's features."""
        found = self.head(across.relu()).unflatten(1, (-1, self.levels)).movedim(2, -1)
        if self.levels > 2:
            return found
        return torch.stack([found[..., 0], found[..., 1] + condition], -1)

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        log_p = self.logits(output, x).log_softmax(-1)
        level = (x * (self.levels - 1)).round().long().unsqueeze(-1)
        return -log_p.gather(-1, level).flatten(1).sum(1)

    def mean(self, output: Tensor) -> Tensor:
        """A sample, `(B, C, H, W)`, the same every time."""
        return self.sample(output, 0, torch.arange(len(output), device=output.device))

    @torch.no_grad()
    def sample(
        self,
        output: Tensor,
        key: int,
        index: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Images `(B, C, H, W)`, a pixel after another. What was computed of earlier ones is kept:
        a pixel costs a column of the horizontal stack, a row one of the vertical stack.
        """
        check_choosing(temperature, top_k, top_p, self.levels)
        condition = output.to(self.head.weight.dtype)
        *_, height, width = condition.shape
        blocks = [cast(_Gated, block) for block in self.blocks]
        told = [block.told(condition).chunk(2, 1) for block in blocks]
        channels = [condition.shape[1], *[block.out.out_channels for block in blocks]]
        side = blocks[0].side
        count = len(condition)
        # inputs of each layer, padded: all rows of the one stack, this row of the other
        down = [condition.new_zeros(count, c, height + side, width + 2 * side) for c in channels]
        high = [condition.new_zeros(count, 2 * c, 1, width) for c in channels[1:]]
        x = torch.zeros_like(condition)
        for row in range(height):
            over = [
                block.down(part) + second[:, :, row : row + 1]
                for block, part, (_, second) in zip(blocks, high, told, strict=True)
            ]
            across = [condition.new_zeros(count, c, 1, width + side) for c in channels]
            for column in range(width):
                for layer, block in enumerate(blocks):
                    end = column + side + (not block.first)
                    beside = block.beside(across[layer][..., column:end])
                    here = block.out(_gate(beside + over[layer][..., column : column + 1]))
                    at = column + side
                    before = 0 if block.first else across[layer][..., at : at + 1]
                    across[layer + 1][..., at : at + 1] = before + here
                pixel = (..., slice(row, row + 1), slice(column, column + 1))
                last = across[-1][..., column + side : column + side + 1]
                logits = self._told(last, condition[pixel])
                log_p = sharpened(logits, temperature, top_k, top_p)
                drawn = choose(log_p, fold(key, row, column), index)
                x[pixel] = drawn.to(x) / (self.levels - 1)
                across[0][..., column + side] = 2 * x[..., row, column, None] - 1
            down[0][..., row + side, side : side + width] = 2 * x[..., row, :] - 1
            for layer, block in enumerate(blocks):
                high[layer] = block.high(down[layer][..., row : row + side + 1, :])
                first = told[layer][0][:, :, row : row + 1]
                down[layer + 1][..., row + side : row + side + 1, side : side + width] = _gate(
                    high[layer] + first
                )
        return x.to(output.dtype)

    def check(self, x: Tensor) -> None:
        if self.levels == 2:
            check_binary("pixelcnn", x)
            return
        level = x.double() * (self.levels - 1)
        if bool((~((level - level.round()).abs() < 1e-3) | (x < 0) | (x > 1)).any()):
            raise InputError(
                f"model/likelihood=pixelcnn takes {self.levels} levels in [0, 1] but the data hold"
                " others: set model.likelihood.levels"
            )


class _Gated(nn.Module):
    """One layer of both stacks: rows above by `down`, this row by `across`."""

    def __init__(self, channels: int, width: int, kernel: int, condition: int, first: bool) -> None:
        super().__init__()
        self.side = kernel // 2
        self.first = first
        self.above = nn.Conv2d(channels, 2 * width, (self.side + 1, kernel))
        self.left = nn.Conv2d(channels, 2 * width, (1, self.side + (not first)))
        self.down = nn.Conv2d(2 * width, 2 * width, 1)
        self.told = nn.Conv2d(condition, 4 * width, 1, bias=False)
        self.out = nn.Conv2d(width, width, 1)

    def high(self, down: Tensor) -> Tensor:
        """The vertical stack before its gate, of a `down` that is padded."""
        return conv2d(down, self.above.weight, self.above.bias)

    def beside(self, across: Tensor) -> Tensor:
        """The horizontal stack's own part, of an `across` that is padded."""
        return conv2d(across, self.left.weight, self.left.bias)

    def forward(self, down: Tensor, across: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """`down` has seen its own row and those above, `across` what is before its pixel."""
        side = self.side
        first, second = self.told(condition).chunk(2, 1)
        high = self.high(pad(down, (side, side, side, 0)))
        # a row further down, so that a pixel is told of rows above it alone
        over = self.down(pad(high, (0, 0, 1, 0))[..., :-1, :])
        left = pad(across, (side, 0, 0, 0))
        beside = self.beside(left[..., :-1] if self.first else left)
        here = self.out(_gate(beside + over + second))
        return _gate(high + first), here if self.first else across + here


def _gate(both: Tensor) -> Tensor:
    value, gate = both.chunk(2, 1)
    return value.tanh() * gate.sigmoid()
