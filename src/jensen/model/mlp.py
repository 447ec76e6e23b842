"""Fully connected encoder and decoder."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from jensen.base.errors import check_choice, check_count, check_counts
from jensen.family.gaussian import Gaussian

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "softplus": nn.Softplus}


def _layers(widths: Sequence[int], activation: str) -> list[nn.Module]:
    check_choice("activation", activation, tuple(ACTIVATIONS))
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    return layers


def _check(x_shape: Sequence[int], latent_dim: int, hidden: Sequence[int]) -> None:
    check_counts("x_shape", x_shape)
    check_count("latent_dim", latent_dim)
    check_counts("hidden", hidden)


class MLPEncoder(nn.Module):
    """`(B, *event)` through `hidden` layers to the mean and log_var of `(B, D)`."""

    def __init__(
        self,
        x_shape: Sequence[int],
        latent_dim: int,
        hidden: Sequence[int] = (400,),
        activation: str = "relu",
    ) -> None:
        super().__init__()
        _check(x_shape, latent_dim, hidden)
        self.x_shape = tuple(x_shape)
        self.latent_dim = latent_dim
        widths = [math.prod(x_shape), *hidden]
        self.body = nn.Sequential(
            nn.Flatten(), *_layers(widths, activation), nn.Linear(widths[-1], 2 * latent_dim)
        )

    def forward(self, x: Tensor) -> Gaussian:
        return Gaussian(*self.body(x).chunk(2, dim=-1))


class MLPDecoder(nn.Sequential):
    """`(B, D)` through `hidden` layers, the encoder's in reverse, to `(B, *event)`."""

    def __init__(
        self,
        x_shape: Sequence[int],
        latent_dim: int,
        hidden: Sequence[int] = (400,),
        activation: str = "relu",
    ) -> None:
        _check(x_shape, latent_dim, hidden)
        widths = [latent_dim, *reversed(hidden)]
        layers = _layers(widths, activation)
        super().__init__(
            *layers, nn.Linear(widths[-1], math.prod(x_shape)), nn.Unflatten(1, tuple(x_shape))
        )
        self.x_shape = tuple(x_shape)
        self.latent_dim = latent_dim
