"""Convolutions of many models as matrix products, against torch's of each model."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d

from jensen.algorithm.stacked_convolutions import convolved, takes, transposed

SHAPES = [(4, 2, 1, 16), (2, 2, 0, 8), (3, 1, 1, 9), (4, 2, 1, 7), (5, 1, 0, 9), (4, 4, 0, 9)]
"""Side of the kernel, stride, padding, and height."""


def drawn(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("side", "stride", "padding", "height"), SHAPES)
@pytest.mark.parametrize("back", [False, True])
def test_a_convolution_of_all_is_that_of_each_with_its_gradients(
    side, stride, padding, height, back
):
    x = drawn(3, 2, 4, height, height + 2)
    weight = drawn(3, 4, 5, side, side) if back else drawn(3, 5, 4, side, side)
    bias = drawn(3, 5)
    ours, torchs = (transposed, conv_transpose2d) if back else (convolved, conv2d)
    found = ours(x, weight, bias, stride, padding)
    expected = torch.stack(
        [torchs(*each, stride, padding) for each in zip(x, weight, bias, strict=True)]
    )
    torch.testing.assert_close(found, expected)
    gradient = drawn(*found.shape).detach()
    torch.testing.assert_close(
        torch.autograd.grad(found, (x, weight, bias), gradient),
        torch.autograd.grad(expected, (x, weight, bias), gradient),
    )


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 4, 3, stride=2),
        nn.Conv2d(2, 4, 4, 2, dilation=2),
        nn.Conv2d(2, 4, 4, 2, groups=2),
        nn.Conv2d(2, 4, 4, 2, 1, padding_mode="circular"),
        nn.Conv2d(2, 4, 3, padding="same"),
        nn.Conv2d(2, 4, (4, 2), 2),
        nn.ConvTranspose2d(2, 4, 4, 2, output_padding=1),
        nn.Conv1d(2, 4, 4, 2),
    ],
)
def test_other_convolutions_are_left_to_torch(layer):
    assert not takes(layer)


def test_those_of_the_networks_are_taken():
    assert takes(nn.Conv2d(2, 4, 4, 2, 1))
    assert takes(nn.ConvTranspose2d(2, 4, 4, 2, 1))
