"""Conditions and private latents of multimodal VAEs against linear-Gaussian models, whose densities
are known.
"""

import math
from functools import partial

import pytest
import torch
from model.senses import Exact
from torch import distributions, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import one_hot

from jensen.base.errors import InputError
from jensen.family.gaussian import LOG_VAR_BOUND, Gaussian
from jensen.model.conditional_normal import ConditionalNormal
from jensen.model.conv import ConvDecoder, ConvEncoder
from jensen.model.likelihood import Bernoulli, Normal
from jensen.model.mlp import MLPDecoder, MLPEncoder
from jensen.model.multimodal import MultimodalVAE
from jensen.model.prior import StandardNormal
from jensen.model.vae import VAE

NAN = math.nan
SHIFT = torch.tensor([-3.0, 0.0, 4.0], dtype=torch.float64)
"""By which each class moves what is seen."""
MEAN = torch.tensor([1.0, 0.0, -0.5], dtype=torch.float64)
SD = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
"""Of z, given the class."""
NOISE = 0.5


class Moved(nn.Module):
    """The expert of x beside its class, N(z; x - shift, noise^2)."""

    def __init__(self, sign):
        super().__init__()
        self.sign = sign
        self.expert = Exact(NOISE)

    def forward(self, beside):
        moved = beside[:, :1] + self.sign * (beside[:, 1:] @ SHIFT.to(beside)).unsqueeze(1)
        return self.expert(moved) if self.sign < 0 else moved


def exact_conditional():
    """x = z + shift of the class + noise, z of a prior of the class."""
    prior = ConditionalNormal(1)
    model = MultimodalVAE(
        {"x": [1], "class": [3]},
        {"x": Moved(-1)},
        {"x": Moved(1)},
        {"x": Normal(NOISE**2)},
        prior,
        1,
        condition=["class"],
        prior_expert=True,
    ).double()
    raw = LOG_VAR_BOUND * torch.atanh(2 * SD.log() / LOG_VAR_BOUND)
    with torch.no_grad():
        model.prior.net[0].weight.copy_(torch.stack([MEAN, raw]))
    model.likelihood.each["x"].log_var.fill_(2 * math.log(NOISE))
    return model


def classes(count, seed=0):
    g = torch.Generator().manual_seed(seed)
    label = torch.randint(3, (count,), generator=g)
    x = 3 * torch.randn(count, 1, generator=g, dtype=torch.float64)
    return torch.cat([x, one_hot(label, 3).double()], 1), label


def test_a_conditional_model_says_log_p_of_x_given_the_condition():
    model = exact_conditional().eval()
    x, label = classes(50)
    truth = distributions.Normal(MEAN[label] + SHIFT[label], (SD[label] ** 2 + NOISE**2).sqrt())
    expected = truth.log_prob(x[:, 0])
    torch.testing.assert_close(model.evidence(x, 2).log_p, expected, rtol=0, atol=3e-6)
    bound = 0
    for node, weight in ((-(3**0.5), 1 / 6), (0.0, 2 / 3), (3**0.5, 1 / 6)):
        bound = bound + weight * model(x, torch.full((50, 1), node).double()).bound.elbo
    torch.testing.assert_close(bound, expected, rtol=0, atol=3e-6)
    terms = model.held_out_terms(x, model(x), torch.zeros(50, 1).double())
    assert {*terms} == {"distortion_x", "elbo_x", "rate_x"}


def test_what_is_generated_from_a_condition_alone_is_of_the_prior_given_it():
    model = exact_conditional()
    x = torch.cat([torch.full((3, 1), NAN), torch.eye(3)], 1).double()
    made = model.generate(x, samples=20_000)[:, :, 0]
    torch.testing.assert_close(made.mean(0), MEAN + SHIFT, rtol=0, atol=0.06)
    torch.testing.assert_close(made.std(0), SD, rtol=0.03, atol=0)
    q = model.encode(x)
    torch.testing.assert_close(q.mean[:, 0], MEAN)
    rate = model(x, torch.zeros(3, 1).double()).bound.rate
    assert rate.abs().max() < 1e-12


