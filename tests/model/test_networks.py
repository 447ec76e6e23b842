"""Encoders and decoders: shapes, layers counted by hand, and what is refused."""

import math

import pytest
import torch
from torch import nn

from jensen.base.errors import InputError
from jensen.model.conv import ConvDecoder, ConvEncoder
from jensen.model.linear import LinearDecoder, LinearEncoder
from jensen.model.mlp import MLPDecoder, MLPEncoder

CONV = {"channels": (4, 4, 6, 6), "kernels": (4, 4, 2, 2), "hidden": (8,)}
LOCATELLO_ENCODER = {"channels": (32, 32, 64, 64), "kernels": (4, 4, 2, 2), "hidden": (256,)}
LOCATELLO_DECODER = {"channels": (64, 64, 32, 32), "kernels": (4, 4, 4, 4), "hidden": (256,)}
BURGESS = {"channels": (32, 32, 32, 32), "kernels": (4, 4, 4, 4), "hidden": (256, 256)}
PAIRS = {
    "linear": (LinearEncoder, LinearDecoder, {}),
    "mlp": (MLPEncoder, MLPDecoder, {"hidden": (7, 5)}),
    "mlp_without_hidden": (MLPEncoder, MLPDecoder, {"hidden": ()}),
    "conv": (ConvEncoder, ConvDecoder, CONV),
    "conv_without_hidden": (ConvEncoder, ConvDecoder, CONV | {"hidden": ()}),
}
NETWORKS = [(network, options) for *pair, options in PAIRS.values() for network in pair]


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def outputs(network, kind, x):
    """Shapes, without the batch, of what the layers of a `kind` give."""
    shapes = []
    for layer in network.modules():
        if isinstance(layer, kind):
            layer.register_forward_hook(
                lambda layer, given, result: shapes.append(tuple(result.shape[1:]))
            )
    network(x)
    return shapes


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("size", [(16, 16), (32, 48), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_images_become_latents_and_latents_images(name, size, channels):
    encoder, decoder, options = PAIRS[name]
    shape = (channels, *size)
    for batch in (1, 3):
        posterior = encoder(shape, 4, **options)(torch.rand(batch, *shape))
        assert posterior.mean.shape == posterior.log_var.shape == (batch, 4)
        assert decoder(shape, 4, **options)(posterior.mean).shape == (batch, *shape)


@pytest.mark.parametrize("name", ["linear", "mlp"])
@pytest.mark.parametrize("shape", [(5,), (1, 28, 28), (2, 3, 5, 7)])
def test_linear_and_mlp_take_any_event(name, shape):
    encoder, decoder, options = PAIRS[name]
    posterior = encoder(list(shape), 1, **options)(torch.rand(2, *shape))
    assert posterior.mean.shape == posterior.log_var.shape == (2, 1)
    assert decoder(list(shape), 1, **options)(posterior.mean).shape == (2, *shape)


def test_every_output_depends_on_every_input():
    for encoder, decoder, options in PAIRS.values():
        torch.manual_seed(0)
        x = torch.rand(1, 1, 16, 16, requires_grad=True)
        posterior = encoder((1, 16, 16), 2, **options)(x)
        (slope,) = torch.autograd.grad(posterior.mean.sum(), x)
        assert (slope != 0).float().mean() > 0.9
        image = decoder((1, 16, 16), 2, **options)(torch.tensor([[3.0, -2.0]]))
        assert len(image.unique()) > 100


def test_rows_do_not_see_each_other():
    for encoder, decoder, options in PAIRS.values():
        x = torch.rand(4, 3, 16, 16)
        encode = encoder((3, 16, 16), 2, **options)
        decode = decoder((3, 16, 16), 2, **options)
        together = encode(x)
        torch.testing.assert_close(encode(x[2:3]).mean, together.mean[2:3])
        torch.testing.assert_close(decode(together.mean[2:3]), decode(together.mean)[2:3])


def test_the_linear_encoder_is_affine_with_one_variance():
    encoder = LinearEncoder((2, 3), 4)
    x = torch.randn(5, 2, 3)
    layer = encoder.mean[1]
    expected = torch.einsum("bi,oi->bo", x.flatten(1), layer.weight) + layer.bias
    torch.testing.assert_close(encoder(x).mean, expected)
    with torch.no_grad():
        encoder.log_var.copy_(torch.tensor([0.0, 1.0, -2.0, 3.0]))
    assert encoder(x).log_var.tolist() == [[0.0, 1.0, -2.0, 3.0]] * 5
    assert count(encoder) == 6 * 4 + 4 + 4
    assert count(LinearDecoder((2, 3), 4)) == 4 * 6 + 6


def test_the_mlp_is_its_layers():
    torch.manual_seed(0)
    encoder = MLPEncoder((2, 3), 2, hidden=(7, 5), activation="tanh")
    x = torch.randn(4, 2, 3)
    weights = [parameter.detach() for parameter in encoder.parameters()]
    assert [tuple(weight.shape) for weight in weights] == [(7, 6), (7,), (5, 7), (5,), (4, 5), (4,)]
    h = torch.tanh(x.flatten(1) @ weights[0].T + weights[1])
    h = torch.tanh(h @ weights[2].T + weights[3])
    h = h @ weights[4].T + weights[5]
    posterior = encoder(x)
    torch.testing.assert_close(torch.cat(list(posterior), 1).detach(), h)
    decoder = MLPDecoder((2, 3), 2, hidden=(7, 5), activation="tanh")
    assert [tuple(weight.shape) for weight in decoder.parameters()] == [
        (5, 2),
        (5,),
        (7, 5),
        (7,),
        (6, 7),
        (6,),
    ]
    assert sum(isinstance(layer, nn.Tanh) for layer in decoder) == 2


def test_the_mlp_of_mnist_has_as_many_parameters_as_counted_by_hand():
    assert count(MLPEncoder((1, 28, 28), 20)) == (784 * 400 + 400) + (400 * 40 + 40)
    assert count(MLPDecoder((1, 28, 28), 20)) == (20 * 400 + 400) + (400 * 784 + 784)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "softplus"])
