"""The contract of `family.exponential`, for every family: digits of the theory reference,
torch.distributions, differences, samples, and the Hessian of the log-normaliser.
"""

import pytest
import torch
from torch import distributions as other
from torch.autograd import gradcheck

from jensen.base.errors import InputError
from jensen.family import exponential, wishart
from jensen.family.bernoulli import Bernoulli
from jensen.family.beta import Beta
from jensen.family.categorical import Categorical
from jensen.family.dirichlet import Dirichlet
from jensen.family.gamma import Gamma
from jensen.family.multivariate import Normal
from jensen.family.normal_gamma import NormalGamma
from jensen.family.normal_wishart import NormalWishart
from jensen.family.poisson import Poisson
from jensen.family.wishart import Wishart


def real(*values):
    return torch.tensor(values, dtype=torch.float64)


def one(value):
    return torch.tensor(value, dtype=torch.float64)


def factor(*rows):
    return torch.linalg.cholesky(torch.tensor(rows, dtype=torch.float64))


PAIRS = {
    "bernoulli": (Bernoulli(one(0.3).logit()), Bernoulli(one(0.6).logit())),
    "categorical": (Categorical(real(0.2, 0.3, 0.5).log()), Categorical(real(1, 1, 1))),
    "poisson": (Poisson(one(3.0).log()), Poisson(one(5.0).log())),
    "normal": (Normal(real(1), factor([2.0])), Normal(real(0), factor([1.0]))),
    "two normals": (
        Normal(real(1, -2), factor([2.0, 0.8], [0.8, 1.0])),
        Normal(real(0, 0), factor([1.0, 0.0], [0.0, 1.0])),
    ),
    "gamma": (Gamma(one(2.5), one(1.5)), Gamma(one(4.0), one(1.0))),
    "beta": (Beta(one(2.0), one(5.0)), Beta(one(1.0), one(1.0))),
    "dirichlet": (Dirichlet(real(1, 2, 3)), Dirichlet(real(1, 1, 1))),
    "wishart": (
        Wishart(one(5.0), factor([0.5, 0.1], [0.1, 0.3])),
        Wishart(one(3.0), factor([1.0, 0.0], [0.0, 1.0])),
    ),
    "normal_gamma": (
        NormalGamma(real(1, -2), one(3.0), one(2.5), one(1.5)),
        NormalGamma(real(0, 0), one(1.0), one(4.0), one(1.0)),
    ),
    "normal_wishart": (
        NormalWishart(real(1, -2), one(3.0), one(5.0), factor([2.0, 0.3], [0.3, 1.0])),
        NormalWishart(real(0, 0), one(1.0), one(3.0), factor([1.0, 0.0], [0.0, 1.0])),
    ),
}
every_family = pytest.mark.parametrize("name", PAIRS)

DIGITS = {  # entropy and KL to the second of the pair
    "bernoulli": (0.610864302055, 0.183786897387),
    "categorical": (1.02965301406, 0.0689592746035),
    "poisson": (1.93147019815, 0.467523128702),
    "normal": (1.76551212348, 0.65342640972),
    "two normals": (2.99161941628, 2.84625765013),
    "gamma": (1.3244828014, 1.24086873689),
    "beta": (-0.484530714995, 0.484530714995),
    "dirichlet": (-1.24434456222, 0.551197381662),
    "wishart": (3.86137909477, 0.669645152195),
}

IN_TORCH = {
    "bernoulli": lambda p: other.Bernoulli(logits=p.logit),
    "categorical": lambda p: other.Categorical(logits=p.logit),
    "poisson": lambda p: other.Poisson(p.log_rate.exp()),
    "normal": lambda p: other.MultivariateNormal(p.mean, scale_tril=p.scale_tril),
    "two normals": lambda p: other.MultivariateNormal(p.mean, scale_tril=p.scale_tril),
    "gamma": lambda p: other.Gamma(*p),
    "beta": lambda p: other.Beta(*p),
    "dirichlet": lambda p: other.Dirichlet(*p),
    "wishart": lambda p: other.Wishart(p.df, scale_tril=p.scale_tril),
}


