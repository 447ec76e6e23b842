"""The VampPrior against the explicit mixture of its encodings."""

import copy
import pickle

import pytest
import torch
from priors import draws_of, latent_rate_of, log_prob_of, rate_of
from torch import distributions

from jensen.base.errors import InputError
from jensen.family.gaussian import Gaussian
from jensen.model.likelihood import Bernoulli
from jensen.model.mlp import MLPDecoder, MLPEncoder
from jensen.model.vae import VAE
from jensen.model.vamp import VampPrior

SHAPE = (1, 4, 4)
PSEUDO = 6
DIM = 3


def vae(**options):
    torch.manual_seed(0)
    model = VAE(
        MLPEncoder(SHAPE, DIM, (8,)),
        MLPDecoder(SHAPE, DIM, (8,)),
        Bernoulli(),
        VampPrior(PSEUDO, SHAPE, **options),
        DIM,
    )
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.mul_(3)
    return model


@pytest.fixture
def model():
    return vae()


@pytest.fixture
def x():
    return torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(1)).round()


def explicit(model):
    q = model.encoded(model.prior.raw.sigmoid())
    components = distributions.Independent(
        distributions.Normal(q.mean.double(), (q.log_var.double() / 2).exp()), 1
    )
    return distributions.MixtureSameFamily(
        distributions.Categorical(torch.ones(PSEUDO).double()), components
    )


def test_log_prob_is_that_of_the_mixture_of_encodings(model):
    z = torch.randn(20, DIM)
    torch.testing.assert_close(
        log_prob_of(model.prior, z), explicit(model).log_prob(z.double()).float()
    )


def test_the_rate_is_that_of_the_sample(model, x):
    found = model(x, torch.randn(7, DIM))
    q = distributions.Normal(found.posterior.mean, (found.posterior.log_var / 2).exp())
    log_prior = explicit(model).log_prob(found.z.double()).float()
    torch.testing.assert_close(found.bound.rate, q.log_prob(found.z).sum(1) - log_prior)
    torch.testing.assert_close(found.log_prior, log_prior)
    torch.testing.assert_close(rate_of(model.prior, found.posterior, found.z), found.bound.rate)


def test_each_inference_encodes_the_pseudo_inputs_once(model, x):
    counts = []
    model.encoder.register_forward_hook(lambda module, args, out: counts.append(len(args[0])))
    model(x, torch.randn(7, DIM))
    assert counts == [7, PSEUDO]


def test_the_rate_of_each_latent_is_at_least_the_divergence_from_the_marginal(model, x):
    with torch.no_grad():
        q = model.encode(x)
        mixture = model.prior.distribution()
        z = (q.mean + (q.log_var / 2).exp() * torch.randn(20_000, 7, DIM)).double()
        components = distributions.Normal(
            mixture.components.mean.T, (mixture.components.log_var.T / 2).exp()
        )
        weights = distributions.Categorical(logits=mixture.log_weight.expand(DIM, -1))
        marginal = distributions.MixtureSameFamily(weights, components)
        values = distributions.Normal(q.mean.double(), (q.log_var.double() / 2).exp()).log_prob(
            z
        ) - marginal.log_prob(z)
        assert (
            latent_rate_of(model.prior, q) > values.mean(0) - 4 * values.std(0) / 20_000**0.5
        ).all()


def test_gradients_reach_the_pseudo_inputs_and_the_encoder(model, x):
    found = model(x, torch.randn(7, DIM))
    (-found.bound.elbo.mean()).backward()
    assert (model.prior.raw.grad != 0).flatten(1).any(1).all()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.zero_grad()
    log_prob_of(model.prior, found.z.detach()).sum().backward()
    assert all((parameter.grad != 0).any() for parameter in model.encoder.parameters())


def test_the_encoder_is_the_models_alone(model):
    assert [name for name in model.state_dict() if name.startswith("prior")] == ["prior.raw"]
    assert len([*model.parameters()]) == len({id(parameter) for parameter in model.parameters()})


def test_copies_have_their_own_encoder(model):
    z = torch.randn(5, DIM)
    expected = log_prob_of(model.prior, z)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(log_prob_of(copied.prior, z), expected)
        with torch.no_grad():
            for parameter in copied.encoder.parameters():
                parameter.zero_()
        assert not torch.allclose(log_prob_of(copied.prior, z), expected)
    torch.testing.assert_close(log_prob_of(model.prior, z), expected)


def test_swapped_weights_are_seen_by_the_prior(model):
    """As a stack of models does it."""
    z = torch.randn(5, DIM)
    zeros = {
        name: torch.zeros_like(value)
        for name, value in model.state_dict().items()
        if name.startswith("encoder")
    }
    found = torch.func.functional_call(
        Density(model), {f"model.{name}": value for name, value in zeros.items()}, (z,)
    )
    torch.testing.assert_close(found, distributions.Normal(0.0, 1.0).log_prob(z).sum(1))


class Density(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, z):
        return log_prob_of(self.model.prior, z)


def test_samples_are_those_of_the_mixture(model):
    with torch.no_grad():
        draws = draws_of(model.prior, 5, torch.arange(40_000), DIM)
        expected = explicit(model)
    assert (draws.mean(0) - expected.mean).abs().max() < 0.05
    assert (draws.var(0) / expected.variance - 1).abs().max() < 0.05
    assert torch.equal(draws_of(model.prior, 5, torch.tensor([30_000, 7]), DIM), draws[[30_000, 7]])


def test_pseudo_inputs_lie_in_the_unit_interval_or_anywhere(model):
    assert (model.prior.pseudo_inputs() - 0.5).abs().max() < 0.5
    assert vae(unit=False).prior.pseudo_inputs().min() < 0


def test_wrong_values_are_one_sentence():
    with pytest.raises(InputError, match="pseudo_inputs is 0: expected an integer of at least 1"):
        VampPrior(0, SHAPE)
    with pytest.raises(InputError, match="x_shape is 0"):
        VampPrior(3, (1, 0, 4))
    with pytest.raises(InputError, match=r"without an encoder: expected a VAE around it"):
        rate_of(
            VampPrior(3, SHAPE),
            Gaussian(torch.zeros(2, DIM), torch.zeros(2, DIM)),
            torch.zeros(2, DIM),
        )
