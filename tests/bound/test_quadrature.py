"""Integrals of mixtures whose scales have nothing in common, against mpmath's."""

import math

import mpmath as mp
import pytest
import torch

from jensen import GMM
from jensen.base.errors import InputError
from jensen.bound import divergence, quadrature
from jensen.em import information
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture

NARROW = ((0.3, 0.7), (0.0, 10.0), (1e-6, 1.0))
DOUBLE = ((0.3, 0.7), (0.0, 10.0), (2e-6, 1.0))
INSIDE = ((1e-8, 1 - 1e-8), (0.0, 1.0), (1e-3, 1e3))
CLOSE = ((0.2, 0.5, 0.3), (0.0, 1e-4, 2.0), (1e-5, 1e-5, 1.0))
ONE = ((1.0,), (0.0,), (1.0,))


def mixture(weights, means, deviations):
    weight, mean, deviation = (
        torch.tensor(each, dtype=torch.float64) for each in (weights, means, deviations)
    )
    return Mixture(weight.log(), Gaussian(mean[:, None], 2 * deviation.log()[:, None]))


def truth(value, p, q, turns=()):
    """int value(p(x), q(x)) dx by mpmath's tanh-sinh rule, between places that are set by hand."""
    with mp.workdps(30):
        reach = [0, 1, 2, 4, 7, 10, 14, 20, 28, 40]
        places = set(turns)
        for _, means, deviations in (p, q):
            for mean, deviation in zip(means, deviations, strict=True):
                steps = [k * mp.mpf(deviation) for k in reach]
                places |= {mean + step for step in steps} | {mean - step for step in steps}

        def density(x, of):
            return mp.fsum(
                mp.mpf(weight) * mp.npdf(x, mp.mpf(mean), mp.mpf(deviation))
                for weight, mean, deviation in zip(*of, strict=True)
            )

        return float(mp.quad(lambda x: value(density(x, p), density(x, q)), sorted(places)))


def kl(p, q):
    return p * (mp.log(p) - mp.log(q)) if p > 0 else mp.mpf(0)


def entropy(p, q):
    return -p * mp.log(p) if p > 0 else mp.mpf(0)


def jensen_shannon(p, q):
    both = (p + q) / 2
    return (kl(p, both) + kl(q, both)) / 2


@pytest.mark.parametrize("p", [NARROW, INSIDE, CLOSE])
def test_the_entropy_is_mpmath_s_whatever_the_scales(p):
    value, error = GMM.of(mixture(*p)).entropy()
    assert value.item() == pytest.approx(truth(entropy, p, p), rel=1e-11)
    assert error == 0


@pytest.mark.parametrize(("p", "q"), [(NARROW, DOUBLE), (CLOSE, NARROW), (DOUBLE, INSIDE)])
def test_divergences_are_mpmath_s_whatever_the_scales(p, q):
    found = GMM.of(mixture(*p)).kl(GMM.of(mixture(*q)))
    assert found.value.item() == pytest.approx(truth(kl, p, q), rel=1e-11)
    assert found.lower <= found.value <= found.upper * (1 + 1e-12)
    both = divergence.integral(mixture(*p), mixture(*q), "jensen_shannon").item()
    assert both == pytest.approx(truth(jensen_shannon, p, q), rel=1e-11)


def test_a_turn_of_one_logarithm_amid_the_other_s_mass_is_found():
    """The wide component of q lies 100 deviations off, so its narrow one rules the logarithm as far as
    1e-4, a hundred of its own; there the slope of log q turns by 1e8 within 1e-8.
    """
    q = ((0.5, 0.5), (0.0, 100.0), (1e-6, 1.0))
    with mp.workdps(30):

        def difference(x):
            return (x - 100) ** 2 / 2 - (x * 10**6) ** 2 / 2 + mp.log(10**6)

        turns = [mp.findroot(difference, sign * mp.mpf("1e-4")) for sign in (1, -1)]
        around = [mp.mpf(0), *(s * mp.mpf(10) ** -e for e in range(5, 11) for s in (1, -1))]
    expected = truth(kl, ONE, q, [turn + way for turn in turns for way in around])
    assert divergence.integral(mixture(*ONE), mixture(*q)).item() == pytest.approx(expected)