def test_an_activation_is_the_one_named(activation):
    expected = {
        "relu": torch.relu,
        "tanh": torch.tanh,
        "gelu": nn.functional.gelu,
        "softplus": nn.functional.softplus,
    }
    z = torch.randn(3, 2)
    decoder = MLPDecoder((4,), 2, hidden=(6,), activation=activation)
    torch.testing.assert_close(decoder[1](z), expected[activation](z))


def test_locatello_has_the_layers_and_parameters_counted_by_hand():
    x = torch.rand(2, 1, 64, 64)
    encoder = ConvEncoder((1, 64, 64), 10, **LOCATELLO_ENCODER)
    assert outputs(encoder, nn.Conv2d, x) == [(32, 32, 32), (32, 16, 16), (64, 8, 8), (64, 4, 4)]
    assert outputs(encoder, nn.Linear, x)[-2:] == [(256,), (20,)]
    convolutions = (1 * 16 + 1) * 32 + (32 * 16 + 1) * 32 + (32 * 4 + 1) * 64 + (64 * 4 + 1) * 64
    assert count(encoder) == convolutions + (64 * 4 * 4 + 1) * 256 + (256 + 1) * 20 == 309_204

    z = torch.randn(2, 10)
    decoder = ConvDecoder((1, 64, 64), 10, **LOCATELLO_DECODER)
    assert outputs(decoder, nn.ConvTranspose2d, z) == [
        (64, 8, 8),
        (32, 16, 16),
        (32, 32, 32),
        (1, 64, 64),
    ]
    assert outputs(decoder, nn.Linear, z)[-2:] == [(256,), (1024,)]
    convolutions = 64 * 16 * 64 + 64 + 64 * 16 * 32 + 32 + 32 * 16 * 32 + 32 + 32 * 16 * 1 + 1
    assert count(decoder) == (10 + 1) * 256 + (256 + 1) * 1024 + convolutions == 381_313


def test_burgess_has_as_many_parameters_as_counted_by_hand():
    corner = 32 * 4 * 4
    encoder = (
        (1 * 16 + 1) * 32
        + 3 * (32 * 16 + 1) * 32
        + (corner + 1) * 256
        + (256 + 1) * 256
        + (256 + 1) * 20
    )
    assert count(ConvEncoder((1, 64, 64), 10, **BURGESS)) == encoder
    decoder = (
        (10 + 1) * 256
        + (256 + 1) * 256
        + (256 + 1) * corner
        + 3 * (32 * 16 + 1) * 32
        + (32 * 16 * 1 + 1)
    )
    assert count(ConvDecoder((1, 64, 64), 10, **BURGESS)) == decoder


