"""Distribution functions, distances and divergences of a fitted mixture, against scipy."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from mixtures import STRUCTURES, covariance, mixed, normal
from scipy import integrate, stats

from jensen import GMM, Gaussian, Mixture
from jensen.base.errors import InputError


def line(weights=(0.3, 0.7), means=(0.0, 5.0), variances=(1.0, 4.0)):
    weight, mean, variance = (
        torch.tensor(each, dtype=torch.float64) for each in (weights, means, variances)
    )
    return GMM.of(Mixture(weight.log(), Gaussian(mean[:, None], variance.log()[:, None])))


def test_the_distribution_function_is_scipy_s():
    gmm = line()
    x = np.linspace(-6, 14, 41)
    expected = 0.3 * stats.norm(0, 1).cdf(x) + 0.7 * stats.norm(5, 2).cdf(x)
    np.testing.assert_allclose(gmm.cdf(x).numpy(), expected, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(gmm.cdf(x[:, None]).numpy(), expected, rtol=1e-12, atol=1e-300)


def test_quantiles_are_its_inverse_in_both_tails():
    gmm = line()
    q = torch.tensor([1e-12, 1e-4, 0.05, 0.3, 0.5, 0.9, 1 - 1e-10], dtype=torch.float64)
    x = gmm.quantile(q)
    torch.testing.assert_close(gmm.cdf(x), q, rtol=1e-9, atol=1e-14)
    assert (x.diff() > 0).all()
    tail = 0.3 * stats.norm(0, 1).sf(x[-1]) + 0.7 * stats.norm(5, 2).sf(x[-1])
    assert tail == pytest.approx(1 - q[-1].item(), rel=1e-9)
    far = line(means=(0.0, 1e6))
    torch.testing.assert_close(far.cdf(far.quantile(q)), q, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_distances_are_mahalanobis_s(structure):
    p = mixed(structure)
    gmm = GMM.of(p)
    x = normal(20, 4)
    found = gmm.mahalanobis(x)
    assert found.shape == (20, 3)
    for k, cov in enumerate(covariance(p.components)):
        move = x - p.components.mean[k]
        torch.testing.assert_close(found[:, k].square(), (move @ cov.inverse() * move).sum(1))


def test_the_entropy_is_exact_where_it_can_be_and_has_an_error_elsewhere():
    gmm = line()

    def integrand(x):
        density = 0.3 * NormalDist(0, 1).pdf(x) + 0.7 * NormalDist(5, 2).pdf(x)
        return -density * np.log(density)

    expected = integrate.quad(integrand, -12, 25, limit=300)[0]
    assert gmm.entropy().value.item() == pytest.approx(expected, abs=1e-9)
    assert gmm.entropy().standard_error == 0
    alone = GMM.of(mixed(STRUCTURES[0], k=1))
    cov = covariance(alone.mixture.components)[0].numpy()
    expected = stats.multivariate_normal(np.zeros(4), cov).entropy()
    assert alone.entropy().value.item() == pytest.approx(expected)
    several = GMM.of(mixed(STRUCTURES[0]))
    value, error = several.entropy(20_000)
    mean = -several.log_prob(several.sample(200_000, seed=8))
    expected, theirs = mean.mean().item(), (mean.std() / 200_000**0.5).item()
    assert value.item() == pytest.approx(expected, abs=4 * math.hypot(error, theirs))
    assert 0 < error < 0.02


def test_the_kl_lies_between_its_bounds_and_is_nought_to_itself():
    p, q = line(), line(weights=(0.5, 0.5), means=(1.0, 4.0))
    found = p.kl(q)

    def integrand(x):
        ours = 0.3 * NormalDist(0, 1).pdf(x) + 0.7 * NormalDist(5, 2).pdf(x)
        theirs = 0.5 * NormalDist(1, 1).pdf(x) + 0.5 * NormalDist(4, 2).pdf(x)
        return ours * np.log(ours / theirs)

    assert found.value.item() == pytest.approx(integrate.quad(integrand, -10, 25, limit=300)[0])
    assert found.lower <= found.value <= found.upper
    assert p.kl(p).value.item() == pytest.approx(0, abs=1e-12)
    wide, other = GMM.of(mixed(STRUCTURES[0])), GMM.of(mixed(STRUCTURES[0], seed=3))
    found = wide.kl(other.mixture)
    assert found.lower - 4 * found.standard_error <= found.value
    assert found.value <= found.upper + 4 * found.standard_error
    assert found.standard_error > 0


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: GMM.of(mixed(STRUCTURES[0])).cdf(torch.zeros(3, 4)), "4 dimensions: expected 1"),
        (lambda: GMM.of(mixed(STRUCTURES[0])).quantile(0.5), "4 dimensions: expected 1"),
        (lambda: line().quantile(1.0), "q holds 1: expected numbers between 0 and 1"),
        (lambda: line().quantile([0.5, -0.1]), "q holds -0.1"),
        (lambda: line().kl(3), "other is a int: expected a GMM"),
        (lambda: line().kl(mixed(STRUCTURES[0])), "other has 4 dimensions: expected 1"),
        (lambda: line().entropy(1), "samples is 1"),
    ],
)
def test_what_has_no_answer_is_refused_in_a_sentence(ask, said):
    with pytest.raises(InputError, match=said):
        ask()
