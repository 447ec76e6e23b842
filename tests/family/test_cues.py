"""Cue combination and causal inference: digits that were computed with other code, quadrature, and
torch's own distributions.
"""

import math
from fractions import Fraction

import pytest
import torch
from torch import distributions

from jensen.base.errors import InputError
from jensen.family.cues import CountCues, Cues, em_step, fit, infer, mixture

NAN = math.nan
FITS = Cues.of(0.28, [2.14**2, 9.2**2], 0.0, 12.3**2)
PAIRS = torch.tensor(
    [(7, -1), (-2, -8), (-4, 0), (-6, -1), (-1, 2), (1, -1), (-6, 1), (6, 12), (-9, -3), (8, 9)]
    + [(1, -4), (9, 11), (11, 6), (0, -1), (1, 6), (-8, -10), (4, 1), (-8, -6), (-6, -2), (10, 11)]
    + [(2, 2), (11, 8), (6, -11), (2, 7)],
    dtype=torch.float64,
)
FLASHES = CountCues.of(0.5, [0.8, 0.3], 5)


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize(
    ("x", "common", "log_p", "fused", "alone", "averaged", "variance"),
    [
        ((0, 0), 0.3875814861, -6.932319205, 0, 0, 0, 34.87609011),
        ((5, 0), 0.3567080372, -7.061697235, 4.610941879, 0, 1.644760027, 41.30002858),
        ((10, 0), 0.2716524399, -7.426462622, 9.221883758, 0, 2.505147224, 57.50499687),
    ],
)
def test_a_sound_is_drawn_to_what_is_seen_as_far_as_they_may_have_one_cause(
    x, common, log_p, fused, alone, averaged, variance
):
    found = FITS.infer(row(*x))
    assert found.common.item() == pytest.approx(common, abs=1e-9)
    assert found.log_prob.item() == pytest.approx(log_p, abs=1e-8)
    assert found.fused.mean.item() == pytest.approx(fused, abs=1e-8)
    assert found.alone.mean[0, 1].item() == pytest.approx(alone, abs=1e-8)
    assert found.averaged.mean[0, 1].item() == pytest.approx(averaged, abs=1e-8)
    assert found.averaged.log_var.exp()[0, 1].item() == pytest.approx(variance, abs=1e-7)
    assert found.selected[0, 1].item() == pytest.approx(alone, abs=1e-8)
    both = (
        found.matched(torch.tensor([common - 1e-6])),
        found.matched(torch.tensor([common + 1e-6])),
    )
    assert [each[0, 1].item() for each in both] == pytest.approx([fused, alone], abs=1e-8)


def test_the_functions_say_what_the_methods_say():
    x = row(5, 0)
    assert infer(x, FITS).common.equal(FITS.infer(x).common)
    assert fit(x, FITS, 3).log_likelihood.equal(FITS.fit(x, 3).log_likelihood)
    stepped = zip(em_step(x, FITS), FITS.em_step(x), strict=True)
    assert all(one.equal(other) for one, other in stepped)
    assert mixture(FITS).log_prob(x).item() == pytest.approx(FITS.infer(x).log_prob.item())


