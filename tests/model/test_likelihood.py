"""Likelihoods, against torch.distributions, quadrature, exact enumeration and numerical
minimisation.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from torch import distributed, distributions

from jensen.base.errors import InputError
from jensen.model.likelihood import (
    Bernoulli,
    ContinuousBernoulli,
    CrossEntropy,
    LearnedNormal,
    Normal,
    OptimalNormal,
    log_normaliser,
)

DTYPES = [torch.float32, torch.float64]
EDGE = 1 / 3
LOGITS = [0.0, 1e-4, 1e-2, 0.2, EDGE - 1e-6, EDGE + 1e-6, 0.5, 1.0, 3.0, 10.0, 50.0]
LOGITS = sorted({sign * logit for logit in LOGITS for sign in (1, -1)})
EXTREME = [-1e4, -100.0, -50.0, 50.0, 100.0, 1e4]


def event(seed=0, dtype=torch.float32):
    """A decoder's output and grey levels, `(4, 2, 3, 3)`."""
    generator = torch.Generator().manual_seed(seed)
    output = 3 * torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    return output.to(dtype), torch.rand(4, 2, 3, 3, generator=generator, dtype=torch.float64).to(
        dtype
    )


def total(log_prob):
    return -log_prob.sum((1, 2, 3))


def close(found, expected):
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bernoulli_is_the_distribution(dtype):
    output, x = event(dtype=dtype)
    x = x.round()
    expected = distributions.Bernoulli(logits=output.double())
    close(Bernoulli().distortion(output, x), total(expected.log_prob(x.double())))
    close(Bernoulli().mean(output), expected.mean)


