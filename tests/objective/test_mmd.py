"""MMD against sums written out in numpy, quadrature, its closed form for a Gaussian q, and its mean
of 0 for q = p.
"""

import math

import numpy as np
import pytest
import torch
from cases import some
from scipy import stats

from jensen.base.errors import InputError
from jensen.base.schedule import Linear
from jensen.bound.bound import Bound, Inference
from jensen.family.gaussian import Gaussian
from jensen.objective.beta import Beta
from jensen.objective.mmd import MMD

STEP = torch.tensor(5)


def infer(z):
    bound = Bound(
        torch.linspace(1, 2, len(z), dtype=z.dtype), torch.linspace(3, 7, len(z), dtype=z.dtype)
    )
    return Inference(bound, Gaussian(z, z), z, z[:, 0])


def draws(count, dim, seed=0):
    return torch.randn(
        count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def mmd(z, *bandwidths):
    return MMD(bandwidths=bandwidths or (1.0,)).double().terms(infer(z), STEP)["mmd"].item()


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("bandwidth", [0.3, 1.0, 3.0])
def test_expectations_under_the_prior_are_integrals(dim, bandwidth):
    """Each is a product over dimensions, by the trapezoidal rule; the pairs are summed one by
    one.
    """
    z = draws(5, dim).numpy() * 1.5 + 0.4
    scale = bandwidth**2 * dim
    count = 5

    grid = np.linspace(-9, 9, 2001)
    mass = stats.norm.pdf(grid) * (grid[1] - grid[0])

    def kernel(distance):
        return np.exp(-(distance**2) / (2 * scale))

    prior = (mass @ kernel(grid[:, None] - grid) @ mass) ** dim
    cross = np.mean([np.prod([kernel(at - grid) @ mass for at in row]) for row in z])
    pairs = [
        kernel(np.linalg.norm(z[i] - z[j])) for i in range(count) for j in range(count) if i != j
    ]
    assert mmd(torch.tensor(z), bandwidth) == pytest.approx(
        prior - 2 * cross + np.mean(pairs), abs=1e-8
    )


def test_several_kernels_are_averaged():
    z = draws(20, 3)
    assert mmd(z, 0.5, 1.0, 4.0) == pytest.approx(
        np.mean([mmd(z, width) for width in (0.5, 1.0, 4.0)]), abs=1e-12
    )


@some(1, "bandwidth", [0.5, 1.0])
def test_it_is_zero_on_average_for_the_prior_itself(bandwidth):
    values = np.array([mmd(draws(16, 4, seed), bandwidth) for seed in range(1000)])
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean()) < 4 * error
    assert error < 1e-3
    assert values.min() < 0  # unbiased, so it must be negative at times


def test_it_is_the_divergence_of_a_gaussian_on_average():
    """E k(z, z') and E k(z, u) for z ~ N(m, t I): Gaussian integrals of another variance."""
    dim = 3
    mean = 0.7
    variance = 0.25
    s = float(dim)

    def expected(spread, shift):
        return (s / (s + spread)) ** (dim / 2) * math.exp(-dim * shift**2 / (2 * (s + spread)))

    exact = expected(2, 0) - 2 * expected(1 + variance, mean) + expected(2 * variance, 0)
    values = np.array([mmd(mean + variance**0.5 * draws(16, dim, seed)) for seed in range(1000)])
    assert abs(values.mean() - exact) < 4 * values.std() / math.sqrt(len(values))
    assert exact > 0.1


@pytest.mark.parametrize(("alpha", "marginal"), [(0.0, 10.0), (0.5, 2.0), (-3.0, 7.0), (1.0, 10.0)])
def test_the_loss_is_weighted_as_in_the_paper(alpha, marginal):
    inference = infer(draws(6, 2))
    distortion, rate = (part.mean().item() for part in inference.bound)
    expected = distortion + (1 - alpha) * rate + (alpha + marginal - 1) * mmd(inference.z)
    assert MMD(alpha, marginal).double()(inference, STEP).item() == pytest.approx(expected)


def test_the_elbo_is_a_choice_of_weights():
    inference = infer(draws(6, 2))
    torch.testing.assert_close(MMD(0.0, 1.0).double()(inference, STEP), Beta(1.0)(inference, STEP))


def test_gradients_are_finite_differences():
    objective = MMD(0.5, 10.0, bandwidths=(0.5, 2.0)).double()
    assert torch.autograd.gradcheck(
        lambda z: objective(infer(z), STEP), draws(5, 2).requires_grad_()
    )


def test_a_batch_of_one_and_distant_codes_are_finite():
    assert MMD()(infer(torch.zeros(1, 3)), STEP).isfinite()
    assert MMD()(infer(torch.tensor([[1e6, 0.0], [-1e6, 0.0]])), STEP).isfinite()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"alpha": 1.5}, "alpha is 1.5: expected at most 1, above which the rate is rewarded"),
        ({"alpha": Linear(0.0, 2.0, 5)}, "alpha is 2: expected at most 1"),
        (
            {"alpha": 0.0, "marginal": 0.5},
            "marginal is too small: alpha \\+ marginal is 0.5, expected at least 1",
        ),
        ({"marginal": -1}, "marginal is -1"),
        ({"bandwidths": []}, "bandwidths is empty"),
        ({"bandwidths": [0]}, "bandwidths is 0: expected a number of at least 1e-06"),
    ],
)
def test_bad_input_is_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        MMD(**options)