def test_the_mixture_of_two_gaussians_says_the_same_of_complete_observations():
    x = 8 * torch.randn(30, 2, generator=torch.Generator().manual_seed(0)).double()
    truth = distributions.MixtureSameFamily(
        distributions.Categorical(torch.tensor([0.28, 0.72]).double()),
        distributions.MultivariateNormal(
            torch.zeros(2, 2).double(),
            torch.stack([12.3**2 * torch.ones(2, 2), 12.3**2 * torch.eye(2)]).double()
            + torch.tensor([2.14**2, 9.2**2]).double().diag(),
        ),
    )
    torch.testing.assert_close(FITS.infer(x).log_prob, truth.log_prob(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(FITS.mixture().log_prob(x), FITS.infer(x).log_prob)


def test_an_absent_cue_is_marginalised():
    found = FITS.infer(torch.tensor([[5.0, NAN], [NAN, NAN]], dtype=torch.float64))
    alone = distributions.Normal(0, math.hypot(2.14, 12.3))
    assert found.log_prob[0].item() == pytest.approx(
        alone.log_prob(torch.tensor(5.0).double()).item()
    )
    assert found.common.tolist() == pytest.approx([0.28, 0.28])
    assert found.alone.mean[0, 0] == pytest.approx(found.fused.mean[0].item())
    assert found.alone.log_var.exp()[0, 1].item() == pytest.approx(12.3**2)
    assert found.log_prob[1].abs() < 1e-15


def test_em_has_the_iterates_and_the_end_of_the_reference_and_never_falls():
    start = Cues.of(0.5, [1.0, 4.0], 0.0, 16.0)
    found = start.fit(PAIRS)
    assert found.log_likelihood[:3].tolist() == pytest.approx(
        [-161.2392628, -153.1513458, -152.5295756], abs=1e-6
    )
    second = start.em_step(PAIRS)
    assert second.common.item() == pytest.approx(0.4706312269, abs=1e-9)
    assert [*second.noise_var.sqrt().tolist(), second.prior_var.sqrt().item()] == pytest.approx(
        [1.074216406, 2.384043079, 5.665689538], abs=1e-8
    )
    assert found.converged
    assert found.log_likelihood[-1].item() == pytest.approx(-149.9924314, abs=1e-6)
    assert found.cues.common.item() == pytest.approx(0.8473457963, abs=2e-4)
    assert [
        *found.cues.noise_var.sqrt().tolist(),
        found.cues.prior_var.sqrt().item(),
    ] == pytest.approx([2.961722052, 2.982478153, 5.716418469], abs=2e-3)
    assert (found.log_likelihood.diff() >= -1e-9).all()


def test_em_with_absent_cues_never_falls_either():
    x = PAIRS.clone()
    x[::3, 0] = NAN
    x[1::4, 1] = NAN
    found = Cues.of(0.5, [1.0, 4.0], 0.0, 16.0).fit(x, max_iter=300)
    assert (found.log_likelihood.diff() >= -1e-9).all()


def test_data_that_are_best_described_without_noise_end_at_the_edge_and_do_not_crash():
    x = torch.tensor([[1.0, 1.0], [-2.0, -2.0], [3.0, 3.0], [0.5, 0.5]], dtype=torch.float64)
    found = Cues.of(0.5, [1.0, 1.0], 0.0, 4.0).fit(x, max_iter=500)
    assert found.cues.noise_var.max() < 0.01
    assert all(part.isfinite().all() for part in found.cues)
    assert (found.log_likelihood.diff() >= -1e-9).all()


def test_a_beep_makes_two_flashes_of_one():
    found = FLASHES.infer(row(1, 2))
    assert found.source[0, 0].tolist() == pytest.approx(
        [0.107671922, 0.239688101, 0.641900960, 0.010531160, 0.000207856], abs=1e-9
    )
    assert found.common.item() == pytest.approx(0.5389382388, abs=1e-9)
    assert found.likeliest()[0].tolist() == [2, 2]
    assert found.mean()[0, 0].item() == pytest.approx(1.555915, abs=1e-6)


def test_reports_of_flashes_are_those_of_the_reference():
    shown = torch.tensor([[1, 2], [1, 1], [1, NAN], [2, 1], [1, 3]], dtype=torch.float64)
    found = FLASHES.reports(shown, cells=301)
    assert found[0, 2].item() == pytest.approx(0.6737, abs=2e-3)
    assert found[1, 2].item() == pytest.approx(0.0413, abs=2e-3)
    assert found[2, 2].item() == pytest.approx(0.2356223768, abs=2e-3)
    assert found[3, 1].item() == pytest.approx(0.6738, abs=2e-3)
    assert found[4].tolist() == pytest.approx([0.2654, 0.3977, 0.0929, 0.2435, 0.0005], abs=2e-3)
    torch.testing.assert_close(found.sum(1), torch.ones(5).double())


def test_a_beep_more_makes_one_cause_less_likely_on_average_over_the_noise():
    step = torch.linspace(-6, 6, 401, dtype=torch.float64)
    weight = distributions.Normal(0.0, 1.0).log_prob(step).softmax(0)
    flash, beep = torch.meshgrid(0.8 * step, 0.3 * step, indexing="ij")
    for beeps, expected in ((1, 0.6158), (2, 0.4741), (3, 0.2085)):
        x = torch.stack([1 + flash, beeps + beep], -1).flatten(0, 1)
        common = FLASHES.infer(x).common.reshape(flash.shape)
        assert (weight @ common @ weight).item() == pytest.approx(expected, abs=1e-4)


def test_counts_without_a_common_cause_are_those_of_each_cue_alone():
    apart = CountCues.of(0.0, [0.8, 0.3], 5)
    found = apart.infer(row(1.2, 2.9))
    for place, (value, deviation) in enumerate([(1.2, 0.8), (2.9, 0.3)]):
        density = distributions.Normal(torch.arange(5.0).double(), deviation).log_prob(
            torch.tensor(value).double()
        )
        torch.testing.assert_close(found.source[0, place], density.softmax(0))
    assert found.common == 0
    assert CountCues.of(1.0, [0.8, 0.3], 5).infer(row(1.2, 2.9)).common == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Cues.of(1.2, [1.0]), "common is 1.2"),
        (lambda: Cues.of(0.5, [1.0, 0.0]), "noise_var is 0.0: expected a number above 0"),
        (lambda: Cues.of(0.5, [-1.0]), "noise_var is -1.0"),
        (lambda: Cues.of(0.5, []), r"noise_var is \[\]: expected a list"),
        (lambda: Cues.of(0.5, 1.0), "noise_var is 1.0: expected a list"),
        (lambda: Cues.of(0.5, [1.0], prior_var=0.0), "prior_var is 0.0"),
        (lambda: FITS.infer(torch.zeros(3, 3)), r"expected \(N, 2\)"),
        (lambda: FITS.infer(row(math.inf, 0)), "infinite"),
        (lambda: FITS.infer([[0.0, 0.0]]), "x is a list"),
        (lambda: FITS._replace(common=torch.tensor(1.5)).infer(row(0, 0)), "common is 1.5"),
        (lambda: FITS._replace(common=0.5).infer(row(0, 0)), r"common is 0.5: .*Cues\.of"),
        (lambda: FITS._replace(noise_var=torch.zeros(2)).mixture(), "noise_var is 0.0"),
        (lambda: FITS._replace(noise_var=-torch.ones(2)).em_step(row(0, 0)), "noise_var is -1.0"),
        (lambda: FITS._replace(prior_var=torch.tensor(0.0)).fit(row(0, 0)), "prior_var is 0.0"),
        (lambda: FITS._replace(prior_mean=torch.tensor(NAN)).infer(row(0, 0)), "prior_mean is nan"),
        (
            lambda: FITS._replace(common=torch.tensor([0.5, 0.5])).infer(row(0, 0)),
            r"common has the shape \[2\]: expected \(\)",
        ),
        (
            lambda: FITS._replace(noise_var=torch.tensor(1.0)).infer(row(0, 0)),
            r"noise_var has the shape \[\]: expected \(M,\)",
        ),
        (
            lambda: FITS._replace(noise_var=torch.tensor([1, 2])).infer(row(0.5, 0)),
            "noise_var is of torch.int64",
        ),
        (lambda: FITS.fit(row(NAN, NAN)), "no cue at all"),
        (lambda: CountCues.of(-0.1, [1.0], 3), "common is -0.1"),
        (lambda: CountCues.of(0.5, [0.0], 3), "noise_sd is 0.0"),
        (lambda: FLASHES.infer(torch.zeros(3)), r"expected \(N, 2\)"),
        (lambda: FLASHES._replace(common=torch.tensor(2.0)).infer(row(0, 0)), "common is 2.0"),
        (lambda: FLASHES._replace(noise_sd=torch.zeros(2)).infer(row(0, 0)), "noise_sd is 0.0"),
        (
            lambda: FLASHES._replace(log_prior=torch.zeros(5).double()).infer(row(0, 0)),
            "log_prior adds up to 5: .*log_softmax",
        ),
        (lambda: FLASHES._replace(log_prior=torch.tensor([0.0, NAN])).infer(row(0, 0)), "nan"),
        (lambda: CountCues.of(0.5, [1.0, 1.0, 1.0], 3).reports(row(0, 0)), "has 3 cues"),
    ],
)
def test_bad_cues_are_refused_in_one_sentence(call, words):
    with pytest.raises(InputError, match=words) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_one_gaussian_has_the_moments_of_sources_and_cues():
    """Drawn, a million times; and given the cues by a regression on them."""
    draw = torch.Generator().manual_seed(0)
    count = 1_000_000
    one = torch.rand(count, 1, generator=draw).double() < 0.28
    own = 12.3 * torch.randn(count, 2, generator=draw).double()
    sources = torch.where(one, own[:, :1], own)
    noise = torch.tensor([2.14, 9.2]).double() * torch.randn(count, 2, generator=draw).double()
    x = sources + noise
    slope = torch.linalg.lstsq(x, sources).solution
    rest = (sources - x @ slope).square().mean(0)
    cues = Cues.of(0.28, [2.14**2, 9.2**2], 0.0, 12.3**2)
    found = cues.one_gaussian(torch.eye(2).double())
    torch.testing.assert_close(found.mean, slope, rtol=0, atol=3e-3)
    torch.testing.assert_close(found.log_var[0].exp(), rest, rtol=5e-3, atol=0)
    alone = cues.one_gaussian(torch.tensor([[10.0, NAN]]).double())
    by_hand = 12.3**2 / (12.3**2 + 2.14**2)
    assert alone.mean[0].tolist() == pytest.approx([10 * by_hand, 2.8 * by_hand])
    assert alone.log_var[0, 1].exp().item() == pytest.approx(12.3**2 * (1 - 0.28**2 * by_hand))