@pytest.mark.parametrize("variance", [1e-4, 0.3, 1.0, 20.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_is_the_distribution(dtype, variance):
    output, x = event(dtype=dtype)
    expected = total(
        distributions.Normal(output.double(), math.sqrt(variance)).log_prob(x.double())
    )
    for likelihood in (Normal(variance), LearnedNormal(variance)):
        close(likelihood.distortion(output, x), expected)
        assert torch.equal(likelihood.mean(output), output)


@pytest.mark.parametrize("dtype", DTYPES)
def test_continuous_bernoulli_is_the_distribution(dtype):
    output, x = event(dtype=dtype)
    expected = distributions.ContinuousBernoulli(logits=output.double())
    close(ContinuousBernoulli().distortion(output, x), total(expected.log_prob(x.double())))
    close(ContinuousBernoulli().mean(output), expected.mean)


def integral(logit, power=0):
    """The integral of x^power exp(logit (x - 1/2)) over [0, 1]."""
    return integrate.quad(
        lambda x: x**power * math.exp(logit * (x - 0.5)), 0, 1, epsabs=0, epsrel=1e-13, limit=200
    )[0]


def exact_log_normaliser(logit):
    """-log of the integral of p^x (1-p)^(1-x) = exp(logit x) / (1 + exp(logit))."""
    return np.logaddexp(logit / 2, -logit / 2) - math.log(integral(logit))


@pytest.mark.parametrize("logit", LOGITS)
def test_the_density_of_the_continuous_bernoulli_integrates_to_one(logit):
    likelihood = ContinuousBernoulli()
    output = torch.tensor([[logit]])
    density = lambda x: math.exp(-likelihood.distortion(output, torch.tensor([[x]])).item())  # noqa: E731
    assert integrate.quad(density, 0, 1, epsabs=1e-6, limit=200)[0] == pytest.approx(1, abs=5e-6)


@pytest.mark.parametrize("logit", LOGITS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_normaliser_is_the_integral(logit, dtype):
    found = log_normaliser(torch.tensor(logit, dtype=dtype)).item()
    assert found == pytest.approx(exact_log_normaliser(logit), abs=1e-6)
    if dtype == torch.float64 and abs(logit) > EDGE:
        assert found == pytest.approx(exact_log_normaliser(logit), abs=1e-12)


@pytest.mark.parametrize("logit", LOGITS)
def test_the_mean_of_the_continuous_bernoulli_is_the_integral(logit):
    found = ContinuousBernoulli().mean(torch.tensor([logit])).item()
    assert found == pytest.approx(integral(logit, 1) / integral(logit), abs=2e-6)


def test_the_series_of_the_normaliser_is_as_accurate_as_documented():
    logit = math.nextafter(EDGE, 0)
    error = abs(
        log_normaliser(torch.tensor(logit, dtype=torch.float64)).item()
        - exact_log_normaliser(logit)
    )
    assert error < 5e-7


@pytest.mark.parametrize("at", [0.0, -EDGE, EDGE])
def test_the_continuous_bernoulli_does_not_jump_where_its_forms_meet(at):
    beside = (
        at + torch.tensor([-2e-6, -1e-6, 0.0, 1e-6, 2e-6], dtype=torch.float64)
    ).requires_grad_()
    value = log_normaliser(beside)
    (slope,) = torch.autograd.grad(value.sum(), beside)
    expected = [
        1 / (1 + math.exp(-logit)) - integral(logit, 1) / integral(logit)
        for logit in beside.tolist()
    ]
    assert slope.tolist() == pytest.approx(expected, abs=1e-5)
    assert value.diff().abs().max() < 1e-6
    assert ContinuousBernoulli().mean(beside).diff().abs().max() < 1e-6


@pytest.mark.parametrize("likelihood", [Bernoulli(), CrossEntropy(), ContinuousBernoulli()])
def test_value_and_gradient_are_right_at_any_logit(likelihood):
    for logit in (*LOGITS, *EXTREME):
        for x in (0.0, 0.3, 1.0):
            check_value_and_gradient(likelihood, logit, x)


def check_value_and_gradient(likelihood, logit, x):
    output = torch.tensor([[logit]], requires_grad=True)
    value = likelihood.distortion(output, torch.tensor([[x]]))
    (slope,) = torch.autograd.grad(value, output)
    expected = np.logaddexp(0, logit) - logit * x
    expected_slope = 0.5 * (1 + math.tanh(logit / 2)) - x
    if isinstance(likelihood, ContinuousBernoulli):
        small = abs(logit) < 60
        expected -= exact_log_normaliser(logit) if small else math.log(abs(logit))
        mean = integral(logit, 1) / integral(logit) if small else (logit > 0) - 1 / logit
        expected_slope = mean - x
    assert value.item() == pytest.approx(expected, rel=1e-6, abs=2e-6)
    assert slope.item() == pytest.approx(expected_slope, abs=2e-5)
    assert 0 <= likelihood.mean(output).item() <= 1


@pytest.mark.parametrize("logit", [*LOGITS, *EXTREME])
@pytest.mark.parametrize("likelihood", [Bernoulli(), ContinuousBernoulli()])
def test_the_gradient_of_the_mean_is_finite_at_any_logit(likelihood, logit):
    output = torch.tensor([[logit]], requires_grad=True)
    (slope,) = torch.autograd.grad(likelihood.mean(output), output)
    assert 0 <= slope.item() <= 0.25


@pytest.mark.parametrize("logit", [1e18, -1e18, 1e25, -1e25, 1e38])
@pytest.mark.parametrize("likelihood", [Bernoulli(), CrossEntropy(), ContinuousBernoulli()])
def test_gradients_are_finite_at_absurd_logits(likelihood, logit):
    output = torch.tensor([[logit]], requires_grad=True)
    (slope,) = torch.autograd.grad(likelihood.distortion(output, torch.tensor([[0.5]])), output)
    assert slope.item() == pytest.approx(math.copysign(0.5, logit))


def test_cross_entropy_is_the_bernoulli_distortion_expected_over_binarised_pixels():
    output = torch.tensor([[0.3, -2.0, 4.0]])
    x = torch.tensor([[0.1, 0.5, 0.8]])
    expected = 0.0
    for binary in itertools.product((0.0, 1.0), repeat=3):
        chance = math.prod(
            p if bit else 1 - p for bit, p in zip(binary, x[0].tolist(), strict=True)
        )
        expected += chance * Bernoulli().distortion(output, torch.tensor([binary])).item()
    assert CrossEntropy().distortion(output, x).item() == pytest.approx(expected, rel=1e-6)


def test_the_least_cross_entropy_is_the_entropy_of_the_pixels():
    x = torch.tensor([[0.1, 0.5, 0.8]])
    entropy = distributions.Bernoulli(x).entropy().sum()
    assert CrossEntropy().distortion(x.logit(), x).item() == pytest.approx(entropy.item(), rel=1e-6)
    assert torch.allclose(CrossEntropy().mean(x.logit()), x)


@pytest.mark.parametrize("variance", [1e-8, 1e-3, 0.25, 1, 30.0, 1e8])
def test_a_learned_variance_starts_where_it_is_told(variance):
    likelihood = LearnedNormal(variance)
    assert likelihood.log_var.item() == pytest.approx(math.log(variance), rel=1e-5, abs=1e-6)
    assert [name for name, _ in likelihood.named_parameters()] == ["raw_log_var"]


@pytest.mark.parametrize("variance", [0.01, 0.5, 3.0])
def test_the_gradient_of_a_learned_variance_is_that_of_finite_differences(variance):
    likelihood = LearnedNormal(variance)
    (output, x) = event()

    def loss(raw):
        deviation = math.exp(10 * math.tanh(raw / 20))
        return -stats.norm(output.double().numpy(), deviation).logpdf(x.double().numpy()).sum()

    raw = likelihood.raw_log_var.item()
    step = 1e-4
    likelihood.distortion(output, x).sum().backward()
    assert likelihood.raw_log_var.grad.item() == pytest.approx(
        (loss(raw + step) - loss(raw - step)) / (2 * step), rel=1e-4
    )


def test_a_learned_variance_goes_to_the_mean_squared_error():
    likelihood = LearnedNormal()
    (output, x) = event()
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.2)
    for _ in range(150):
        optimizer.zero_grad()
        likelihood.distortion(output, x).mean().backward()
        optimizer.step()
    assert likelihood.log_var.exp().item() == pytest.approx(
        (output - x).square().mean().item(), rel=1e-2
    )


@pytest.mark.parametrize("scale", [0.05, 1.0, 40.0])
def test_in_training_an_optimal_variance_gives_the_least_mean_distortion(scale):
    output, x = event()
    output = x + scale * output

    def loss(log_var):
        return -stats.norm(output.double().numpy(), math.exp(log_var / 2)).logpdf(
            x.double().numpy()
        ).sum() / len(x)

    best = optimize.minimize_scalar(
        loss, bounds=(-10, 10), method="bounded", options={"xatol": 1e-8}
    )
    likelihood = OptimalNormal().train()
    assert likelihood.distortion(output, x).mean().item() == pytest.approx(best.fun, rel=1e-5)
    assert likelihood.variance.item() == pytest.approx(math.exp(best.x), rel=1e-4)


def test_the_gradient_of_an_optimal_variance_is_that_of_the_profiled_loss():
    output, x = event()
    output.requires_grad_()
    (found,) = torch.autograd.grad(OptimalNormal().train().distortion(output, x).mean(), output)
    exact = output.detach().double().requires_grad_()
    target = x.double()
    size = target[0].numel()
    variance = (exact - target).square().mean()  # differentiated through
    profiled = -distributions.Normal(exact, variance.sqrt()).log_prob(target).sum() / len(target)
    assert profiled.item() == pytest.approx(
        size / 2 * (math.log(2 * math.pi * variance.item()) + 1)
    )
    (expected,) = torch.autograd.grad(profiled, exact)
    close(found, expected)


def test_an_optimal_variance_has_a_floor():
    x = torch.rand(3, 7)
    output = x.clone().requires_grad_()
    found = OptimalNormal().train().distortion(output, x)
    (slope,) = torch.autograd.grad(found.sum(), output)
    assert found.tolist() == pytest.approx([7 / 2 * (math.log(2 * math.pi) - 12)] * 3, rel=1e-6)
    assert torch.equal(slope, torch.zeros_like(slope))


def test_in_evaluation_an_optimal_variance_is_the_running_one():
    likelihood = OptimalNormal(decay=0.9).train()
    errors = []
    for seed in range(3):
        output, x = event(seed)
        likelihood.distortion(output, x)
        errors.append((output - x).square().mean().item())
    expected = errors[0]
    for error in errors[1:]:
        expected = 0.9 * expected + 0.1 * error
    assert likelihood.variance.item() == pytest.approx(expected, rel=1e-5)
    likelihood.eval()
    output, x = event(9)
    for part in (
        slice(None),
        slice(1),
        slice(2, 4),
    ):  # so what a bound says does not depend on the batch
        found = likelihood.distortion(output[part], x[part])
        close(
            found, total(distributions.Normal(output[part], math.sqrt(expected)).log_prob(x[part]))
        )
    assert likelihood.variance.item() == pytest.approx(expected, rel=1e-5)


def test_the_running_variance_is_part_of_a_checkpoint():
    trained = OptimalNormal().train()
    (output, x) = event()
    trained.distortion(output, x)
    assert list(trained.state_dict()) == ["variance"]
    restored = OptimalNormal().eval()
    restored.load_state_dict(trained.state_dict())
    assert torch.equal(restored.distortion(output, x), trained.eval().distortion(output, x))


def test_an_optimal_variance_can_be_evaluated_before_it_was_trained():
    likelihood = OptimalNormal().eval()
    (output, x) = event()
    assert likelihood.distortion(output, x).isfinite().all()
    assert likelihood.variance.isnan()


def test_an_optimal_variance_is_the_error_over_all_ranks(monkeypatch):
    (output, x) = event()
    (other_output, other_x) = event(1)
    other = (other_output - other_x).square().mean()
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(distributed, "all_reduce", lambda error: error.add_(other))
    likelihood = OptimalNormal().train()
    found = likelihood.distortion(output, x)
    monkeypatch.undo()
    together = (
        OptimalNormal()
        .train()
        .distortion(torch.cat([output, other_output]), torch.cat([x, other_x]))
    )
    torch.testing.assert_close(found, together[:4])


@pytest.mark.parametrize("bad", [0, -1.0, 1e-9, math.nan, math.inf, True, "1"])
@pytest.mark.parametrize("likelihood", [Normal, LearnedNormal])
def test_a_variance_is_positive(likelihood, bad):
    with pytest.raises(InputError, match="variance is"):
        likelihood(bad)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan, True, "1"])