def close(found, expected, tolerance=1e-12):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.fixture(autouse=True)
def _quiet():
    """torch.distributions' Wishart samples by rejection, and says so."""
    torch.manual_seed(0)


@pytest.mark.parametrize("name", DIGITS)
def test_entropy_and_divergence_have_the_digits_of_the_reference(name):
    q, p = PAIRS[name]
    entropy, divergence = DIGITS[name]
    assert exponential.entropy(q).item() == pytest.approx(entropy, abs=6e-12)
    assert exponential.kl(q, p).item() == pytest.approx(divergence, abs=6e-12)
    assert exponential.kl(q, q).abs() < 1e-14


LARGE = {  # KL, and the entropy of the first, by mpmath with 50 digits
    "gamma": (Gamma(one(1e10), one(2e3)), Gamma(one(1e10 + 3e5), one(2e3 + 0.5)), 241.957254869032),
    "grown": (Gamma(one(1e10), one(2e3)), Gamma(one(1.5e10), one(3e3)), 0.0472674459473067),
    "tiny": (Gamma(one(1.68e-8), one(0.5)), Gamma(one(1.69e-8), one(0.5)), 1.76454325664042e-5),
    "beta": (Beta(one(1e10), one(3e9)), Beta(one(1e10 + 2e5), one(3e9)), 0.46153301786495),
    "dirichlet": (
        Dirichlet(real(1e10, 3e9, 2.0)),
        Dirichlet(real(2e10, 6e9, 3.0)),
        0.34434771351652,
    ),
    "poisson": (Poisson(one(23.0)), Poisson(one(23.00001)), 0.487241796413521),
    "normal": (  # (25 / 4 + 2 / 4 - 1 + log 2) / 2
        Normal(real(1e8), factor([2.0])),
        Normal(real(1e8 + 5), factor([4.0])),
        3.2215735902799727,
    ),
    "normal_gamma": (  # the gammas, and (1 / 2 - 1 + log 2 + 4 E precision 25) / 2
        NormalGamma(real(1e8), one(8.0), one(2.5), one(1.5)),
        NormalGamma(real(1e8 + 5), one(4.0), one(4.0), one(1.0)),
        1.24086873689 + 83.42990692361332,
    ),
}
ENTROPIES = {"gamma": 5.33096153859949, "beta": -11.0895197307101, "dirichlet": -32.8005192605627}


@pytest.mark.parametrize("name", LARGE)
def test_large_parameters_and_far_places_leave_divergences_their_digits(name):
    q, p, expected = LARGE[name]
    assert exponential.kl(q, p).item() == pytest.approx(expected, rel=1e-10)
    assert exponential.kl(q, q).abs() < 1e-14
    if name in ENTROPIES:
        assert exponential.entropy(q).item() == pytest.approx(ENTROPIES[name], abs=1e-12)


@pytest.mark.parametrize("rate", [0.5, 299.0, 301.0])
def test_the_entropy_of_counts_is_their_sum_below_and_above_where_it_is_a_series(rate):
    p = Poisson(one(rate).log())
    counts = torch.arange(700, dtype=torch.float64)
    log_chance = other.Poisson(one(rate)).log_prob(counts)
    expected = -(log_chance.exp() * log_chance).sum()
    close(exponential.entropy(p), expected, 2e-10)  # torch's log_prob has 1e-13 of 1,700
    close(p.expected_log_base(), rate * (1 - p.log_rate) - expected, 2e-10)
    assert exponential.entropy(Poisson(one(23.0))).item() == pytest.approx(12.9189385331961)


def test_a_nearly_certain_bit_keeps_its_digits():
    q, p = (Bernoulli(one(logit)) for logit in (20.5, 24.0))
    close(q.log_normaliser() - 20.5, one(1.250152865605e-9), 1e-15)
    close(exponential.kl(q, p), one(3.163133506720e-9), 1e-14)


