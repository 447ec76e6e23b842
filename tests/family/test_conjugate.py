"""Conjugate pairs: the digits of the theory reference, and quadrature over the parameters."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from jensen.base.errors import InputError
from jensen.family import conjugate
from jensen.family.beta import Beta
from jensen.family.dirichlet import Dirichlet
from jensen.family.gamma import Gamma
from jensen.family.normal_gamma import NormalGamma
from jensen.family.normal_wishart import NormalWishart
from jensen.family.wishart import packed


def real(*values):
    return torch.tensor(values, dtype=torch.float64)


def one(value):
    return torch.tensor(value, dtype=torch.float64)


def close(found, expected, tolerance=1e-11):
    assert float(found) == pytest.approx(float(expected), rel=tolerance, abs=tolerance)


def test_tosses_of_a_coin():
    prior = Beta(one(1.0), one(1.0))
    later = conjugate.posterior(prior, real(14), one(20.0))
    assert (later.a.item(), later.b.item()) == (15, 7)
    close(conjugate.predictive(later, one(1.0)).exp(), 0.681818181818)
    close(conjugate.evidence(prior, real(14), one(20.0)), -13.6096665037)


def test_counts():
    x = real(3, 1, 4, 1, 5)
    prior = Gamma(one(2.0), one(1.0))
    base = -torch.lgamma(x + 1).sum()
    assert tuple(conjugate.posterior(prior, real(14), one(5.0))) == (16, 6)
    close(conjugate.evidence(prior, real(14), one(5.0), base), -10.5261851662)
    expected = stats.nbinom.logpmf(4, 16, 6 / 7)
    close(conjugate.predictive(Gamma(one(16.0), one(6.0)), one(4.0)), expected)


def test_categories():
    prior = Dirichlet(real(1, 1, 1))
    counts = real(3, 0)  # and 5 of the last
    close(conjugate.evidence(prior, counts, one(8.0)), -7.83201418051)
    later = conjugate.posterior(prior, counts, one(8.0))
    found = conjugate.predictive(later, torch.arange(3)).exp()
    torch.testing.assert_close(found, real(4, 1, 6) / 11)


X = np.array([0.3, -1.2, 2.0, 0.7])


def test_a_gaussian_of_unknown_precision_by_quadrature():
    prior = NormalGamma(real(0.4), one(1.5), one(2.0), one(0.8))
    sums = real(X.sum(), (X**2).sum())

    mean = np.linspace(-12, 12, 2001)[:, None]
    log_precision = np.linspace(-12, 6, 1501)
    precision = np.exp(log_precision)
    density = stats.gamma.logpdf(precision, 2, scale=1 / 0.8) + log_precision
    density = density + stats.norm.logpdf(mean, 0.4, 1 / np.sqrt(1.5 * precision))
    for x in X:
        density = density + stats.norm.logpdf(x, mean, 1 / np.sqrt(precision))
    value = (
        np.exp(density).sum() * (mean[1, 0] - mean[0, 0]) * (log_precision[1] - log_precision[0])
    )
    close(conjugate.evidence(prior, sums, one(4.0)), math.log(value), 1e-6)
    later = conjugate.posterior(prior, sums, one(4.0))
    width = math.sqrt(later.rate * (1 + 1 / later.mean_count) / later.shape)
    expected = stats.t.logpdf(1.1, 2 * later.shape.item(), later.mean.item(), width)
    close(conjugate.predictive(later, real(1.1)), expected)


def test_a_gaussian_of_unknown_covariance_is_a_chain_of_student_ts():
    """p(x1, x2, ...) = p(x1) p(x2 | x1) ..., each of them scipy's multivariate t."""
    scatter = np.array([[2.0, 0.5], [0.5, 1.0]])
    prior = NormalWishart(
        real(0.2, -0.1), one(1.5), one(2.5), torch.linalg.cholesky(torch.tensor(scatter))
    )
    x = np.random.default_rng(0).normal(size=(5, 2))
    total = 0.0
    belief = prior
    for row in torch.tensor(x):
        df = belief.df.item() - 1
        inverse = (belief.scatter_tril @ belief.scatter_tril.mT).numpy()
        shape = inverse * (belief.mean_count.item() + 1) / (belief.mean_count.item() * df)
        expected = stats.multivariate_t.logpdf(row.numpy(), belief.mean.numpy(), shape, df)
        close(conjugate.predictive(belief, row), expected)
        total += expected
        sums = torch.cat([row, packed(row[:, None] * row)])
        belief = conjugate.posterior(belief, sums, one(1.0))
    whole = torch.tensor(x)
    sums = torch.cat([whole.sum(0), packed(whole.T @ whole)])
    close(conjugate.evidence(prior, sums, one(5.0)), total)


def test_a_spherical_gaussian_is_a_product_where_the_precision_is_shared():
    prior = NormalGamma(real(0.2, -0.1), one(1.5), one(2.0), one(0.8))
    x = real(0.5, 1.0)
    sums = torch.cat([x, x.square().sum()[None]])
    found = conjugate.predictive(prior, x)
    close(found, conjugate.evidence(prior, sums, one(1.0)))
    shape = np.eye(2) * 0.8 * (1 + 1 / 1.5) / 2
    close(found, stats.multivariate_t.logpdf(x.numpy(), [0.2, -0.1], shape, 4))


@pytest.mark.parametrize(
    ("belief", "said"),
    [
        (Beta(one(1.0), one(-1.0)), "b of a Beta holds -1: expected numbers above 0"),
        (Gamma(one(0.0), one(1.0)), "shape of a Gamma holds 0"),
        (Gamma(one(1.0), one(math.nan)), "rate of a Gamma holds nan"),
        (Dirichlet(real(1.0, 0.0)), "concentration of a Dirichlet holds 0"),
        (
            NormalWishart(real(0.0, 0.0), one(1.0), one(1.0), torch.eye(2).double()),
            "df of a NormalWishart holds 1: expected numbers above 1",
        ),
        (
            NormalWishart(real(0.0, 0.0), one(1.0), one(2.0), -torch.eye(2).double()),
            "scatter_tril of a NormalWishart holds -1: expected a diagonal of numbers above 0",
        ),
    ],
)
def test_a_belief_that_is_no_distribution_is_refused_in_a_sentence(belief, said):
    for ask in (
        lambda: conjugate.posterior(belief, real(1.0), one(2.0)),
        lambda: conjugate.evidence(belief, real(1.0), one(2.0)),
        lambda: conjugate.predictive(belief, real(1.0)),
    ):
        with pytest.raises(InputError, match=said):
            ask()


def test_without_the_look_at_values_a_stack_of_beliefs_is_mapped():
    """`grown` and a belief's own methods under vmap, beside the functions that check, one by one."""
    a, b, ones = (
        torch.rand(5, generator=torch.Generator().manual_seed(seed)).double() + 0.5
        for seed in range(3)
    )

    def each(a, b, ones):
        prior = Beta(a, b)
        later = prior.updated(ones.unsqueeze(-1), torch.tensor(4.0).double())
        gained = conjugate.grown(prior, ones.unsqueeze(-1), torch.tensor(4.0).double())
        return gained, later.predictive(torch.tensor(1.0).double())

    found = torch.func.vmap(each)(a, b, ones)
    for row in range(5):
        prior = Beta(a[row], b[row])
        seen = ones[row : row + 1], one(4.0)
        close(found[0][row], conjugate.evidence(prior, *seen))
        later = conjugate.posterior(prior, *seen)
        close(found[1][row], conjugate.predictive(later, one(1.0)))
