"""The standard normal prior, against torch.distributions."""

import torch
from priors import draws_of, latent_rate_of, log_prob_of, rate_of
from scipy import stats
from torch import distributions

from jensen.family.gaussian import Gaussian
from jensen.model.prior import StandardNormal

POSTERIOR = Gaussian(*torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)))
PRIOR = StandardNormal()


def test_the_rate_is_the_divergence_from_the_prior():
    q = distributions.Normal(POSTERIOR.mean, (POSTERIOR.log_var / 2).exp())
    expected = distributions.kl_divergence(q, distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(latent_rate_of(PRIOR, POSTERIOR), expected)
    torch.testing.assert_close(rate_of(PRIOR, POSTERIOR, POSTERIOR.mean), expected.sum(1))


def test_the_rate_of_the_prior_itself_is_zero():
    zero = torch.zeros(3, 4)
    assert torch.equal(rate_of(PRIOR, Gaussian(zero, zero), zero), torch.zeros(3))


def test_log_prob_is_the_joint_density():
    z = 3 * POSTERIOR.mean
    expected = distributions.MultivariateNormal(torch.zeros(4), torch.eye(4)).log_prob(z)
    torch.testing.assert_close(log_prob_of(PRIOR, z), expected)


def test_samples_are_standard_normal_and_those_of_their_example():
    draws = draws_of(PRIOR, 5, torch.arange(50_000), 4)
    assert draws.shape == (50_000, 4)
    assert (draws.mean(0).abs() < 4 / 50_000**0.5).all()
    assert (torch.cov(draws.T) - torch.eye(4)).abs().max() < 0.03
    assert stats.kstest(draws.flatten().double().numpy(), "norm").pvalue > 1e-3
    assert torch.equal(draws_of(PRIOR, 5, torch.tensor([30_000, 7]), 4), draws[[30_000, 7]])
    assert not torch.equal(draws_of(PRIOR, 6, torch.tensor([7]), 4), draws[[7]])


def test_the_prior_has_nothing_to_learn_or_store():
    assert not list(PRIOR.parameters())
    assert not PRIOR.state_dict()
