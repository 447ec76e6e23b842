"""Diagonal Gaussians, against torch.distributions, quadrature and finite differences."""

import math
from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import distributions

from jensen.family import gaussian
from jensen.family.gaussian import LOG_VAR_BOUND, MEAN_BOUND, Gaussian, bounded

EXTREMES = torch.tensor(
    [sign * size for size in (0.0, 1.0, 1e3, 1e30, math.inf) for sign in (1, -1)]
)

few = settings(derandomize=True, deadline=None, max_examples=15)
means = st.floats(-10, 10)
log_vars = st.floats(-8, 8)


def random(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    mean, log_var = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return Gaussian(mean.to(dtype), (2 * log_var).to(dtype))


def normal(q):
    return distributions.Normal(q.mean, (q.log_var / 2).exp())


def scipy_normal(mean, log_var):
    return stats.norm(mean, math.exp(log_var / 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3), (0, 3), ()])
def test_every_function_agrees_with_torch_distributions(shape, dtype):
    q = random(*shape, dtype=dtype)
    p = random(*shape, seed=1, dtype=dtype)
    x = random(*shape, seed=2, dtype=dtype).mean
    torch.testing.assert_close(gaussian.log_density(x, q), normal(q).log_prob(x))
    torch.testing.assert_close(gaussian.entropy(q), normal(q).entropy())
    torch.testing.assert_close(gaussian.kl(q, p), distributions.kl_divergence(normal(q), normal(p)))
    noise = torch.full_like(x, 1.5)
    torch.testing.assert_close(
        normal(q).cdf(gaussian.sample(q, noise)), distributions.Normal(0, 1).cdf(noise)
    )


def test_functions_reduce_nothing_and_broadcast():
    q = random(4, 1, 3)
    p = random(5, 3, seed=1)
    assert gaussian.kl(q, p).shape == gaussian.log_density(q.mean, p).shape == (4, 5, 3)
    assert torch.equal(
        gaussian.kl(q, p)[2, 3],
        gaussian.kl(Gaussian(*(part[2, 0] for part in q)), Gaussian(p[0][3], p[1][3])),
    )


@given(means, log_vars, means, log_vars)
@few
def test_kl_and_entropy_are_their_integrals(mean, log_var, other_mean, other_log_var):
    mine = [
        Gaussian(*torch.tensor(pair, dtype=torch.float64))
        for pair in ((mean, log_var), (other_mean, other_log_var))
    ]

    def log_density(x, mean, log_var):
        return -(((x - mean) / math.exp(log_var / 2)) ** 2 + log_var + math.log(2 * math.pi)) / 2

    def expectation(value):
        return integrate.quad(
            lambda u: NormalDist().pdf(u) * value(mean + math.exp(log_var / 2) * u),
            -12,
            12,
            epsabs=1e-12,
            limit=200,
        )[0]

    assert gaussian.entropy(mine[0]).item() == pytest.approx(
        expectation(lambda x: -log_density(x, mean, log_var)), rel=1e-8, abs=1e-8
    )
    expected = expectation(
        lambda x: log_density(x, mean, log_var) - log_density(x, other_mean, other_log_var)
    )
    assert gaussian.kl(*mine).item() == pytest.approx(expected, rel=1e-8, abs=1e-8)


@given(means, log_vars)
@few
def test_a_density_integrates_to_one(mean, log_var):
    p = Gaussian(*torch.tensor((mean, log_var), dtype=torch.float64))
    deviation = math.exp(log_var / 2)
    total, _ = integrate.quad(
        lambda x: gaussian.log_density(torch.tensor(x, dtype=torch.float64), p).exp().item(),
        mean - 12 * deviation,
        mean + 12 * deviation,
        points=[mean],
    )
    assert total == pytest.approx(1, abs=1e-9)


def test_samples_of_standard_noise_have_the_moments_of_the_gaussian():
    q = Gaussian(torch.tensor([-3.0, 0.5]), torch.tensor([-2.0, 3.0]))
    draws = gaussian.sample(q, torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0)))
    for column, mean, log_var in zip(draws.T, *(part.tolist() for part in q), strict=True):
        assert stats.kstest(column.numpy(), scipy_normal(mean, log_var).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["sample", "log_density", "kl", "entropy", "bounded"])
