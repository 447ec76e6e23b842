"""What a person gives a model to look at is what a fit would take, in any dtype, or one sentence."""

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import jensen
from jensen.base.errors import InputError
from jensen.family.gaussian import Gaussian
from jensen.model.likelihood import Bernoulli, Normal
from jensen.model.mlp import MLPDecoder, MLPEncoder
from jensen.model.multimodal import MultimodalVAE
from jensen.model.prior import StandardNormal
from jensen.model.vae import VAE

SHAPE = (3, 4, 4)


def model(likelihood="bernoulli"):
    return jensen.VAE("mlp", "mlp", likelihood=likelihood, latent_dim=2, x_shape=SHAPE)


@pytest.fixture
def x():
    return (torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0)) < 0.5).float()


LOOKS = {
    "model": lambda model, x: model(x).bound.elbo,
    "encode": lambda model, x: model.encode(x).mean,
    "elbo": lambda model, x: model.elbo(x, samples=2),
    "reconstruct": lambda model, x: model.reconstruct(x),
    "traverse": lambda model, x: model.traverse(x, 0),
}
every_look = pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)


@every_look
@pytest.mark.parametrize(
    ("sentence", "convert"),
    {
        "bernoulli takes x that is 0 or 1 but the data hold 255": lambda x: 255 * x,
        "bernoulli takes x that is 0 or 1 but the data hold 0.5": lambda x: x / 2,
        "the data hold NaN": lambda x: x / x,
        r"x_shape is \[3, 4, 4\] but x has the shape \[5, 4, 4, 3\]: .* by permute": lambda x: (
            x.permute(0, 2, 3, 1)
        ),
        r"x_shape is \[3, 4, 4\] but x has the shape \[5, 48\]: .* reshape it": lambda x: x.flatten(
            1
        ),
        r"but x has the shape \[3, 4, 4\]: expected \[N, 3, 4, 4\]; give one .* x\[None\]": lambda x: (
            x[0]
        ),
        "x is uint8: expected floating-point .* 255, or call encode of the run": lambda x: x.byte(),
        "x is int64: expected": lambda x: x.long().numpy(),
        "x holds complex numbers": lambda x: x.cfloat(),
        "x is a tensor of layout torch.sparse_coo": torch.Tensor.to_sparse,
        r"x has 1 masked values, the first at \[0, 0, 1, 3\]: .*fill them$": lambda x: (
            np.ma.masked_array(x, mask=np.arange(x.numel()).reshape(x.shape) == 7)
        ),
        "x is a str: expected an array": lambda x: "mnist",
    }.items(),
)
def test_a_look_refuses_in_a_sentence_what_a_fit_would(x, look, sentence, convert):
    with pytest.raises(InputError, match=sentence):
        look(model(), convert(x))


@every_look
@pytest.mark.parametrize(
    "convert",
    [
        torch.Tensor.double,
        torch.Tensor.half,
        torch.Tensor.bool,
        torch.Tensor.numpy,
        lambda x: x.numpy().astype(">f8")[::-1][::-1],
        torch.Tensor.tolist,
    ],
    ids=["float64", "half", "bool", "numpy", "other byte order", "list"],
)
def test_what_holds_the_same_numbers_is_the_same_look(x, look, convert):
    of_floats = look(model(), x)
    assert look(model(), convert(x)).equal(of_floats)


def test_a_look_keeps_the_graph_of_x(x):
    x = x.double().requires_grad_()
    model("normal")(x).bound.elbo.sum().backward()
    assert (x.grad != 0).any()


def test_a_missing_modality_is_no_fault_and_half_of_one_is():
    senses = MultimodalVAE(
        {"see": [3], "hear": [2]},
        {"each": MLPEncoder},
        {"see": MLPDecoder, "hear": MLPDecoder},
        {"see": Bernoulli, "hear": Normal},
        StandardNormal(),
        latent_dim=2,
    )
    x = torch.ones(4, 5)
    x[0, 3:] = torch.nan
    x[1] = torch.nan
    looks = LOOKS | {
        "generate": lambda model, x: model.generate(x),
        "evidence": lambda model, x: model.evidence(x).log_p,
        "encode_each": lambda model, x: model.encode_each(x)["see"].mean,
    }
    assert senses.encode(x).mean[1].tolist() == [0, 0]  # of nothing, the prior
    wrong = {
        "modality see of an example is NaN in a part": (2, 1, torch.nan),
        "modality see: .*bernoulli takes x that is 0 or 1 but the data hold 7": (2, 1, 7.0),
        "modality hear: the data hold NaN or inf": (2, 4, torch.inf),
    }
    for look in looks.values():
        assert look(senses, x.double()).isfinite().all()
        for sentence, (row, column, value) in wrong.items():
            other = x.clone()
            other[row, column] = value
            with pytest.raises(InputError, match=sentence):
                look(senses, other)
        with pytest.raises(InputError, match="modalities have 5 numbers and examples the shape"):
            look(senses, x[:, :4])