def test_one_gaussian_cannot_doubt_a_common_cause():
    """Exact inference lets go of what is seen where it is too far off; a Gaussian pulls ever more."""
    cues = Cues.of(0.28, [2.14**2, 9.2**2], 0.0, 12.3**2)
    seen = torch.tensor([5.0, 10.0, 20.0, 40.0, 80.0]).double()
    x = torch.stack([seen, torch.zeros(5).double()], 1)
    exact = cues.infer(x).averaged.mean[:, 1]
    assert exact[:2].tolist() == pytest.approx([1.644760027, 2.505147224], abs=1e-8)
    assert exact[4] < 0.01 < exact[2] < exact[1]
    pull = cues.one_gaussian(x).mean[:, 1] / seen
    torch.testing.assert_close(pull, pull[:1].expand(5))
    assert pull[0] > 0.05

    beside = torch.tensor([[1.0, beeps] for beeps in range(1, 5)]).double()
    reports = FLASHES.infer(beside).mean()[:, 0]
    assert reports.argmax() == 1  # two beeps make most of one flash, three and four less
    lines = FLASHES.one_gaussian(beside).mean[:, 0]
    torch.testing.assert_close(lines.diff(), lines.diff()[:1].expand(3))
    # by hand: variance of the counts 2, covariance 1, cues of variance 2.64 and 2.09
    assert lines.tolist() == pytest.approx(
        [2 - (2 * 2.09 - 1) / 4.5176 + 0.64 / 4.5176 * each for each in (-1, 0, 1, 2)]
    )
    certain = CountCues.of(1.0, [0.8, 0.3], 5).one_gaussian(beside)
    assert certain.mean[:, 0].tolist() == pytest.approx(certain.mean[:, 1].tolist())