def test_gradients_are_those_of_finite_differences(name):
    parts = [part.requires_grad_() for seed in (0, 1) for part in random(4, 3, seed=seed)]
    value = {
        "sample": lambda a, b, c, d: gaussian.sample(Gaussian(a, b), c),
        "log_density": lambda a, b, c, d: gaussian.log_density(c, Gaussian(a, b)),
        "kl": lambda a, b, c, d: gaussian.kl(Gaussian(a, b), Gaussian(c, d)),
        "entropy": lambda a, b, c, d: gaussian.entropy(Gaussian(a, b)),
        "bounded": lambda a, b, c, d: tuple(bounded(Gaussian(a, b))),
    }[name]
    assert torch.autograd.gradcheck(value, parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_to_itself_is_zero(dtype):
    q = bounded(random(1000, dtype=dtype))
    assert torch.equal(gaussian.kl(q, q), torch.zeros(1000, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_is_never_negative(dtype):
    size = torch.logspace(-12, math.log10(2 * LOG_VAR_BOUND), 100_000, dtype=dtype)
    difference = torch.cat([size, -size])
    for other in (0.0, 1.0, -7.3):
        zero = torch.zeros_like(difference)
        assert (
            gaussian.kl(Gaussian(zero, difference + other), Gaussian(zero, zero + other)).min() >= 0
        )


@pytest.mark.parametrize("difference", [1e-9, -1e-9, 1e-6, 1e-4])
def test_kl_is_precise_where_the_variances_nearly_agree(difference):
    zero = torch.zeros((), dtype=torch.float64)
    series = difference**2 / 4 + difference**3 / 12
    assert gaussian.kl(
        Gaussian(zero, zero + difference), Gaussian(zero, zero)
    ).item() == pytest.approx(series, rel=1e-6)


@pytest.mark.parametrize("difference", [1e-2, -1e-2, 1e-3, -1e-3, 1e-4])
def test_kl_is_precise_in_float32_too(difference):
    zero = torch.zeros(())
    q = Gaussian(zero, zero + difference)
    exact = q.log_var.double()
    expected = (exact**2 / 4 + exact**3 / 12 + exact**4 / 48).item()
    # exp(d) - d - 1 would err by eps / d^2: 0.1 at 1e-3
    tolerance = 4 * torch.finfo(torch.float32).eps / abs(difference)
    assert gaussian.kl(q, Gaussian(zero, zero)).item() == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_short_cut_for_the_standard_normal_is_the_general_formula_bit_for_bit(dtype):
    raw = random(64, 7, dtype=dtype)
    noise = random(64, 7, seed=1, dtype=dtype).mean
    found = []
    for p in (gaussian.STANDARD, Gaussian(torch.zeros(()), torch.zeros(()))):
        q = Gaussian(*(part.clone().requires_grad_() for part in raw))
        z = gaussian.sample(q, noise)
        kl = gaussian.kl(q, p)
        density = gaussian.log_density(z, p)
        (kl.sum(-1).mean() - density.sum()).backward()
        found.append((kl, density, q.mean.grad, q.log_var.grad))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_standard_is_the_standard_normal_in_the_dtype_asked_for():
    for dtype in (torch.float32, torch.float64):
        p = gaussian.standard(torch.ones(2, 3, dtype=dtype))
        assert p.mean.dtype == p.log_var.dtype == dtype
        x = torch.linspace(-3, 3, 6, dtype=dtype).reshape(2, 3)
        torch.testing.assert_close(
            gaussian.log_density(x, p), distributions.Normal(0, 1).log_prob(x)
        )


def test_everything_is_finite_at_any_encoder_output():
    leaves = [
        leaf.flatten().clone().requires_grad_()
        for leaf in torch.meshgrid(*[EXTREMES] * 4, indexing="ij")
    ]
    q = bounded(Gaussian(*leaves[:2]))
    p = bounded(Gaussian(*leaves[2:]))
    x = gaussian.sample(q, torch.linspace(-5.8, 5.8, len(leaves[0])))
    values = {
        "mean": q.mean,
        "log_var": q.log_var,
        "sample": x,
        "kl": gaussian.kl(q, p),
        "rate": gaussian.kl(q, gaussian.standard(q.mean)),
        "entropy": gaussian.entropy(q),
        "own density": gaussian.log_density(x, q),
        "other density": gaussian.log_density(x, p),
        "prior density": gaussian.log_density(x, gaussian.standard(x)),
    }
    for name, value in values.items():
        assert value.isfinite().all(), name
        for gradient in torch.autograd.grad(
            value.sum(), leaves, retain_graph=True, allow_unused=True
        ):
            assert gradient is None or gradient.isfinite().all(), name


def test_bounded_keeps_its_bounds():
    q = bounded(Gaussian(EXTREMES, EXTREMES))
    assert q.mean.abs().max() == MEAN_BOUND
    assert q.log_var.abs().max() <= LOG_VAR_BOUND


def test_a_nan_stays_a_nan():
    nan = torch.tensor([math.nan, 0.0])
    zero = torch.tensor([0.0, math.nan])
    q = bounded(Gaussian(nan, zero))
    assert torch.equal(q.mean.isnan(), nan.isnan())
    assert torch.equal(q.log_var.isnan(), zero.isnan())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounded_is_near_the_identity_for_common_outputs(dtype):
    raw = torch.linspace(-3.3, 3.3, 1001, dtype=dtype)
    raw = raw[raw.abs() > 1e-3]
    assert ((bounded(Gaussian(raw, raw)).log_var - raw) / raw).abs().max() < 0.009
    mean = torch.tensor([-1e6, -123.456, 0.0, 1e-30, 999_999.0, 1e6], dtype=dtype)
    assert torch.equal(bounded(Gaussian(mean, mean)).mean, mean)


def test_bounded_is_monotone():
    raw = torch.linspace(-200, 200, 20_001)
    q = bounded(Gaussian(1e5 * raw, raw))
    assert (q.mean.diff() >= 0).all()
    assert (q.log_var.diff() >= 0).all()
    inner = raw.abs() < 60
    assert (q.log_var[inner].diff() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    raw = Gaussian(
        torch.tensor([60_000.0, math.inf, -2.5], dtype=dtype),
        torch.tensor([60_000.0, -math.inf, 0.5], dtype=dtype),
    )
    q = bounded(raw)
    assert q.mean.dtype == q.log_var.dtype == torch.float32
    assert q.mean.tolist() == [float(raw.mean[0]), 1e6, -2.5]
    assert q.log_var.tolist() == pytest.approx([20, -20, 20 * math.tanh(0.025)])
