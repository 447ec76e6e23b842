"""Layers of many models at once are the layers of each, and their gradients lie as the weights do."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from jensen.algorithm.stacked_layers import rewrite
from jensen.model.likelihood import Bernoulli

MODELS = 3


def layers(bias, inputs=5, outputs=7):
    """One layer for all, and its tensors of each model."""
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs, bias=bias)
    tensors = {
        name: torch.randn(MODELS, *each.shape).requires_grad_()
        for name, each in layer.named_parameters()
    }
    return layer, tensors


def both(layer, tensors, x):
    """All models' outputs by one call, and by a call of torch's own for each."""
    own = [
        functional_call(layer, {name: each[at] for name, each in tensors.items()}, (x[at],))
        for at in range(MODELS)
    ]
    rewrite(layer)
    together = vmap(lambda one, given: functional_call(layer, one, (given,)))(tensors, x)
    return together, torch.stack(own)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [(5, 7), (7, 5), (1, 1)])
@pytest.mark.parametrize("shape", [(4,), (4, 2)])
def test_outputs_and_gradients_are_those_of_each_model(bias, sizes, shape):
    layer, tensors = layers(bias, *sizes)
    x = torch.randn(MODELS, *shape, sizes[0]).requires_grad_()
    found, expected = both(layer, tensors, x)
    torch.testing.assert_close(found, expected)
    slope = torch.randn_like(expected)
    wanted = [x, *tensors.values()]
    mine = torch.autograd.grad(found, wanted, slope)
    its = torch.autograd.grad(expected, wanted, slope)
    torch.testing.assert_close(mine, its)
    for gradient, value in zip(mine[1:], tensors.values(), strict=True):
        assert gradient.stride() == value.stride()


def test_the_second_derivative_is_there_too():
    layer, tensors = layers(bias=True)
    x = torch.randn(MODELS, 4, 5).requires_grad_()
    penalties = []
    for output in both(layer, tensors, x):
        (slope,) = torch.autograd.grad(output.tanh().sum(), x, create_graph=True)
        penalties.append(torch.autograd.grad(slope.square().sum(), [*tensors.values()]))
    torch.testing.assert_close(*penalties)


@pytest.mark.parametrize("bias", [True, False])
def test_half_precision_is_that_of_each_model(bias):
    layer, tensors = layers(bias)
    x = torch.randn(MODELS, 4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = both(layer, tensors, x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
    mine = torch.autograd.grad(found.float().sum(), [*tensors.values()])
    its = torch.autograd.grad(expected.float().sum(), [*tensors.values()])
    torch.testing.assert_close(mine, its, rtol=2e-2, atol=2e-2)


def test_a_layer_that_the_models_share_is_torch_s():
    layer, _ = layers(bias=True)
    x = torch.randn(MODELS, 4, 5)
    expected = layer(x)
    rewrite(layer)
    torch.testing.assert_close(vmap(layer)(x), expected)


def test_a_layer_with_a_forward_of_somebody_s_own_keeps_it():
    layer, tensors = layers(bias=True)
    layer.forward = lambda x: 2 * nn.functional.linear(x, layer.weight, layer.bias)
    found, expected = both(layer, tensors, torch.randn(MODELS, 4, 5))
    torch.testing.assert_close(found, expected)


def test_rows_of_all_models_have_the_distortion_of_each():
    likelihood = Bernoulli()
    logit = torch.randn(MODELS, 4, 2, 8).requires_grad_()
    x = torch.rand(MODELS, 4, 2, 8)
    expected = torch.stack([likelihood.distortion(*each) for each in zip(logit, x, strict=True)])
    rewrite(likelihood)
    found = vmap(likelihood.distortion)(logit, x)
    torch.testing.assert_close(found, expected)
    slope = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, logit, slope), torch.autograd.grad(expected, logit, slope)
    )
