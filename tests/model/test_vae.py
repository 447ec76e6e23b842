"""The VAE's bound, from scratch with torch.distributions, and against the exact evidence of a
linear model.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions, nn

from jensen.base.errors import InputError
from jensen.bound.bound import Inference
from jensen.family.gaussian import Gaussian
from jensen.model.conv import ConvEncoder
from jensen.model.likelihood import Bernoulli, Normal, OptimalNormal
from jensen.model.linear import LinearDecoder, LinearEncoder
from jensen.model.mlp import MLPDecoder, MLPEncoder
from jensen.model.prior import StandardNormal
from jensen.model.vae import VAE

few = settings(derandomize=True, deadline=None, max_examples=20)
VARIANCE = 0.3
OFFSET = torch.tensor([0.5, -1.0, 2.0, 0.0, 0.25])
AXES = torch.linalg.qr(
    torch.randn(5, 2, generator=torch.Generator().manual_seed(3))
).Q * torch.tensor([1.5, 0.6])
"""The loadings W of a probabilistic PCA: orthogonal columns of different length."""
EVIDENCE = distributions.MultivariateNormal(
    OFFSET.double(), AXES.double() @ AXES.double().T + VARIANCE * torch.eye(5).double()
)
PRECISION = (AXES.double().T @ AXES.double() + VARIANCE * torch.eye(2).double()) / VARIANCE
NODES = math.sqrt(2) * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
"""Noise whose plain mean is the exact expectation of any quadratic under N(0, I)."""


def pca(slope, intercept, log_var):
    """The linear-Gaussian model with the encoder N(slope x + intercept, exp(log_var))."""
    model = VAE(
        LinearEncoder((5,), 2), LinearDecoder((5,), 2), Normal(VARIANCE), StandardNormal(), 2
    )
    with torch.no_grad():
        model.encoder.mean[1].weight.copy_(slope)
        model.encoder.mean[1].bias.copy_(intercept)
        model.encoder.log_var.copy_(20 * torch.atanh(log_var.double() / 20))
        model.decoder[0].weight.copy_(AXES)
        model.decoder[0].bias.copy_(OFFSET)
    return model


def expected_elbo(model, x):
    with torch.no_grad():
        return (
            torch.stack([model(x, node.expand(len(x), 2)).bound.elbo for node in NODES])
            .double()
            .mean(0)
        )


def exact_posterior(x):
    covariance = torch.linalg.inv(PRECISION)
    return distributions.MultivariateNormal(
        (x.double() - OFFSET) @ AXES.double() @ covariance / VARIANCE, covariance
    )


@pytest.fixture
def x():
    return EVIDENCE.sample((50,)).float()


def best_encoder():
    covariance = torch.linalg.inv(PRECISION)
    slope = (covariance @ AXES.double().T / VARIANCE).float()
    return slope, -(slope @ OFFSET), covariance.diagonal().log()


def test_at_the_exact_posterior_the_bound_is_the_evidence(x):
    torch.testing.assert_close(
        expected_elbo(pca(*best_encoder()), x), EVIDENCE.log_prob(x.double()), rtol=1e-5, atol=1e-5
    )


def test_at_the_exact_posterior_many_draws_average_to_the_evidence(x):
    model = pca(*best_encoder())
    draws = 20_000
    with torch.no_grad():
        inference = model(
            x[:1].expand(draws, 5),
            torch.randn(draws, 2, generator=torch.Generator().manual_seed(0)),
        )
    elbo = inference.bound.elbo.double()
    assert abs(elbo.mean() - EVIDENCE.log_prob(x[0].double())) < 4 * elbo.std() / math.sqrt(draws)
    # log p(x, z) - log q(z|x) is the evidence itself at every draw when q is the posterior
    q = distributions.Normal(inference.posterior.mean, (inference.posterior.log_var / 2).exp())
    weight = inference.log_prior - inference.bound.distortion - q.log_prob(inference.z).sum(1)
    torch.testing.assert_close(
        weight.double(), EVIDENCE.log_prob(x[:1].double()).expand(draws), rtol=1e-4, atol=1e-4
    )


@given(st.integers(0, 10**6))
@few
def test_at_any_encoder_the_gap_is_the_divergence_from_the_posterior(seed):
    generator = torch.Generator().manual_seed(seed)
    slope, intercept, log_var = (
        torch.randn(*shape, generator=generator) for shape in ((2, 5), (2,), (2,))
    )
    x = OFFSET + torch.randn(8, 5, generator=generator)
    elbo = expected_elbo(pca(slope, intercept, log_var), x)
    evidence = EVIDENCE.log_prob(x.double())
    assert (elbo <= evidence).all()
    q = distributions.MultivariateNormal(
        (x @ slope.T + intercept).double(), log_var.double().exp().diag()
    )
    torch.testing.assert_close(
        evidence - elbo, distributions.kl_divergence(q, exact_posterior(x)), rtol=1e-4, atol=1e-4
    )


def scratch(model, x, noise, observed):
    """The bound again, from the networks' raw outputs; `observed` is the distribution of x for an
    output of the decoder.
    """
    raw = model.encoder(x)
    q = distributions.Normal(raw.mean, (10 * torch.tanh(raw.log_var / 20)).exp())
    z = q.mean + q.stddev * noise
    p = distributions.Normal(0.0, 1.0)
    distortion = -observed(model.decoder(z)).log_prob(x).flatten(1).sum(1)
    return distortion, distributions.kl_divergence(q, p).sum(1), q, z, p.log_prob(z).sum(1)


@pytest.mark.parametrize(
    ("likelihood", "observed"),
    [
        (Normal(0.5), lambda out: distributions.Normal(out, math.sqrt(0.5))),
        (Bernoulli(), lambda out: distributions.Bernoulli(logits=out)),
    ],
)
def test_forward_is_the_bound_computed_from_scratch(likelihood, observed):
    torch.manual_seed(0)
    shape = (1, 4, 4)
    model = VAE(
        MLPEncoder(shape, 3, (8,)), MLPDecoder(shape, 3, (8,)), likelihood, StandardNormal(), 3
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    x = torch.rand(6, *shape).round()
    noise = torch.randn(6, 3)
    found = model(x, noise)
    distortion, rate, q, z, log_prior = scratch(model, x, noise, observed)
    assert isinstance(found, Inference)
    for mine, expected in zip(
        (*found.bound, *found.posterior, found.z, found.log_prior, found.bound.elbo),
        (distortion, rate, q.mean, 2 * q.stddev.log(), z, log_prior, -(distortion + rate)),
        strict=True,
    ):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)
    mine = torch.autograd.grad(found.bound.elbo.mean(), model.parameters())
    expected = torch.autograd.grad(-(distortion + rate).mean(), model.parameters())
    for left, right in zip(mine, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.decode(z), observed(model.decoder(z)).mean)


def test_forward_at_no_noise_decodes_the_code():
    torch.manual_seed(0)
    model = VAE(MLPEncoder((4,), 2, (8,)), MLPDecoder((4,), 2, (8,)), Normal(), StandardNormal(), 2)
    x = torch.randn(3, 4)
    assert torch.equal(model(x, torch.zeros(3, 2)).z, model.encode(x).mean)


@pytest.mark.parametrize("weight", [1e30, -1e30, 1e38])
@pytest.mark.parametrize(
    "encoder",
    [
        LinearEncoder((1, 16, 16), 2),
        MLPEncoder((1, 16, 16), 2, (8,)),
        ConvEncoder((1, 16, 16), 2, (2,) * 4, (4,) * 4, (8,)),
    ],
)
def test_a_code_is_finite_whatever_the_weights(encoder, weight):
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.fill_(weight)
    model = VAE(encoder, LinearDecoder((1, 16, 16), 2), Normal(), StandardNormal(), 2)
    x = torch.rand(5, 1, 16, 16)
    posterior = model.encode(x)
    inference = model(x, torch.randn(5, 2))
    for value in (*posterior, inference.z, inference.bound.rate, inference.log_prior):
        assert value.isfinite().all()
    assert posterior.mean.abs().max() == 1e6


@pytest.mark.parametrize("weight", [1e30, -1e30])
def test_the_rate_still_has_a_finite_gradient_for_the_outputs_of_such_an_encoder(weight):
    encoder = LinearEncoder((4,), 2)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.fill_(weight)
    model = VAE(encoder, LinearDecoder((4,), 2), Normal(), StandardNormal(), 2)
    model(torch.rand(5, 4), torch.randn(5, 2)).bound.elbo.mean().backward()
    for parameter in model.parameters():
        assert parameter.grad.isfinite().all()


PRIOR_PARTS = ("distribution", "update", "rate_is_bound", "warmup")


@pytest.mark.parametrize("part", PRIOR_PARTS)
def test_a_prior_without_a_part_of_the_protocol_is_refused_by_name(part):
    whole = {name: getattr(StandardNormal, name) for name in PRIOR_PARTS if name != part}
    prior = type("Mine", (nn.Module,), whole)()
    with pytest.raises(InputError, match=f"model.prior is a Mine without {part}, which a VAE"):
        VAE(nn.Identity(), nn.Identity(), None, prior, 2)


def test_a_rate_that_nothing_would_ask_is_refused():
    """A prior of before said its rate itself; it is that of its distribution now."""
    prior = type("Mine", (StandardNormal,), {"rate": lambda self, *_: torch.zeros(5)})()
    with pytest.raises(InputError, match=r"model\.prior is a Mine with a rate of its own, which"):
        VAE(nn.Identity(), nn.Identity(), None, prior, 2)
    named = type("Named", (StandardNormal,), {"rate": 0.1})()  # a number is no protocol
    VAE(nn.Identity(), nn.Identity(), Normal(), named, 2)


@pytest.fixture
def looked_at():
    """A model that a careless look would change: its likelihood learns in training mode, and one of
    its parts is held in evaluation mode.
    """
    torch.manual_seed(0)
    encoder = MLPEncoder((1, 2, 3), 4, (8,))
    prior = Moved(torch.tensor([0.0, 3.0, -2.0, 1.0]))
    model = VAE(encoder, MLPDecoder((1, 2, 3), 4, (8,)), OptimalNormal(), prior, 4)
    model.encoder.eval()
    return model


class Moved(StandardNormal):
    """N(mean, I)."""

    def __init__(self, mean):
        super().__init__()
        self.mean = mean

    def distribution(self):
        return Gaussian(self.mean, torch.zeros(4))


LOOKS = {
    "elbo": lambda model, x: model.elbo(x, samples=3),
    "reconstruct": lambda model, x: model.reconstruct(x),
    "sample": lambda model, x: model.sample(7),
    "traverse": lambda model, x: model.traverse(x, 1),
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_has_no_gradient_changes_nothing_and_is_the_same_again(looked_at, look):
    x = torch.rand(5, 1, 2, 3)
    state = torch.get_rng_state()
    modes = [part.training for part in looked_at.modules()]
    found = LOOKS[look](looked_at, x)
    assert not found.requires_grad
    assert torch.equal(found, LOOKS[look](looked_at, x))
    assert [part.training for part in looked_at.modules()] == modes
    assert looked_at.likelihood.variance.isnan()  # which a step of training would have set
    assert torch.get_rng_state().equal(state)


def test_a_model_draws_its_own_noise_by_a_key(looked_at):
    x = torch.rand(5, 1, 2, 3)
    first, again, other = looked_at(x), looked_at(x), looked_at(x, key=1)
    assert torch.equal(first.z, again.z)
    assert not torch.equal(first.z, other.z)
    assert first.bound.elbo.requires_grad
    noise = (first.z - first.posterior.mean) / (first.posterior.log_var / 2).exp()
    assert abs(looked_at(x.expand(5000, 5, 1, 2, 3).flatten(0, 1)).z.mean(0)).max() < 1
    torch.testing.assert_close(looked_at(x, noise).z, first.z)


def test_the_elbo_is_the_mean_over_draws_about_the_bound_by_quadrature(x):
    model = pca(*best_encoder())
    each = torch.stack([model.elbo(x, key=key) for key in range(200)]).double()
    error = each.std(0) / math.sqrt(200)
    assert (error > 0).all()
    assert ((each.mean(0) - expected_elbo(model, x)).abs() < 5 * error).all()
    several = model.elbo(x, samples=200).double()
    assert ((several - expected_elbo(model, x)).abs() < 5 * error).all()


def test_reconstructions_samples_and_traversals_are_what_the_decoder_makes_of_codes(looked_at):
    x = torch.rand(5, 1, 2, 3)
    codes = looked_at.encode(x).mean
    torch.testing.assert_close(looked_at.reconstruct(x), looked_at.decoder(codes))
    assert looked_at.sample(7).shape == (7, 1, 2, 3)
    looked_at.decoder = nn.Unflatten(1, (1, 2, 2))  # an observation is its code
    assert (looked_at.sample(20_000).flatten(1).mean(0) - looked_at.prior.mean).abs().max() < 0.05
    moved = looked_at.traverse(x, 1, [-4, 0.5]).flatten(2)
    assert moved.shape == (5, 2, 4)
    assert moved[..., 1].tolist() == [[-4, 0.5]] * 5
    rest = [0, 2, 3]
    assert torch.equal(moved[:, :, rest], codes[:, None, rest].expand(5, 2, 3))
    own = looked_at.traverse(x, torch.tensor(1)).flatten(2)[0, :, 1]
    quantiles = distributions.Normal(3.0, 1.0).icdf(torch.tensor([0.01, 0.99]))
    torch.testing.assert_close(own[[0, -1]], quantiles, rtol=0, atol=0.1)
    torch.testing.assert_close(own.diff(), own.diff()[:1].expand(10))


def test_bad_input_of_a_look_is_one_sentence(looked_at):
    x = torch.rand(5, 1, 2, 3)
    for sentence, call in {
        "latent is 4: expected one of 0, 1, 2, 3": lambda: looked_at.traverse(x, 4),
        "latent is -1: expected": lambda: looked_at.traverse(x, -1),
        "latent is '1': expected": lambda: looked_at.traverse(x, "1"),
        "values is 2.0: expected a list": lambda: looked_at.traverse(x, 1, 2.0),
        "count is 0: expected": lambda: looked_at.sample(0),
        "samples is 1.5: expected": lambda: looked_at.elbo(x, 1.5),
    }.items():
        with pytest.raises(InputError, match=sentence):
            call()


@pytest.mark.parametrize("part", ["distortion", "mean", "sample", "check"])
def test_a_likelihood_without_a_part_that_is_asked_of_it_is_refused(part):
    parts = {"distortion", "mean", "sample", "check"} - {part}
    mine = type("Mine", (nn.Module,), {name: lambda self: None for name in parts})()
    with pytest.raises(
        InputError, match=f"model.likelihood is a Mine without {part}, which a VAE"
    ) as caught:
        VAE(nn.Linear(4, 4), nn.Linear(2, 4), mine, StandardNormal(), 2)
    assert "\n" not in str(caught.value)
