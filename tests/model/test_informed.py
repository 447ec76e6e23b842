"""What points say of a mixture's parameters: against digits that share no code, autograd's own
identities, simulation, and EM.
"""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from cases import some
from mixtures import mixed, normal
from scipy import integrate, stats

from jensen import GMM
from jensen.base.errors import InputError
from jensen.em.information import Plain
from jensen.family.mixture import Mixture
from jensen.family.structures import STRUCTURES
from jensen.family.tied import TiedGaussian

DEVIATION = torch.tensor([1, 1, 1, 2], dtype=torch.float64)
"""d variance / d deviation at 1: the reference counts in deviations."""

every_covariance = pytest.mark.parametrize("covariance", list(STRUCTURES))


def two(weight=0.3, place=5.0, options=None):
    numbers = torch.tensor([weight, 1 - weight, 0, place], dtype=torch.float64)
    components = TiedGaussian(numbers[2:, None], torch.ones(1, 1, dtype=torch.float64))
    return GMM.of(Mixture(numbers[:2].log(), components), **(options or {}))


def test_the_reference_s_information_of_two_normals():
    gmm = two()
    assert gmm.parameter_names == ("weight[0]", "mean[0,0]", "mean[1,0]", "covariance[0,0]")
    found = gmm.fisher(torch.zeros(1000, 1), "expected") / 1000 * DEVIATION * DEVIATION[:, None]
    upper = [
        [4.664505877, -0.048500908, -0.053767922, 0.026335068],
        [0.274814548, -0.025740501, 0.002775244],
        [0.669284183, 0.024876578],
        [1.88949333],
    ]
    for row, values in enumerate(upper):
        assert found[row, row:].tolist() == pytest.approx(values, abs=2e-9)
    errors = gmm.standard_errors(torch.zeros(1000, 1), "expected") / DEVIATION
    expected = [0.01466408, 0.06049316, 0.03875505, 0.02301231]
    assert errors.tolist() == pytest.approx(expected, abs=1e-8)


def test_the_reference_s_rate_of_em_on_the_population():
    """Points at even quantiles of the mixture stand for it."""
    gmm = two()
    x = torch.linspace(-8, 13, 4001, dtype=torch.float64)[:, None]
    weights = gmm.log_prob(x).exp()
    assert gmm.information_missing(x, weights) == pytest.approx(0.1471790504, abs=1e-8)
    assert gmm.em_rate(x, weights) == pytest.approx(0.1471790504, abs=1e-5)
    slow = two(place=2.0)
    weights = slow.log_prob(x).exp()
    assert slow.em_rate(x, weights) == pytest.approx(slow.information_missing(x, weights), rel=1e-3)
    assert slow.information_missing(x, weights) > 0.9


@some(2, "covariance", STRUCTURES)
def test_em_s_measured_rate_is_the_information_missing(covariance):
    x = GMM.of(mixed(STRUCTURES[covariance], k=2, d=2)).sample(1500)
    gmm = GMM(2, covariance, tolerance=1e-12, restarts=3).fit(x)
    found = gmm.convergence(x)
    assert found.information_missing == gmm.information_missing(x)
    assert found.steps == gmm.em_rate(x) == pytest.approx(found.information_missing, rel=0.02)
    assert found.gains == pytest.approx(found.information_missing**2, rel=0.02)
    steps, gains = str(found).splitlines()
    assert f"{found.information_missing:.4f} by information missing" in steps
    assert f"{found.gains:.4f} measured" in gains


def test_a_single_component_has_nothing_to_miss():
    x = normal(50, 2)
    assert GMM(1).fit(x).convergence(x) == pytest.approx((0, 0, 0), abs=1e-9)


def test_the_gains_of_a_plain_fit_fall_by_the_square_of_it():
    x = two(place=3.0).sample(2000)
    gmm = GMM(2, "tied", accelerate=False, tolerance=1e-11).fit(x)
    gains = np.diff([step.log_likelihood for step in gmm.history])
    measured = math.sqrt(gains[-2] / gains[-3])
    assert measured == pytest.approx(gmm.information_missing(x), rel=0.02)


@every_covariance
def test_plain_parameters_are_named_counted_and_come_back(covariance):
    p = mixed(STRUCTURES[covariance], k=3, d=2)
    plain = Plain(p)
    gmm = GMM.of(p)
    assert len(plain.names) == len(plain.vector()) == gmm.parameter_count
    assert len(set(plain.names)) == len(plain.names)
    x = normal(20, 2)
    torch.testing.assert_close(plain.mixture(plain.vector()).log_prob(x), p.log_prob(x))
    moved = plain.vector()
    moved[plain.names.index("mean[1,0]")] += 1
    assert plain.mixture(moved).components.mean[1, 0] == p.components.mean[1, 0] + 1


@some(2, "covariance", STRUCTURES)
@pytest.mark.slow
def test_the_three_informations_agree_on_many_points_of_the_mixture_itself(covariance):
    """Within six standard errors of the points', as 30 parts of them show these, and of the draws that
    the expected one is a mean of.
    """
    gmm = GMM.of(mixed(STRUCTURES[covariance], k=2, d=2))
    x = gmm.sample(60_000)
    expected = gmm.fisher(x, "expected")
    whole, error = {}, {}
    for which in ("observed", "opg"):
        each = torch.stack([gmm.fisher(part, which) for part in x.chunk(30)])
        whole[which], error[which] = each.sum(0), each.std(0) * 30**0.5
        torch.testing.assert_close(whole[which], gmm.fisher(x, which))
    own = error["opg"] * (60_000 / 131_072) ** 0.5  # of the expected one, a mean of products too
    for which in ("observed", "opg"):
        limit = 6 * (error[which].square() + own.square()).sqrt() + 1e-9
        assert bool(((whole[which] - expected).abs() < limit).all())
    scale = expected.diagonal().sqrt()
    assert bool((error["opg"] / scale / scale[:, None] < 0.06).all())  # which says something