def test_expected_statistics_have_the_digits_of_the_reference():
    close(PAIRS["gamma"][0].mean_parameters(), real(0.297691532537, 5 / 3))
    close(PAIRS["beta"][0].mean_parameters(), real(-1.45, -0.366666666667))
    logs = real(-2.283333333333, -1.283333333333, -0.783333333333)
    close(PAIRS["dirichlet"][0].mean_parameters(), logs)
    close(PAIRS["wishart"][0].mean_parameters()[0], one(0.546122480491))
    close(exponential.fisher(PAIRS["bernoulli"][0]), real(0.21).reshape(1, 1))
    normal, two = PAIRS["normal"], PAIRS["two normals"]
    close(normal[0].natural(), real(0.5, -0.25))
    close(exponential.fisher(normal[0]), torch.stack([real(2, 4), real(4, 16)]))
    close(normal[0].log_normaliser(), one(1.51551212348), 6e-12)
    close(two[0].log_normaliser(), one(6.47691353393), 6e-12)
    close(exponential.kl(*reversed(normal)), one(0.34657359028), 6e-12)
    close(exponential.kl(*reversed(two)), one(4.74197764399), 6e-12)
    expected = torch.stack([real(0.490357756100, 2 / 3), real(2 / 3, 10 / 9)])
    close(exponential.fisher(PAIRS["gamma"][0]), expected, 2e-10)  # torch's trigamma


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", IN_TORCH)
def test_density_and_divergence_are_those_of_torch(name):
    q, p = PAIRS[name]
    theirs = IN_TORCH[name](q)
    x = theirs.sample((20,))
    close(exponential.log_density(x, q), theirs.log_prob(x))
    close(exponential.kl(q, p), other.kl_divergence(theirs, IN_TORCH[name](p)))


@every_family
def test_natural_and_mean_parameters_name_the_distribution(name):
    for p in PAIRS[name]:
        family = type(p)
        m = p.mean_parameters()
        close(family.of_natural(p.natural()).mean_parameters(), m)
        again = family.of_mean(m)
        close(again.mean_parameters(), m, 1e-11)
        close(again.natural(), p.natural(), 1e-9)


@every_family
def test_fisher_is_the_jacobian_of_the_mean_parameters_and_natural_gradients_are_theirs(name):
    q, p = PAIRS[name]
    family = type(q)
    eta = q.natural()
    jacobian = torch.func.jacrev(lambda eta: family.of_natural(eta).mean_parameters())(eta)
    close(exponential.fisher(q), jacobian, 1e-9)
    slope = torch.func.grad(lambda eta: exponential.kl(family.of_natural(eta), p))(eta)
    # the gradient of KL in q's mean parameters is the difference of natural ones
    close(exponential.natural_gradient(q, slope), q.natural() - p.natural(), 1e-8)


SAMPLES = {
    **IN_TORCH,
    "normal_gamma": None,
    "normal_wishart": None,
}


def drawn(name, count):
    """Draws of the first of the pair, as `statistics` takes them."""
    p = PAIRS[name][0]
    if name == "normal_gamma":
        precision = other.Gamma(p.shape, p.rate).sample((count, 1))
        noise = torch.randn(count, 2, dtype=torch.float64) / (p.mean_count * precision).sqrt()
        return torch.cat([precision, p.mean + noise], -1)
    if name == "normal_wishart":
        scale = torch.linalg.inv(p.scatter_tril @ p.scatter_tril.mT)
        roots = torch.randn(count, int(p.df), 2, dtype=torch.float64)
        roots = roots @ torch.linalg.cholesky(scale).mT
        precision = roots.mT @ roots
        width = torch.linalg.cholesky(torch.linalg.inv(p.mean_count * precision))
        noise = width @ torch.randn(count, 2, 1, dtype=torch.float64)
        return torch.cat([precision, p.mean.unsqueeze(-1) + noise], -1)
    if name == "wishart":
        roots = torch.randn(count, int(p.df), 2, dtype=torch.float64) @ p.scale_tril.mT
        return roots.mT @ roots
    return IN_TORCH[name](p).sample((count,))