def test_codes_are_decoded_beside_the_condition_of_their_examples():
    model = exact_conditional()
    x, label = classes(4)
    z = torch.arange(8.0).double().unsqueeze(1)
    made = model.decode(z, x)
    torch.testing.assert_close(made[:, 0], z[:, 0] + SHIFT[label].repeat(2))
    assert made[:, 1:].equal(x[:, 1:].repeat(2, 1))
    moved = model.traverse(x, 0, [0.0, 1.0])
    torch.testing.assert_close(moved[:, 1, 0], 1 + SHIFT[label])
    torch.testing.assert_close(model.reconstruct(x)[:, 1:], x[:, 1:])
    for call in (lambda: model.decode(z), lambda: model.sample(3)):
        with pytest.raises(InputError, match="condition class") as raised:
            call()
        assert "\n" not in str(raised.value)


def test_with_one_modality_besides_it_is_the_conditional_vae():
    torch.manual_seed(0)
    model = MultimodalVAE(
        {"image": [1, 8, 8], "label": [2], "size": [1]},
        {"each": lambda **sizes: MLPEncoder(hidden=[5], **sizes)},
        {"each": lambda **sizes: MLPDecoder(hidden=[5], **sizes)},
        {"image": Bernoulli},
        StandardNormal(),
        3,
        condition=["label", "size"],
    )
    assert model.encoder.each["image"].x_shape == (4, 8, 8)  # a channel for each number
    assert model.decoder.each["image"].latent_dim == 6
    x = torch.cat([torch.rand(6, 64).round(), torch.rand(6, 3)], 1)
    noise = torch.randn(6, 3)
    found = model(x, noise)
    given = x[:, 64:]
    image = x[:, :64].unflatten(1, (1, 8, 8))
    channels = given[:, :, None, None].expand(-1, -1, 8, 8)
    q = model.encoder.each["image"](torch.cat([image, channels], 1))
    log_var = LOG_VAR_BOUND * torch.tanh(q.log_var / LOG_VAR_BOUND)
    torch.testing.assert_close(found.posterior.mean, q.mean)
    z = q.mean + (0.5 * log_var).exp() * noise
    logits = model.decoder.each["image"](torch.cat([z, given], 1))
    truth = -distributions.Bernoulli(logits=logits).log_prob(image).flatten(1).sum(1)
    torch.testing.assert_close(found.bound.distortion, truth)
    posterior = distributions.Normal(q.mean, (0.5 * log_var).exp())
    rate = distributions.kl_divergence(posterior, distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(found.bound.rate, rate)


def test_convolutions_take_conditions_as_channels():
    model = MultimodalVAE(
        {"image": [1, 16, 16], "label": [4]},
        {"each": partial(ConvEncoder, channels=[4] * 4, kernels=[4] * 4, hidden=[8])},
        {"each": partial(ConvDecoder, channels=[4] * 4, kernels=[4] * 4, hidden=[8])},
        {"each": Bernoulli},
        StandardNormal(),
        2,
        condition=["label"],
    )
    x = torch.cat([torch.rand(3, 256).round(), torch.eye(4)[:3]], 1)
    model(x).bound.elbo.mean().backward()
    assert all(part.grad.abs().sum() > 0 for part in model.parameters())


def test_conditional_models_in_a_stack_say_what_each_says_alone():
    def made(seed):
        torch.manual_seed(seed)
        model = MultimodalVAE(
            {"see": [3], "hear": [2], "who": [2]},
            {"each": MLPEncoder},
            {"each": MLPDecoder},
            {"each": Normal},
            ConditionalNormal(2, [4]),
            2,
            "subsets",
            condition=["who"],
        )
        nn.init.normal_(model.prior.net[-1].weight)
        return model

    models = [made(seed) for seed in range(2)]
    x = torch.randn(2, 6, 7)
    x[:, :2, 3:5] = NAN
    noise = torch.randn(2, 18, 3)
    values, buffers = stack_module_state(models)

    def elbo(values, buffers, x, noise):
        return functional_call(models[0], (values, buffers), (x, noise)).bound.elbo

    found = vmap(elbo)(values, buffers, x, noise)
    for model, each, own, one in zip(models, x, noise, found, strict=True):
        torch.testing.assert_close(one, model(each, own).bound.elbo)


PARTS = {
    "modalities": {"see": [1], "hear": [1], "who": [2]},
    "encoders": {"each": MLPEncoder},
    "decoders": {"each": MLPDecoder},
    "likelihoods": {"each": Normal},
    "latent_dim": 1,
    "condition": ["who"],
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoders": {"each": MLPEncoder, "who": MLPEncoder}}, "encoders has 'who'.*not modelled"),
        ({"decoders": {"each": MLPDecoder, "who": MLPDecoder}}, "decoders has 'who'.*not modelled"),
        ({"likelihoods": {"each": Normal, "who": Normal}}, "likelihoods has 'who'.*not modelled"),
        ({"weights": {"who": 2.0}}, "weights has 'who'.*not modelled"),
        ({"latent_private": {"who": 2}}, "latent_private has 'who'.*not modelled"),
        ({"fusion": "subsets", "subsets": [["see", "who"]]}, "subsets is 'who'"),
        ({"condition": ["whom"]}, "condition is 'whom'.*did you mean who"),
        ({"condition": ["who", "who"]}, "each once"),
        ({"condition": "who"}, "condition is 'who': expected a list"),
        ({"condition": ["see", "hear", "who"]}, "one that is modelled"),
        ({"condition": [], "prior": ConditionalNormal(1)}, r"data\.condition is \[\]"),
        ({"latent_private": {"see": 0}}, r"latent_private of see is 0"),
        ({"latent_private": {"sea": 1}}, "latent_private has 'sea'"),
        ({"latent_private": 3}, "latent_private is 3"),
        ({"latent_private": {"see": 1}, "prior": ConditionalNormal(1)}, "prior=standard_normal"),
        (
            {
                "latent_private": {"see": 1},
                "encoders": {"each": MLPEncoder, "see": MLPEncoder([3], 1)},
            },
            None,
        ),
    ],
)
def test_conditions_and_private_latents_that_do_not_fit_are_refused(change, words):
    parts = {"prior": StandardNormal(), **PARTS, **change}
    if words is None:
        with pytest.raises(InputError, match=r"encoders\.see gives shape \[1\]: expected \[2\]"):
            MultimodalVAE(**parts)(torch.zeros(2, 4))
        return
    with pytest.raises(InputError, match=words) as raised:
        MultimodalVAE(**parts)
    assert "\n" not in str(raised.value)


