"""Importance-sampled log p(x) of linear-Gaussian models, whose log p(x) scipy knows."""

import math

import numpy as np
import pytest
import torch
from cases import some
from scipy import stats
from snapshots import exact_posterior, linear_vae, randn, random_matrices, snapshot_of

from jensen.diagnostics.evidence import evidence

DIM = 4
LATENTS = 2
NOISE = 0.6


def log_p(matrices, x):
    """log N(x; m, W W' + noise I) of each row."""
    decoder = matrices["decoder"].double().numpy()
    covariance = decoder @ decoder.T + NOISE * np.eye(DIM)
    return stats.multivariate_normal(matrices["start"].double().numpy(), covariance).logpdf(
        x.double().numpy()
    )


def bayes():
    """A model whose encoder is the exact posterior."""
    columns = torch.linalg.qr(randn(DIM, LATENTS, seed=5)).Q * torch.tensor([1.5, 0.7])
    return exact_posterior(columns, 0.4 * randn(DIM, seed=6), NOISE)


def loose():
    """The same decoder with an encoder that is not: wider and shifted."""
    matrices = bayes()
    return matrices | {"variance": 2.0 * matrices["variance"], "offset": matrices["offset"] + 0.3}


@pytest.mark.parametrize("seed", range(5))
def test_with_the_exact_posterior_any_single_draw_is_exact(seed):
    matrices = bayes()
    x = 1.5 * randn(40, DIM)
    found = evidence(snapshot_of(linear_vae(**matrices, noise=NOISE), x), samples=1, seed=seed)
    assert found["log_p"].item() == pytest.approx(log_p(matrices, x).mean(), abs=2e-5)
    found = evidence(snapshot_of(linear_vae(**matrices, noise=NOISE), x), samples=9, seed=seed)
    assert found["log_p"].item() == pytest.approx(log_p(matrices, x).mean(), abs=2e-5)
    assert found["gap"].item() == pytest.approx(0, abs=2e-5)


def test_the_standard_error_is_the_deviation_over_examples_by_the_root_of_their_number():
    matrices = bayes()
    x = 1.5 * randn(40, DIM)
    snapshot = snapshot_of(linear_vae(**matrices, noise=NOISE), x)
    for count in (7, 40):
        expected = np.std(log_p(matrices, x[:count]), ddof=1) / math.sqrt(count)
        assert evidence(snapshot, samples=2, count=count)["log_p_se"].item() == pytest.approx(
            expected, rel=1e-4
        )


def test_only_the_first_examples_are_used():
    matrices = bayes()
    x = 1.5 * randn(40, DIM)
    snapshot = snapshot_of(linear_vae(**matrices, noise=NOISE), x)
    assert evidence(snapshot, samples=1, count=3)["log_p"].item() == pytest.approx(
        log_p(matrices, x[:3]).mean(), abs=2e-5
    )
    assert (
        evidence(snapshot, samples=1, count=999)["log_p"]
        == evidence(snapshot, samples=1, count=40)["log_p"]
    )


@some(1, "make", [loose, lambda: random_matrices(DIM, LATENTS)], ids=["loose", "random"])
@pytest.mark.slow
def test_it_is_below_log_p_in_expectation_and_nearer_with_more_draws(make):
    matrices = make()
    x = randn(40, DIM)
    snapshot = snapshot_of(linear_vae(**matrices, noise=NOISE), x)
    truth = log_p(matrices, x).mean()
    short = []
    for samples, seeds in ((1, 60), (4, 40), (16, 30), (128, 10)):
        runs = np.array(
            [
                evidence(snapshot, samples=samples, seed=seed)["log_p"].item()
                for seed in range(seeds)
            ]
        )
        short.append(truth - runs.mean())
        assert short[-1] > -4 * runs.std(ddof=1) / math.sqrt(seeds)
    assert short == sorted(short, reverse=True)
    assert short[-1] < 0.3 * short[0]


def test_many_draws_give_log_p_and_the_gap_is_the_divergence_from_the_true_posterior():
    matrices = loose()
    x = randn(40, DIM)
    found = evidence(snapshot_of(linear_vae(**matrices, noise=NOISE), x), samples=2000)
    assert found["log_p"].item() == pytest.approx(log_p(matrices, x).mean(), abs=0.01)
    truth = bayes()
    q = torch.distributions.Normal(torch.zeros(LATENTS) + 0.3, matrices["variance"].sqrt())
    p = torch.distributions.Normal(torch.zeros(LATENTS), truth["variance"].sqrt())
    divergence = torch.distributions.kl_divergence(q, p).sum().item()
    assert found["gap"].item() == pytest.approx(divergence, abs=0.02)


def test_the_estimate_is_reproducible_and_its_seed_matters():
    snapshot = snapshot_of(linear_vae(**loose(), noise=NOISE), randn(40, DIM))
    first, again, other = (evidence(snapshot, samples=3, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first["log_p"] != other["log_p"]


def test_an_example_gets_the_same_draws_whatever_else_is_estimated():
    """Draw s of example n is a function of both: a count of 5 sees the noise that a count of 40
    sees.
    """
    seen = {}
    snapshot = snapshot_of(linear_vae(**loose(), noise=NOISE), randn(40, DIM))
    for count in (5, 40):
        noises = seen.setdefault(count, [])
        spied = snapshot._replace(
            infer=lambda x, noise, noises=noises: noises.append(noise) or snapshot.infer(x, noise)
        )
        evidence(spied, samples=3, count=count)
    few, many = (torch.stack(seen[count]) for count in (5, 40))
    assert torch.equal(few, many[:, :5])
    assert len(many.flatten().unique()) == many.numel()
    assert stats.kstest(many.flatten().numpy(), "norm").pvalue > 1e-3