def test_means_too_far_off_for_their_deviations_to_be_added_to_them_keep_every_digit():
    """1e-6 beyond 1e12 is no float64; of components that never meet all is known in closed form."""
    p = mixture((0.3, 0.7), (1e12, -1e12), (1e-6, 1.0))
    q = mixture((0.5, 0.5), (1e12, -1e12), (2e-6, 2.0))
    weights = -(0.3 * math.log(0.3) + 0.7 * math.log(0.7))
    gaussians = 0.5 * math.log(2 * math.pi * math.e) + 0.3 * math.log(1e-6)
    assert divergence.exact_entropy(p).item() == pytest.approx(weights + gaussians, rel=1e-13)
    apart = 0.3 * math.log(0.6) + 0.7 * math.log(1.4) + math.log(2) - 0.375
    assert divergence.integral(p, q).item() == pytest.approx(apart, rel=1e-13)
    assert divergence.integral(p, p, "fisher").item() == 0


def test_the_expected_information_of_components_that_never_meet_is_each_one_s():
    p = mixture(*NARROW)
    found = information.expected(10.0, p)
    own = [10 / 0.21, 3e12, 7, 1.5e24, 3.5]
    assert found.diagonal().tolist() == pytest.approx(own, rel=1e-10)
    assert information.covariance(found).diagonal().tolist() == pytest.approx(
        [1 / each for each in own], rel=1e-10
    )
    errors = GMM.of(p).standard_errors(torch.zeros(10, 1), "expected")
    assert errors.tolist() == pytest.approx([each**-0.5 for each in own], rel=1e-10)


def test_places_grow_with_the_components_and_not_with_their_scales():
    def count(components, scales):
        generator = torch.Generator().manual_seed(0)
        exponent = scales * (torch.rand(components, generator=generator).double() - 0.5)
        mean = torch.randn(components, generator=generator).double()
        p = Mixture(
            torch.zeros(components).double().log_softmax(0),
            Gaussian(mean[:, None], 2 * math.log(10) * exponent[:, None]),
        )
        return len(quadrature.panels(quadrature.line(p)).low)

    assert count(1, 0) < 20
    assert count(300, 0) < 1000
    assert count(300, 12) < 300 * 40


def test_gradients_are_those_of_the_closed_form():
    mean, log_var = (
        torch.tensor([each], dtype=torch.float64, requires_grad=True) for each in (0.3, -0.5)
    )
    q = Gaussian(torch.zeros(1).double(), torch.zeros(1).double())
    (divergence.integral(Gaussian(mean, log_var), q)).backward()
    assert mean.grad.item() == pytest.approx(0.3, rel=1e-10)
    assert log_var.grad.item() == pytest.approx(0.5 * math.expm1(-0.5), rel=1e-10)


def test_what_quadrature_does_not_settle_is_an_estimate_with_its_error(monkeypatch):
    p = mixture((0.5, 0.5), (-3.0, 3.0), (1.0, 2.0))
    q = mixture(*ONE)
    exact = divergence.integral(p, q).item(), divergence.exact_entropy(p).item()
    whole = information.expected(1.0, p)
    monkeypatch.setattr(quadrature, "_SETTLED", -1.0)
    monkeypatch.setattr(quadrature, "_ROUNDS", 2)
    gmm = GMM.of(p)
    for found, value in zip((gmm.kl(q), gmm.entropy()), exact, strict=True):
        assert found.value.item() == pytest.approx(value, abs=4 * found.standard_error.item())
        assert found.standard_error > 0
    torch.testing.assert_close(information.expected(1.0, p), whole, rtol=0.05, atol=0.01)
    with pytest.raises(
        InputError, match=r"cannot be integrated to rounding: .*divergence\.estimate"
    ):
        divergence.integral(p, q)