def test_a_plain_vae_cannot_have_a_prior_of_conditions():
    with pytest.raises(InputError, match=r"given nothing.*data\.condition"):
        VAE(MLPEncoder([4], 2), MLPDecoder([4], 2), Normal(), ConditionalNormal(2), 2)(
            torch.zeros(3, 4)
        )


def test_a_condition_that_is_missing_is_refused():
    model = MultimodalVAE(**PARTS, prior=StandardNormal())
    model.likelihood.check(torch.tensor([[1.0, NAN, 0.0, 1.0]]))
    for row in ([1.0, 1.0, NAN, NAN], [1.0, 1.0, 0.0, math.inf]):
        with pytest.raises(InputError, match="condition who of an example") as raised:
            model.likelihood.check(torch.tensor([row]))
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="none of the modalities see, hear:"):
        model.likelihood.check(torch.tensor([[NAN, NAN, 0.0, 1.0]]))


# ---- private latents ----


LOAD = {"see": 0.8, "hear": 1.5}
"""Of each sense's own latent."""
SIGMA = {"see": 0.5, "hear": 1.0}


class Apart(nn.Module):
    """An expert of z and of what is private, which is not the exact posterior."""

    def __init__(self, load, sigma, private):
        super().__init__()
        spread = math.hypot(sigma, load if private else 0.0)
        raw = [spread] + ([1 / math.hypot(1.0, load / math.hypot(1, sigma))] if private else [])
        self.raw = torch.tensor(
            [LOG_VAR_BOUND * math.atanh(2 * math.log(each) / LOG_VAR_BOUND) for each in raw]
        ).double()
        self.gain = load / (1 + load**2 + sigma**2)
        self.private = private

    def forward(self, x):
        mean = torch.cat([x, self.gain * x], 1) if self.private else x
        return Gaussian(mean, self.raw.expand_as(mean))


class Loaded(nn.Module):
    def __init__(self, load):
        super().__init__()
        self.load = load

    def forward(self, z):
        return z[:, :1] + (self.load * z[:, 1:] if z.shape[1] > 1 else 0.0)


def private_model(fusion="product", private=("see", "hear"), **more):
    """x_m = z + load_m w_m + noise, w_m of the modalities that have one."""
    model = MultimodalVAE(
        {"see": [1], "hear": [1]},
        {name: Apart(LOAD[name], SIGMA[name], name in private) for name in SIGMA},
        {name: Loaded(LOAD[name]) for name in SIGMA},
        {name: Normal(SIGMA[name] ** 2) for name in SIGMA},
        StandardNormal(),
        1,
        fusion,
        latent_private=dict.fromkeys(private, 1),
        **more,
    ).double()
    for name, sigma in SIGMA.items():
        model.likelihood.each[name].log_var.fill_(2 * math.log(sigma))
    return model