def test_a_decay_is_a_part(bad):
    with pytest.raises(InputError, match="decay is"):
        OptimalNormal(bad)


BINARY = torch.tensor([[0.0, 1.0]])
GREY = torch.tensor([[0.0, 0.25]])
BEYOND = torch.tensor([[-0.5, 3.0]])
UNBOUNDED = [Normal(), LearnedNormal(), OptimalNormal()]


def test_data_that_pass():
    for likelihood in (Bernoulli(), CrossEntropy(), ContinuousBernoulli(), *UNBOUNDED):
        likelihood.check(BINARY)
    for likelihood in (CrossEntropy(), ContinuousBernoulli(), *UNBOUNDED):
        likelihood.check(GREY)
    for likelihood in UNBOUNDED:
        likelihood.check(BEYOND)


@pytest.mark.parametrize(
    ("likelihood", "x", "message"),
    [
        (
            Bernoulli(),
            GREY,
            r"bernoulli takes .* hold 0\.25: use cross_entropy or continuous_bernoulli for grey"
            r" levels, or normal",
        ),
        (Bernoulli(), BEYOND, r"bernoulli takes .* hold -0\.5: use cross_entropy or"),
        (
            CrossEntropy(),
            BEYOND,
            r"=cross_entropy takes .* lie in \[-0\.5, 3\]: use model/likelihood=normal",
        ),
        (CrossEntropy(), BINARY + 1e-3, r"lie in \[0\.001, 1\]: use model/likelihood=normal"),
        (
            ContinuousBernoulli(),
            BEYOND,
            r"=continuous_bernoulli takes .* lie in \[-0\.5, 3\]: use model/likelihood=normal",
        ),
        *(
            (likelihood, BEYOND * math.inf, "infinite numbers: .* remove or mend")
            for likelihood in UNBOUNDED
        ),
    ],
)
def test_data_that_a_likelihood_is_no_density_of_are_refused_with_a_remedy(likelihood, x, message):
    with pytest.raises(InputError, match=message):
        likelihood.check(x)


