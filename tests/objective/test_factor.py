"""FactorVAE: the total correlation of a Gaussian by its exact density ratio, and two losses that
leave each other alone.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal
from torch.nn.functional import binary_cross_entropy_with_logits

from jensen.base.errors import InputError
from jensen.bound.bound import Bound, Inference
from jensen.family.gaussian import Gaussian
from jensen.objective.factor import Factor

STEP = torch.tensor(5)
CORRELATION = 0.8
TOTAL_CORRELATION = -0.5 * math.log(1 - CORRELATION**2)
COVARIANCE = torch.tensor([[1.0, CORRELATION], [CORRELATION, 1.0]])


class Exact(nn.Module):
    """The logit of the optimal discriminator, log q(z) - sum_d log q(z_d)."""

    def forward(self, z):
        joint = MultivariateNormal(torch.zeros(2), COVARIANCE).log_prob(z)
        return (joint - Normal(0.0, 1.0).log_prob(z).sum(1))[:, None]


def correlated(count, seed=0):
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return noise @ torch.linalg.cholesky(COVARIANCE).T


def infer(z):
    return Inference(Bound(z.square().sum(1), z.cos().sum(1)), Gaussian(z, z), z, z[:, 0])


def small(gamma=6.4, seed=0, dim=2):
    torch.manual_seed(0)
    return Factor(dim, gamma, hidden=[16, 16], seed=seed)


def test_the_exact_density_ratio_gives_the_total_correlation():
    objective = small(gamma=10.0)
    objective.discriminator = Exact()
    inference = infer(correlated(40_000))
    logits = objective.discriminator(inference.z)
    error = logits.std().item() / 200
    terms = objective.terms(inference, STEP)
    assert terms["total_correlation"].item() == pytest.approx(TOTAL_CORRELATION, abs=4 * error)
    assert error < 0.01
    elbo = inference.bound.elbo.mean().item()
    assert objective(inference, STEP).item() == pytest.approx(
        -elbo + 10 * logits.mean().item(), rel=1e-5
    )
    assert 0.6 < terms["discriminator_accuracy"] < 0.9
    assert terms["discriminator_loss"] < math.log(2)


@pytest.fixture
def one_thread():
    """Threads cost more than they give to small matrices."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_trained_discriminator_finds_the_total_correlation():
    """By the objective's own loss and options; the codes do not move."""
    objective = small()
    optimizer = torch.optim.Adam(
        [{"params": objective.parameters(), **objective.optimizer_options, "lr": 3e-3}]
    )
    for step in range(250):
        optimizer.zero_grad()
        objective(infer(correlated(1024, step)), torch.tensor(step)).backward()
        optimizer.step()
    found = objective.terms(infer(correlated(20_000, seed=999)), STEP)
    assert found["total_correlation"].item() == pytest.approx(TOTAL_CORRELATION, abs=0.12)


def test_the_value_is_the_vaes_loss_alone():
    objective = small(gamma=3.0)
    inference = infer(correlated(50))
    expected = -inference.bound.elbo.mean() + 3 * objective.discriminator(inference.z).mean()
    torch.testing.assert_close(objective(inference, STEP), expected)


def test_the_model_is_not_moved_by_the_discriminators_loss():
    """Its gradient is that of distortion + rate + gamma * logit, whatever is permuted how."""
    objective = small(gamma=3.0)
    z = correlated(50).requires_grad_()
    inference = infer(z)
    vae = -inference.bound.elbo.mean() + 3 * objective.discriminator(z).mean()
    expected = torch.autograd.grad(vae, z)[0]
    for step in (0, 1):
        found = torch.autograd.grad(objective(infer(z), torch.tensor(step)), z)[0]
        torch.testing.assert_close(found, expected)


def test_the_discriminator_is_not_moved_by_the_models_loss():
    """Its gradient is that of its cross-entropy, at any gamma."""
    z = correlated(50)
    objective = small(gamma=0.0)
    permuted = objective._permuted(z, STEP)
    logits = objective.discriminator(torch.cat([z, permuted]))[:, 0]
    label = torch.cat([torch.ones(50), torch.zeros(50)])
    expected = torch.autograd.grad(
        binary_cross_entropy_with_logits(logits, label), [*objective.parameters()]
    )
    for gamma in (0.0, 100.0):
        made = small(gamma=gamma)
        found = torch.autograd.grad(
            made(infer(z.clone().requires_grad_()), STEP), [*made.parameters()]
        )
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_gradients_of_the_codes_are_finite_differences():
    objective = small().double()
    z = correlated(6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(infer(z), STEP), z)


def test_each_latent_is_permuted_on_its_own():
    z = correlated(5000)
    permuted = small()._permuted(z, STEP)
    assert torch.equal(permuted.sort(0).values, z.sort(0).values)
    assert abs(np.corrcoef(permuted.T.numpy())[0, 1]) < 0.05
    moved = (permuted != z).float().mean(0)
    assert (moved > 0.99).all()


def test_permutations_are_a_function_of_the_seed_and_the_step():
    z = correlated(64)
    first = small()._permuted(z, STEP)
    again = small()._permuted(z, STEP)
    assert torch.equal(first, again)
    assert not torch.equal(first, small()._permuted(z, STEP + 1))
    assert not torch.equal(first, small(seed=1)._permuted(z, STEP))


def test_the_discriminator_has_its_own_optimiser_options_and_is_saved():
    objective = Factor(10)
    assert objective.optimizer_options == {"lr": 1e-4, "betas": (0.5, 0.9)}
    assert [tuple(p.shape) for p in objective.parameters()][::2] == [(1000, 10)] + [
        (1000, 1000)
    ] * 5 + [(1, 1000)]
    assert len(objective.state_dict()) == 14


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"latent_dim": 0}, "latent_dim is 0"),
        ({"latent_dim": 2, "gamma": -1}, "gamma is -1: expected a number of at least 0"),
        ({"latent_dim": 2, "hidden": [0]}, "hidden is 0"),
        ({"latent_dim": 2, "hidden": [4], "lr": -1}, "lr is -1"),
        ({"latent_dim": 2, "hidden": [4], "betas": [0.5, 2]}, "betas is 2"),
    ],
)
def test_bad_input_is_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Factor(**options)
