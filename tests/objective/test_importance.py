"""The importance-weighted bound on a model whose log-likelihood is known: x = W z + m + noise."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal, kl_divergence

from jensen.base.errors import InputError
from jensen.bound.bound import Bound, Inference
from jensen.family.gaussian import Gaussian
from jensen.objective.importance import Importance

STEP = torch.tensor(0)
W = torch.tensor([[1.0, 0.2], [0.3, -0.8], [0.5, 0.5]], dtype=torch.float64)
NOISE = 0.6
X = torch.tensor([[0.5, -1.0, 0.3], [2.0, 0.1, 0.7], [-0.4, 0.9, -1.5]], dtype=torch.float64)


def q(x):
    """Near the true posterior, not it: shrunk, and too wide."""
    precision = W.T @ W + NOISE**2 * torch.eye(2, dtype=torch.float64)
    mean = 0.9 * x @ W @ precision.inverse()
    log_var = (1.3 * NOISE**2 * precision.inverse().diagonal()).log().expand_as(mean)
    return mean, log_var


def infer(mean, log_var, noise):
    """`noise` `(K, B, D)`; rows i, i + B, ... are example i's."""
    times = len(noise)
    x = X.repeat(times, 1)
    mean = mean.repeat(times, 1)
    log_var = log_var.repeat(times, 1)
    z = mean + (log_var / 2).exp() * noise.flatten(0, 1)
    distortion = -Normal(z @ W.T, NOISE).log_prob(x).sum(1)
    rate = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).sum(1)
    return Inference(
        Bound(distortion, rate), Gaussian(mean, log_var), z, Normal(0.0, 1.0).log_prob(z).sum(1)
    )


def draw(samples, seed=0):
    return torch.randn(
        samples, len(X), 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def log_likelihood():
    return (
        stats.multivariate_normal(np.zeros(3), (W @ W.T).numpy() + NOISE**2 * np.eye(3))
        .logpdf(X.numpy())
        .mean()
    )


def test_one_sample_is_the_elbo_with_the_sampled_rate():
    inference = infer(*q(X), draw(1))
    mean, log_var = inference.posterior
    sampled = Normal(mean, (log_var / 2).exp()).log_prob(inference.z).sum(1) - inference.log_prior
    torch.testing.assert_close(
        Importance(1)(inference, STEP), (inference.bound.distortion + sampled).mean()
    )


def test_one_sample_is_the_negative_elbo_in_expectation():
    inference = infer(*q(X), draw(20_000))
    elbo, mean, log_var = inference.bound.elbo, *inference.posterior
    sampled = (
        inference.log_prior
        - Normal(mean, (log_var / 2).exp()).log_prob(inference.z).sum(1)
        + inference.bound.rate
    )
    error = (elbo + sampled).std().item() / math.sqrt(len(elbo))
    assert Importance(1)(inference, STEP).item() == pytest.approx(
        -elbo.mean().item(), abs=4 * error
    )
    assert error < 0.01


def test_the_loss_by_hand():
    inference = infer(*q(X), draw(3))
    mean, log_var = (part.numpy() for part in inference.posterior)
    log_q = stats.norm(mean, np.exp(log_var / 2)).logpdf(inference.z.numpy()).sum(1)
    weights = np.exp(inference.log_prior.numpy() - inference.bound.distortion.numpy() - log_q)
    expected = -np.mean([np.log(np.mean(weights[row::3])) for row in range(3)])
    assert Importance(3)(inference, STEP).item() == pytest.approx(expected, rel=1e-12)
    shares = [weights[row::3] / weights[row::3].sum() for row in range(3)]
    expected = np.mean([1 / np.square(share).sum() for share in shares])
    assert Importance(3).terms(inference, STEP)["effective_samples"].item() == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.slow
def test_with_more_samples_it_approaches_the_log_likelihood_from_below():
    truth = log_likelihood()
    noise = draw(40_000)
    bounds = []
    for samples in (1, 5, 50, 2000):
        repeats = [
            infer(*q(X), part) for part in noise.split(samples)[: 40 if samples > 40 else 1000]
        ]
        bounds.append(
            -torch.stack([Importance(samples)(inference, STEP) for inference in repeats])
            .mean()
            .item()
        )
    assert bounds == sorted(bounds)
    assert bounds[0] < truth - 0.05
    assert bounds[-1] == pytest.approx(truth, abs=2e-3)


def test_gradients_are_finite_differences():
    leaves = [part.clone().requires_grad_() for part in q(X)]
    noise = draw(4)
    assert torch.autograd.gradcheck(
        lambda *parts: Importance(4)(infer(*parts, noise), STEP), leaves
    )


def test_the_model_is_told_how_many_samples():
    assert Importance(7).samples == 7
    with pytest.raises(InputError, match="samples is 0: expected an integer of at least 1"):
        Importance(0)