def test_one_gaussian_has_the_textbook_s_errors():
    x = normal(500, 1) * 3 + 1
    gmm = GMM(1).fit(x)
    variance = float(x.var(correction=0))
    expected = [math.sqrt(variance / 500), variance * math.sqrt(2 / 500)]
    assert gmm.standard_errors(x).tolist() == pytest.approx(expected, rel=1e-9)


def test_opg_is_the_sum_of_scipy_s_scores():
    p = two()
    x = np.array([-1.0, 0.5, 2.6, 4.0])

    def log_density(theta, at):
        alpha, first, second, variance = theta
        return np.log(
            alpha * stats.norm(first, variance**0.5).pdf(at)
            + (1 - alpha) * stats.norm(second, variance**0.5).pdf(at)
        )

    theta = np.array([0.3, 0, 5, 1])
    step = 1e-5 * np.eye(4)
    scores = [
        [(log_density(theta + h, at) - log_density(theta - h, at)) / 2e-5 for h in step] for at in x
    ]
    expected = torch.tensor(np.array(scores).T @ np.array(scores))
    torch.testing.assert_close(p.fisher(x[:, None], "opg"), expected, rtol=1e-6, atol=1e-6)


def test_the_expected_information_is_scipy_s_integral():
    def integrand(x):
        near = NormalDist(0, 1).pdf(x)
        far = NormalDist(5, 1).pdf(x)
        return (near - far) ** 2 / (0.3 * near + 0.7 * far)

    expected = integrate.quad(integrand, -10, 15, limit=200)[0]
    assert two().fisher(torch.zeros(1, 1), "expected")[0, 0].item() == pytest.approx(expected)


def test_units_places_and_weights_change_nothing_else():
    x = two().sample(400)
    gmm = GMM(2, tolerance=1e-12).fit(x)
    errors = gmm.standard_errors(x)
    far = GMM(2, tolerance=1e-12).fit(1000 * x + 1e6)
    unit = torch.tensor([1, 1e3, 1e3, 1e6, 1e6]).double()
    torch.testing.assert_close(
        far.standard_errors(1000 * x + 1e6), errors * unit, rtol=1e-3, atol=0
    )
    doubled = gmm.standard_errors(x, weights=torch.full((400,), 2.0))
    torch.testing.assert_close(doubled, errors / math.sqrt(2))
    twice = gmm.standard_errors(torch.cat([x, x]))
    torch.testing.assert_close(doubled, twice)


def test_missing_values_make_errors_larger():
    x = GMM.of(mixed(STRUCTURES["full"], k=2, d=2)).sample(400)
    gmm = GMM(2, missing=True, tolerance=1e-10).fit(x)
    whole = gmm.fisher(x).diagonal()
    holes = x.clone()
    holes[:200, 0] = math.nan
    less = gmm.fisher(holes).diagonal()
    names = gmm.parameter_names
    assert less[names.index("mean[0,0]")] < 0.8 * whole[names.index("mean[0,0]")]
    assert gmm.fisher(holes, "opg").isfinite().all()


def covered(simulations, points):
    """The part of 90 % intervals that hold the truth, of all parameters of as many fits."""
    truth = two(0.3, 4.0)
    at = Plain(truth.mixture).vector()
    z = stats.norm.ppf(0.95)
    held = []
    for seed in range(simulations):
        x = truth.sample(points, seed=seed)
        gmm = GMM(2, "tied", init=truth.mixture.components.mean, tolerance=1e-9).fit(x)
        error = gmm.standard_errors(x)
        held.append((Plain(gmm.mixture).vector() - at).abs() <= z * error)
    return torch.stack(held).double().mean(0)


def test_intervals_of_ninety_per_cent_hold_the_truth_as_often():
    assert 0.78 <= covered(40, 300).mean() <= 0.98


@pytest.mark.slow
def test_intervals_of_ninety_per_cent_hold_the_truth_in_five_hundred_simulations():
    found = covered(500, 500)
    print("coverage of", two().parameter_names, found.tolist())
    assert ((found >= 0.87) & (found <= 0.93)).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: GMM(2).fit(torch.cat([x, x[:1].expand(300, 1)])), "floor of its covariance"),
        (lambda x: two(weight=1e-5), r"component 0 has 0.\d+ points: expected at least one"),
        (lambda x: two(place=40.0), "not positive definite at these parameters"),
    ],
)
def test_parameters_without_standard_errors_are_refused_in_a_sentence(change, said):
    x = two().sample(200)
    gmm = change(x)
    with pytest.raises(InputError, match=said):
        gmm.standard_errors(x)


def test_components_that_are_one_have_no_expected_standard_errors():
    with pytest.raises(
        InputError, match="expected information is not positive definite: expected components"
    ):
        two(place=0.0).standard_errors(torch.zeros(100, 1), "expected")


def test_another_kind_of_information_is_refused_in_a_sentence():
    with pytest.raises(InputError, match="which is 'fisher': expected one of observed, expected"):
        two().fisher(torch.zeros(3, 1), "fisher")