class Picky(Normal):
    """A likelihood of one's own, which counts how often it is asked."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def check(self, x):
        self.asked += 1
        if (x < 0).any():
            raise InputError("mine takes x above 0")


def test_a_likelihood_of_ones_own_is_asked_once_a_look_and_never_in_a_step(x):
    own = VAE(MLPEncoder(SHAPE, 2), MLPDecoder(SHAPE, 2), Picky(), StandardNormal(), 2)
    noise = torch.zeros(5, 2)
    own(x, noise)
    own(-x, noise)
    own.encoded(-x)
    assert own.likelihood.asked == 0
    for count, look in enumerate(LOOKS.values(), 1):
        look(own, x)
        assert own.likelihood.asked == count
        with pytest.raises(InputError, match="mine takes x above 0"):
            look(own, -x)
        own.likelihood.asked = count


def test_a_program_that_is_made_of_a_look_asks_nothing_of_its_numbers(x):
    looked_at = model()
    of_each = torch.func.vmap(lambda each: looked_at.encode(each[None]).mean[0])(x)
    torch.testing.assert_close(of_each, looked_at.encode(x).mean)
    slope = torch.func.grad(lambda x: looked_at.encode(x).mean.sum())(x)
    assert slope.shape == x.shape
    compiled = torch.compile(lambda x: looked_at.encode(x).mean, backend="eager", fullgraph=True)
    assert compiled(x).equal(looked_at.encode(x).mean)
    assert looked_at.to("meta").encode(x.to("meta")).mean.shape == (5, 2)
    with FakeTensorMode() as mode:
        made = VAE(MLPEncoder(SHAPE, 2), MLPDecoder(SHAPE, 2), Bernoulli(), StandardNormal(), 2)
        assert made.encode(mode.from_tensor(x)).mean.shape == (5, 2)


def test_what_is_elsewhere_than_the_model_is_brought_to_it(x, monkeypatch):
    """The device without numbers stands for a GPU: what has met it has none to be looked at."""
    elsewhere = model().to("meta")
    monkeypatch.setattr(elsewhere.likelihood, "check", lambda x: None)
    assert elsewhere.encode(x.numpy()).mean.is_meta
    assert elsewhere.elbo(x).is_meta
    assert elsewhere.decode([[1.0, -2.0]]).is_meta


def test_codes_of_another_width_are_one_sentence_and_of_another_dtype_the_same_codes():
    decoding = model()
    z = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    expected = decoding.decode(z)
    for same in (z.double(), z.long(), z.numpy(), z.tolist(), z.half()):
        assert decoding.decode(same).equal(expected)
    for sentence, other in {
        r"latent_dim is 2 but z has the shape \[3, 3\]: expected \[N, 2\]$": torch.zeros(3, 3),
        r"z has the shape \[2\]: expected \[N, 2\]; give one code as z\[None\]": z[0],
        "z has 1 masked values": np.ma.masked_array(z, mask=[[0, 1], [0, 0]]),
        "z is a str: expected an array": "z",
    }.items():
        with pytest.raises(InputError, match=sentence):
            decoding.decode(other)


def test_a_key_and_a_latent_are_integers(x):
    asked = model()
    for key in ("a", 1.0, True, None, 1 << 70):
        for look in (
            lambda key: asked(x, key=key),
            lambda key: asked.elbo(x, key=key),
            lambda key: asked.sample(2, key=key),
        ):
            with pytest.raises(InputError, match=r"^key is .*: expected an integer of 64 bits$"):
                look(key)
    assert asked.elbo(x, key=np.int64(3)).equal(asked.elbo(x, key=3))
    with pytest.raises(InputError, match="latent is True: expected one of 0, 1"):
        asked.traverse(x, True)
    with pytest.raises(InputError, match="values has 1 masked values"):
        asked.traverse(x, 0, np.ma.masked_array([0.0, 1.0], mask=[0, 1]))


def test_an_encode_of_ones_own_that_no_step_would_call_is_refused():
    class Own(VAE):
        def encode(self, x):
            return Gaussian(x, x)

    with pytest.raises(InputError, match=r"Own has an encode of its own, .*; call it encoded"):
        Own(nn.Identity(), nn.Identity(), Normal(), StandardNormal(), 2)
