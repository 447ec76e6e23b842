"""Convolutional encoder and decoder: four halvings, any image whose sides are multiples of 16."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from jensen.base.errors import InputError, check_count, check_counts, check_list
from jensen.family.gaussian import Gaussian

HALVINGS = 4

FORMAT = torch.channels_last
"""The order of kernels in memory, which their outputs take on: on a CPU these convolutions take two
thirds of the time that they take in torch's own order.
"""


def _corner(
    x_shape: Sequence[int], channels: Sequence[int], kernels: Sequence[int]
) -> tuple[int, int]:
    """Height and width after the halvings."""
    check_counts("x_shape", x_shape)
    check_counts("channels", channels)
    check_list("kernels", kernels)
    if len(channels) != HALVINGS or len(kernels) != HALVINGS:
        raise InputError(
            f"channels is {list(channels)} and kernels {list(kernels)}: expected {HALVINGS} of each"
        )
    for kernel in kernels:
        if kernel not in (2, 4, 6) or isinstance(kernel, float):
            raise InputError(
                f"kernels is {list(kernels)}: expected each to be 2, 4 or 6, so that a side is"
                " halved exactly"
            )
    factor = 2**HALVINGS
    if len(x_shape) != 3 or x_shape[1] % factor or x_shape[2] % factor:
        raise InputError(
            f"x_shape is {list(x_shape)}: expected [channels, height, width] with sides that are"
            f" multiples of {factor} for a convolutional model; pad or resize the images (as"
            " data=mnist_32 does), or use model=mlp"
        )
    return x_shape[1] // factor, x_shape[2] // factor


def _dense(widths: Sequence[int]) -> list[nn.Module]:
    return [
        layer
        for before, after in pairwise(widths)
        for layer in (nn.Linear(before, after), nn.ReLU())
    ]


class ConvEncoder(nn.Module):
    """`(B, C, H, W)` to the mean and log_var of `(B, D)`.

    Each convolution has stride 2 and halves the sides; `hidden` fully connected layers follow.
    """

    def __init__(
        self,
        x_shape: Sequence[int],
        latent_dim: int,
        channels: Sequence[int],
        kernels: Sequence[int],
        hidden: Sequence[int],
    ) -> None:
        super().__init__()
        check_count("latent_dim", latent_dim)
        check_counts("hidden", hidden)
        corner = _corner(x_shape, channels, kernels)
        self.x_shape = tuple(x_shape)
        self.latent_dim = latent_dim
        layers: list[nn.Module] = []
        for before, after, kernel in zip([x_shape[0], *channels], channels, kernels, strict=False):
            layers += [
                nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2 - 1),
                nn.ReLU(),
            ]
        widths = [channels[-1] * math.prod(corner), *hidden]
        self.body = nn.Sequential(
            *layers, nn.Flatten(), *_dense(widths), nn.Linear(widths[-1], 2 * latent_dim)
        )
        self.to(memory_format=FORMAT)

    def forward(self, x: Tensor) -> Gaussian:
        return Gaussian(*self.body(x).chunk(2, dim=-1))


class ConvDecoder(nn.Sequential):
    """`(B, D)` to `(B, C, H, W)`: `hidden` fully connected layers, then transposed convolutions
    that double the sides.

    channels: of the input of each transposed convolution.
    """

    def __init__(
        self,
        x_shape: Sequence[int],
        latent_dim: int,
        channels: Sequence[int],
        kernels: Sequence[int],
        hidden: Sequence[int],
    ) -> None:
        check_count("latent_dim", latent_dim)
        check_counts("hidden", hidden)
        corner = _corner(x_shape, channels, kernels)
        layers = _dense([latent_dim, *hidden, channels[0] * math.prod(corner)])
        layers.append(nn.Unflatten(1, (channels[0], *corner)))
        for before, after, kernel in zip(
            channels, [*channels[1:], x_shape[0]], kernels, strict=True
        ):
            layers += [
                nn.ConvTranspose2d(before, after, kernel, stride=2, padding=kernel // 2 - 1),
                nn.ReLU(),
            ]
        super().__init__(*layers[:-1])
        self.to(memory_format=FORMAT)
        self.x_shape = tuple(x_shape)
        self.latent_dim = latent_dim