def test_a_convolutional_decoder_has_no_activation_at_its_end():
    decoder = ConvDecoder((1, 16, 16), 2, **CONV)
    layers = list(decoder)
    assert isinstance(layers[-1], nn.ConvTranspose2d)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
        layers[-1].bias.fill_(-3)
    assert torch.equal(decoder(torch.zeros(1, 2)), torch.full((1, 1, 16, 16), -3.0))


@pytest.mark.parametrize("kernel", [2, 4, 6])
def test_every_kernel_halves_the_sides_exactly(kernel):
    options = CONV | {"kernels": [kernel] * 4}
    x = torch.rand(1, 1, 32, 48)
    assert outputs(ConvEncoder((1, 32, 48), 2, **options), nn.Conv2d, x)[-1] == (6, 2, 3)
    assert ConvDecoder((1, 32, 48), 2, **options)(torch.rand(1, 2)).shape == x.shape


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, "3", None])
@pytest.mark.parametrize(("network", "options"), NETWORKS)
def test_a_latent_dim_is_a_positive_integer(network, options, bad):
    with pytest.raises(InputError, match=r"latent_dim is .*: expected an integer of at least 1"):
        network((1, 16, 16), bad, **options)


@pytest.mark.parametrize("network", [ConvEncoder, ConvDecoder])
@pytest.mark.parametrize(
    "shape", [(1, 28, 28), (1, 64, 60), (1, 60, 64), (3, 8, 8), (64, 64), (5,), (1, 1, 16, 16)]
)
def test_a_convolution_refuses_other_sides_with_a_remedy(network, shape):
    with pytest.raises(
        InputError, match=r"x_shape is .* multiples of 16 .*pad or resize .*or use model=mlp"
    ) as caught:
        network(shape, 2, **CONV)
    assert str(list(shape)) in str(caught.value)


@pytest.mark.parametrize("network", [ConvEncoder, ConvDecoder])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": (4, 4, 4)}, r"channels is \[4, 4, 4\] and kernels .*: expected 4 of each"),
        ({"channels": (4,) * 5}, "expected 4 of each"),
        ({"kernels": (4,) * 3}, "expected 4 of each"),
        ({"channels": ()}, "expected 4 of each"),
        ({"channels": (4, 4, 0, 4)}, "channels is 0: expected an integer of at least 1"),
        ({"channels": (4, 4, 4.0, 4)}, r"channels is 4\.0: expected an integer"),
        ({"kernels": (4, 4, 3, 4)}, r"kernels is \[4, 4, 3, 4\]: expected each to be 2, 4 or 6"),
        ({"kernels": (4, 4, 0, 4)}, "expected each to be 2, 4 or 6"),
        ({"kernels": (4, 4, 8, 4)}, "expected each to be 2, 4 or 6"),
        ({"hidden": (8, 0)}, "hidden is 0: expected an integer of at least 1"),
        ({"hidden": (8, "a")}, "hidden is 'a'"),
    ],
)
def test_a_convolution_refuses_other_layers(network, options, message):
    with pytest.raises(InputError, match=message):
        network((1, 32, 32), 2, **(CONV | options))


@pytest.mark.parametrize("network", [MLPEncoder, MLPDecoder])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"activation": "Relu"},
            "activation is 'Relu': expected one of relu, tanh, gelu, softplus",
        ),
        ({"activation": None}, "activation is None"),
        ({"hidden": (8, 0)}, "hidden is 0: expected an integer of at least 1"),
        ({"hidden": (8.0,)}, r"hidden is 8\.0"),
        ({"hidden": (True,)}, "hidden is True"),
    ],
)
def test_an_mlp_refuses_other_layers(network, options, message):
    with pytest.raises(InputError, match=message):
        network((4,), 2, **options)


def test_an_image_with_another_number_of_channels_fails():
    encoder = ConvEncoder((3, 16, 16), 2, **CONV)
    with pytest.raises(RuntimeError, match="channels"):
        encoder(torch.rand(1, 1, 16, 16))


@pytest.mark.parametrize(("network", "options"), NETWORKS)
def test_gradients_reach_every_parameter(network, options):
    torch.manual_seed(0)
    built = network((1, 16, 16), 3, **options)
    encodes = network in (LinearEncoder, MLPEncoder, ConvEncoder)
    result = built(torch.rand(8, 1, 16, 16) if encodes else torch.randn(8, 3))
    loss = sum(part.square().sum() + part.sum() for part in (result if encodes else [result]))
    loss.backward()
    for name, parameter in built.named_parameters():
        assert math.isfinite(parameter.grad.abs().sum()), name
        assert parameter.grad.abs().sum() > 0, name