def test_the_averaged_variance_keeps_what_a_nearly_impossible_cause_adds():
    """Digits of mpmath at 60: the second cue alone is known to 1.9e11, one cause to 2.3e-6."""
    cues = Cues.of(1 - 1e-12, [2.3e-6, 5.5e11], 0.0, 2.4e11)
    found = cues.infer(row(1e5, 1.2e5))
    # 1 - p(one cause | x), and what that times the variance of its own source comes to
    assert found.apart.item() == pytest.approx(8.27099941288612e-13, rel=1e-9)
    assert found.averaged.log_var[0, 1].exp().item() == pytest.approx(0.141541006639352, rel=1e-9)
    torch.testing.assert_close(FITS.infer(PAIRS).apart, 1 - FITS.infer(PAIRS).common)


@pytest.mark.parametrize("common", [0.0, 0.4, 1 - 1e-12, 1.0])
@pytest.mark.parametrize("noise", [(1e-12, 3e-12, 2e-12), (1e-8, 1e8, 3.0), (0.5, 2.0, 1.0)])
def test_one_gaussian_is_exact_however_small_noise_is_beside_the_prior(common, noise):
    """Against a solution in rational numbers."""
    prior = 1e12
    x = [1e6, 1e6 + 2e-6, NAN]
    own = [Fraction(each) for each in noise]
    shared = Fraction(common) * Fraction(prior)
    first, second = (Fraction(prior) + own[place] for place in range(2))
    determinant = first * second - shared**2
    found = Cues.of(common, [*noise], 0.0, prior).one_gaussian(row(*x))
    to_cues = [(Fraction(prior), shared), (shared, Fraction(prior)), (shared, shared)]
    for place, (a, b) in enumerate(to_cues):
        gain = (a * second - b * shared) / determinant, (b * first - a * shared) / determinant
        variance = Fraction(prior) - gain[0] * a - gain[1] * b
        mean = gain[0] * Fraction(x[0]) + gain[1] * Fraction(x[1])
        assert found.mean[0, place].item() == pytest.approx(float(mean), rel=1e-12)
        assert found.log_var[0, place].exp().item() == pytest.approx(float(variance), rel=1e-9)


def test_the_mixture_exists_however_small_noise_is_beside_the_prior():
    cues = Cues.of(0.5, [1e-12, 4e-12, 1e-12], 0.0, 1e12)
    x = row(3e6, 3e6, 3e6)
    torch.testing.assert_close(
        cues.mixture().log_prob(x), cues.infer(x).log_prob, rtol=0, atol=1e-6
    )
    factor = Cues.of(0.5, [1.0, 4.0, 0.5], 0.0, 9.0).mixture().components.scale_tril[0]
    expected = torch.tensor([1.0, 4.0, 0.5]).double().diag() + 9.0
    torch.testing.assert_close(factor @ factor.mT, expected, rtol=1e-14, atol=0)