@pytest.mark.parametrize(
    "likelihood", [Bernoulli(), CrossEntropy(), ContinuousBernoulli(), *UNBOUNDED]
)
def test_data_with_a_nan_are_refused(likelihood):
    with pytest.raises(InputError):
        likelihood.check(torch.tensor([[0.0, math.nan, 1.0]]))


@pytest.mark.parametrize("make", [Normal, LearnedNormal, OptimalNormal, ContinuousBernoulli])
def test_a_float64_output_keeps_its_digits(make):
    """A million away a normal's output was rounded by .03, in a run of float64."""
    likelihood = make().double().eval()
    if make is ContinuousBernoulli:
        output = torch.tensor([[0.7, 1.3]]).double()
        step, x = 1e-9, torch.tensor([[0.2, 0.9]]).double()
    else:
        output = torch.tensor([[1e6 + 0.013, 1e6 - 0.027]]).double()
        step, x = 1e-3, torch.tensor([[1e6 + 0.5, 1e6]]).double()
        squares = (x - output).square()
        variance = squares.mean() if make is OptimalNormal else torch.ones(()).double()
        expected = 0.5 * (squares / variance + (2 * math.pi * variance).log()).sum()
        assert likelihood.distortion(output, x).item() == pytest.approx(expected.item(), rel=1e-9)
    likelihood.double()
    assert likelihood.distortion(output + step, x) != likelihood.distortion(output, x)
    assert (likelihood.mean(output + step) != likelihood.mean(output)).all()