@every_family
def test_fisher_and_mean_parameters_are_the_covariance_and_mean_of_samples(name):
    p = PAIRS[name][0]
    t = p.statistics(drawn(name, 40_000)).double()
    scale = t.std(0)
    assert ((t.mean(0) - p.mean_parameters()) / scale).abs().max() < 5 / 200
    correlation = exponential.fisher(p) / (scale.unsqueeze(-1) * scale)
    found = torch.cov(t.T).reshape(correlation.shape) / (scale.unsqueeze(-1) * scale)
    assert (found - correlation).abs().max() < 0.1


@every_family
def test_divergences_have_gradients_in_both_arguments(name):
    q, p = PAIRS[name]
    family = type(q)

    def divergence(first, second):
        return exponential.kl(family.of_natural(first), family.of_natural(second))

    parts = [each.natural().clone().requires_grad_() for each in (q, p)]
    assert gradcheck(divergence, parts)


@pytest.mark.parametrize("name", ["gamma", "beta", "dirichlet", "wishart", "normal_wishart"])
def test_parameters_found_by_newton_have_the_gradient_of_the_implicit_function(name):
    q = PAIRS[name][0]
    family = type(q)
    m = q.mean_parameters().clone().requires_grad_()
    jacobian = torch.autograd.functional.jacobian(lambda m: family.of_mean(m).natural(), m)
    close(jacobian @ exponential.fisher(q), torch.eye(len(m), dtype=torch.float64), 1e-6)


@pytest.mark.parametrize(
    "concentration",
    [(1e-3, 1e-3), (1e-3, 5), (1e4, 1e-2), (1e6, 2e6), (3, 4, 100, 1e-2), (0.5,) * 6],
)
def test_newton_finds_concentrations_of_every_magnitude(concentration):
    p = Dirichlet(real(*concentration))
    found = Dirichlet.of_mean(p.mean_parameters()).concentration
    close(found / p.concentration, torch.ones_like(found), 1e-7)


@pytest.mark.parametrize("shape", [1e-3, 0.1, 1.0, 100.0, 1e6])
def test_newton_finds_shapes_of_every_magnitude(shape):
    p = Gamma(real(shape, shape), real(3.0, 1e-4))
    close(Gamma.of_mean(p.mean_parameters()).shape / shape, real(1, 1), 1e-8)
    many = Wishart(one(shape + 2), factor([2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 1.0]))
    close(Wishart.of_mean(many.mean_parameters()).df / many.df, one(1.0), 1e-8)


@pytest.mark.parametrize(
    ("family", "m", "found"),
    [
        (Gamma, (1.0, 2.0), "log E x - E log x is -0.306853"),
        (Gamma, (float("nan"), 2.0), "is nan"),
        (Dirichlet, (-0.1, -0.2), "E log p is -0.1, -0.2"),
    ],
)
def test_means_that_no_distribution_has_are_refused_in_a_sentence(family, m, found):
    with pytest.raises(InputError, match=found):
        family.of_mean(real(*m))


def test_leading_axes_are_stacks():
    p = Gamma(torch.rand(2, 3, dtype=torch.float64) + 1, torch.rand(2, 3, dtype=torch.float64) + 1)
    alone = Gamma(p.shape[1, 2], p.rate[1, 2])
    close(exponential.entropy(p)[1, 2], exponential.entropy(alone))
    close(exponential.fisher(p)[1, 2], exponential.fisher(alone))
    close(Gamma.of_mean(p.mean_parameters()).shape, p.shape, 1e-10)


def test_triangles_are_inner_products():
    a, b = (factor([2.0, 0.3], [0.3, 1.0]) @ factor([v, 0.1], [0.1, 1.0]) for v in (2.0, 3.0))
    a, b = a @ a.mT, b @ b.mT
    close((wishart.packed_inner(a) * wishart.packed(b)).sum(), (a @ b).trace())
    close(wishart.unpacked(wishart.packed(a), 2), a)
    close(wishart.unpacked_inner(wishart.packed_inner(a), 2), a)