def density(private):
    own = [(LOAD[name] ** 2 if name in private else 0.0) + SIGMA[name] ** 2 for name in SIGMA]
    covariance = 1 + torch.tensor(own).double().diag()
    return distributions.MultivariateNormal(torch.zeros(2).double(), covariance)


def drawn(truth, count):
    points = torch.randn(count, 2, generator=torch.Generator().manual_seed(3)).double()
    return points @ truth.scale_tril.T


@pytest.mark.parametrize("fusion", ["product", "mixture", "subsets"])
@pytest.mark.parametrize("private", [("see", "hear"), ("hear",)])
@pytest.mark.parametrize("draws", [100, 1000, 10_000])
def test_the_evidence_under_private_latents_is_that_of_the_joint_gaussian(fusion, private, draws):
    model = private_model(fusion, private)
    assert model.latent_dim == 1 + len(private)
    truth = density(private)
    x = drawn(truth, 40)
    found = model.evidence(x, draws)
    error = (found.log_p - truth.log_prob(x)).sum()
    assert error.abs() <= 2 * found.standard_error.square().sum().sqrt() + 40 / draws
    alone = x.clone()
    alone[:, 0] = NAN
    scale = truth.covariance_matrix[1, 1].sqrt()
    one = model.evidence(alone, draws)
    error = (one.log_p - distributions.Normal(0.0, scale).log_prob(x[:, 1])).sum()
    assert error.abs() <= 2 * one.standard_error.square().sum().sqrt() + 40 / draws


def test_the_bound_with_private_latents_is_below_the_evidence():
    truth = density(("see", "hear"))
    x = drawn(truth, 200)
    short = {}
    for fusion, subsets in (("product", 1), ("mixture", 2), ("subsets", 3)):
        model = private_model(fusion)
        generator = torch.Generator().manual_seed(1)
        noise = torch.randn(600 * subsets, model.noise_dim, generator=generator).double()
        short[fusion] = (truth.log_prob(x).mean() - model(x, noise).bound.elbo.mean()).item()
    assert 0 < short["product"] < 2
    assert short["product"] < short["subsets"] < short["mixture"]


def test_what_is_private_is_told_by_its_modality_and_else_of_the_prior():
    model = private_model()
    x = torch.tensor([[1.5, -1.0], [1.5, NAN]]).double()
    q = model.encode(x)
    each = model.encode_each(x)
    assert q.mean.shape == (2, 3)
    # z, what is private to sight, what is private to hearing
    torch.testing.assert_close(q.mean[:, 1], each["see"].mean[:, 1])
    gain = LOAD["see"] / (1 + LOAD["see"] ** 2 + SIGMA["see"] ** 2)
    torch.testing.assert_close(q.mean[:, 1], 1.5 * gain * torch.ones(2).double())
    for nobody in (
        q.mean[1, 2],
        q.log_var[1, 2],
        each["see"].mean[0, 2],
        each["see"].log_var[0, 2],
    ):
        assert nobody == 0
    assert q.mean[0, 2] != 0
    z = torch.randn(5, 3).double()
    other = z.clone()
    other[:, 2] += 1
    made = model.decoder.outputs(z)
    changed = model.decoder.outputs(other)
    assert made["see"].equal(changed["see"])
    torch.testing.assert_close(changed["hear"] - made["hear"], torch.full((5, 1), 1.5).double())


def test_private_latents_learn_nothing_of_other_modalities():
    torch.manual_seed(0)
    model = MultimodalVAE(
        {"see": [3], "hear": [2]},
        {"each": lambda **sizes: MLPEncoder(hidden=[6], **sizes)},
        {"each": lambda **sizes: MLPDecoder(hidden=[6], **sizes)},
        {"each": Normal},
        StandardNormal(),
        2,
        "subsets",
        latent_private={"hear": 4, "see": 1},
    )
    assert model.latent_dim == 7
    assert model.encoder.each["hear"].latent_dim == model.decoder.each["hear"].latent_dim == 6
    assert model.encoder.latents.private == (("see", 1), ("hear", 4))
    model(torch.randn(8, 5), torch.randn(24, model.noise_dim)).bound.elbo.mean().backward()
    assert all(part.grad.isfinite().all() for part in model.parameters())
    model.zero_grad()
    x = torch.randn(8, 5)
    x[:, :3] = NAN
    model(x, torch.randn(24, model.noise_dim)).bound.rate.sum().backward()
    assert all(not part.grad.any() for part in model.encoder.each["see"].parameters())
