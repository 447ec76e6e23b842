"""Every divergence against digits that share no code, quadrature, limits, and one another."""

import math

import numpy as np
import pytest
import torch
from mixtures import every_structure, mixed, normal, random
from scipy import integrate, stats

from jensen.base.errors import InputError
from jensen.base.tree import tree_map
from jensen.bound import divergence, quadrature
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture

CLOSED = {
    "kl": divergence.kl,
    "jeffreys": divergence.jeffreys,
    "renyi": lambda p, q, alpha=0.5: divergence.renyi(p, q, alpha),
    "alpha": lambda p, q, alpha=0.5: divergence.alpha(p, q, alpha),
    "bhattacharyya": divergence.bhattacharyya,
    "hellinger": divergence.hellinger,
    "fisher": divergence.fisher_divergence,
}
ORDERED = ("renyi", "alpha")
every_divergence = pytest.mark.parametrize("which", divergence.NAMES)


def gaussian(mean, variance):
    numbers = torch.tensor([[mean], [variance]], dtype=torch.float64)
    return Gaussian(numbers[0], numbers[1].log())


def line_mixture(weights, means, variances):
    weight, mean, variance = (
        torch.tensor(each, dtype=torch.float64) for each in (weights, means, variances)
    )
    return Mixture(weight.log(), Gaussian(mean[:, None], variance.log()[:, None]))


def order(which):
    return 0.5 if which in ORDERED else None


N01, N21, N14 = gaussian(0, 1), gaussian(2, 1), gaussian(1, 4)
BIMODAL = line_mixture((0.3, 0.7), (0, 5), (1, 1))
MATCHED = gaussian(3.5, 6.25)


@pytest.mark.parametrize(
    ("p", "q", "which", "alpha", "expected"),
    [
        (N01, N21, "kl", None, 2),
        (N01, N21, "jensen_shannon", None, 0.336830820347),
        (N01, N21, "renyi", 0.5, 1),
        (N01, N21, "renyi", 2, 4),
        (N01, N21, "alpha", 0.5, 1.57387736115),
        (N01, N21, "alpha", 2, 26.7990750166),
        (N01, N21, "bhattacharyya", None, 0.5),
        (N01, N21, "hellinger", None, math.sqrt(0.393469340287)),
        (N01, N14, "kl", None, 0.44314718056),
        (N14, N01, "kl", None, 1.30685281944),
        (N01, N14, "jensen_shannon", None, 0.128174973054),
        (N01, N14, "renyi", 0.5, 0.323143551314),
        (N01, N14, "renyi", 2, 0.556196429449),
        (N01, N14, "alpha", 0.5, 0.596778151389),
        (N01, N14, "alpha", 2, 0.372013170755),
        (BIMODAL, MATCHED, "kl", None, 0.321051686374),
        (MATCHED, BIMODAL, "kl", None, 0.544591776572),
        (BIMODAL, MATCHED, "jensen_shannon", None, 0.0881612237799),
    ],
)
def test_the_reference_s_digits_by_closed_form_and_by_quadrature(p, q, which, alpha, expected):
    found = divergence.integral(p, q, which, alpha)
    assert found.item() == pytest.approx(expected, rel=2e-11)
    if which in CLOSED and isinstance(p, Gaussian) and isinstance(q, Gaussian):
        more = () if alpha is None else (alpha,)
        assert CLOSED[which](p, q, *more).item() == pytest.approx(expected, rel=2e-11)


def test_the_moments_of_the_bimodal_mixture():
    line = quadrature.line(BIMODAL)

    def powers(at):
        x = at.anchor + at.offset
        z = (x - 3.5) / 2.5
        log_p = line.log_prob(at)
        each = torch.stack([z, z.square(), z**3, z**4, (0.2 * x).exp(), -log_p], 2)
        return log_p.exp().unsqueeze(2) * each, log_p.exp().unsqueeze(2) * each.abs()

    expected = [0, 1, -0.672, 3 - 0.8736, 2.24729673678, 2.01417757871]
    found = quadrature.integral(powers, line)
    assert found.value.tolist() == pytest.approx(expected, rel=5e-12, abs=1e-12)
    assert found.error.tolist() == [0] * 6
    value, error = divergence.entropy(BIMODAL, samples=20_000)
    assert value.item() == pytest.approx(2.01417757871, abs=4 * error.item())
    assert 0 < error < 0.01


def test_the_fisher_divergence_of_the_diffusion_reference():
    p = line_mixture((0.3, 0.7), (-2, 1), (0.25, 0.64))
    assert divergence.integral(p, N01, "fisher").item() == pytest.approx(1.15631953, abs=5e-9)
    value, error = divergence.estimate(p, N01, "fisher", 20_000)
    assert value.item() == pytest.approx(1.15631953, abs=4 * error.item())


@pytest.mark.parametrize("alpha", [1 - 1e-6, 1 + 1e-6])
def test_at_alpha_one_the_limit_is_the_kl(alpha):
    for p, q in ((N01, N21), (N01, N14), (N14, N01)):
        kl = divergence.kl(p, q).item()
        assert divergence.renyi(p, q, alpha).item() == pytest.approx(kl, abs=3e-6 * (1 + kl) ** 2)
        assert divergence.alpha(p, q, alpha).item() == pytest.approx(kl, abs=3e-6 * (1 + kl) ** 2)
        assert divergence.renyi(p, q, 1).item() == kl
    assert divergence.renyi(N01, N14, alpha).item() == pytest.approx(0.44314718056, abs=2e-7)
    assert divergence.alpha(N01, N14, alpha).item() == pytest.approx(0.44314718056, abs=2e-7)


def test_renyi_rises_with_its_order():
    p, q = (tree_map(lambda part: part[0], random(FullGaussian, k=1, seed=s)) for s in (0, 2))
    values = [divergence.renyi(p, q, a).item() for a in (0, 0.25, 0.5, 0.75, 1, 1.2)]
    assert values[0] == pytest.approx(0, abs=1e-12)
    assert values == sorted(values)


def test_where_there_is_no_integral_it_is_infinite_and_not_nan():
    """At alpha 2 v_q must be above half of v_p."""
    assert divergence.renyi(N14, N01, 2).item() == math.inf
    assert divergence.alpha(N14, N01, 2).item() == math.inf
    assert divergence.alpha(N01, N14, -1).item() == math.inf
    assert divergence.renyi(gaussian(0, 2), N01, 2).item() == math.inf  # on the edge itself
    wide = FullGaussian(torch.zeros(2).double(), torch.tensor([[2.0, 0], [0, 0.5]]).double())
    unit = FullGaussian(torch.zeros(2).double(), torch.eye(2).double())
    assert divergence.renyi(wide, unit, 2).item() == math.inf
    assert divergence.renyi(unit, wide, 1.1).isfinite()
    batch = Gaussian(torch.zeros(3, 1).double(), torch.tensor([[0.0], [2.0], [-1.0]]).double())
    found = divergence.renyi(batch, N01, 2)
    assert found.isinf().tolist() == [False, True, False]


@pytest.mark.parametrize("which", CLOSED)
@every_structure
def test_closed_forms_are_positive_zero_at_equality_and_do_not_change_by_affine_maps(
    which, structure
):
    p, q = (random(structure, k=5, d=3, seed=seed) for seed in (0, 4))
    found = CLOSED[which](p, q)
    assert found.shape == (5,)
    assert (found > 0).all()
    # a square root of a rounding error is what the Hellinger distance may have
    nought = torch.zeros(5, dtype=torch.float64)
    same = CLOSED[which](p, p)
    torch.testing.assert_close(same, nought, atol=1e-7 if which == "hellinger" else 1e-12, rtol=0)
    a = normal(3, 3, seed=8)
    a = torch.linalg.qr(a)[0] if which == "fisher" else a
    mapped = []
    for each in (p, q):
        factor = each.cholesky().expand(5, 3, 3)
        cov = a @ factor @ factor.mT @ a.mT
        mapped.append(FullGaussian(each.mean @ a.T + 7, torch.linalg.cholesky(cov)))
    torch.testing.assert_close(CLOSED[which](*mapped), found, rtol=1e-8, atol=1e-10)


@every_divergence
def test_quadrature_is_positive_zero_at_equality_and_does_not_change_by_affine_maps(which):
    p = line_mixture((0.5, 0.2, 0.3), (0, 2, 5), (1, 0.2, 3))
    q = line_mixture((0.9, 0.1), (1, 4), (2, 1))
    found = divergence.integral(p, q, which, order(which)).item()
    assert found > 0.01
    assert divergence.integral(p, p, which, order(which)).item() == pytest.approx(0, abs=1e-7)
    if which != "fisher":
        moved = [
            Mixture(
                r.log_weight,
                Gaussian(-3 * r.components.mean + 100, r.components.log_var + math.log(9)),
            )
            for r in (p, q)
        ]
        assert divergence.integral(*moved, which, order(which)).item() == pytest.approx(found)


@every_divergence
def test_closed_form_and_quadrature_agree_with_scipy_s(which):
    p, q = stats.norm(0, 1), stats.norm(1, 1.3)
    alpha = 0.3

    def power(a):
        return integrate.quad(lambda x: p.pdf(x) ** a * q.pdf(x) ** (1 - a), -12, 12)[0]

    def mean_log_ratio(a, b):
        return integrate.quad(lambda x: a.pdf(x) * (a.logpdf(x) - b.logpdf(x)), -12, 12)[0]

    def js(x):
        both = np.log((p.pdf(x) + q.pdf(x)) / 2)
        return 0.5 * p.pdf(x) * (p.logpdf(x) - both) + 0.5 * q.pdf(x) * (q.logpdf(x) - both)

    expected = {
        "kl": lambda: mean_log_ratio(p, q),
        "jeffreys": lambda: mean_log_ratio(p, q) + mean_log_ratio(q, p),
        "jensen_shannon": lambda: integrate.quad(js, -12, 12)[0],
        "renyi": lambda: np.log(power(alpha)) / (alpha - 1),
        "alpha": lambda: (power(alpha) - 1) / (alpha * (alpha - 1)),
        "bhattacharyya": lambda: -np.log(power(0.5)),
        "hellinger": lambda: np.sqrt(1 - power(0.5)),
        "fisher": lambda: integrate.quad(
            lambda x: 0.5 * p.pdf(x) * (-x + (x - 1) / 1.69) ** 2, -12, 12
        )[0],
    }[which]()
    more = (alpha,) if which in ORDERED else ()
    ours = gaussian(0, 1), gaussian(1, 1.69)
    assert divergence.integral(*ours, which, *more).item() == pytest.approx(expected, rel=1e-8)
    if which in CLOSED:
        assert CLOSED[which](*ours, *more).item() == pytest.approx(expected, rel=1e-8)


def test_an_order_above_one_is_integrated_where_neither_lies_or_is_infinite():
    """p^2 / q of N(0, 1) and N(1, .52) is a Gaussian of deviation 3.6, about -25; of N(0, 4) and N(0,
    1) it grows.
    """
    for q in (gaussian(1, 0.52), gaussian(1, 0.505)):
        for which in ("renyi", "alpha"):
            exact = CLOSED[which](N01, q, 2).item()
            assert divergence.integral(N01, q, which, 2).item() == pytest.approx(exact, rel=1e-9)
    wide = line_mixture((0.1, 0.9), (0, 3), (4, 1))
    assert divergence.integral(wide, N01, "renyi", 2).item() == math.inf
    assert divergence.integral(N01, wide, "alpha", -1).item() == math.inf


@every_divergence
def test_estimates_are_within_four_standard_errors_of_quadrature_on_random_mixtures(which):
    generator = torch.Generator().manual_seed(1)
    off = []
    for seed in range(20):
        p, q = (
            Mixture(
                normal(k, seed=seed + k).log_softmax(0),
                Gaussian(2 * normal(k, 1, seed=seed + 40 + k), 0.5 * normal(k, 1, seed=seed + k)),
            )
            for k in (2, 4)
        )
        value, error = divergence.estimate(p, q, which, 2000, generator, order(which))
        exact = divergence.integral(p, q, which, order(which))
        off.append(((value - exact) / error).item())
    assert max(map(abs, off)) < 4
    assert 0.5 < np.std(off) < 1.6  # the errors are of the size they are said to be


def test_the_estimate_in_more_dimensions_is_the_closed_form():
    p, q = (
        tree_map(lambda part: part[0], random(FullGaussian, k=1, d=3, seed=seed)) for seed in (0, 2)
    )
    for which in ("kl", "renyi", "bhattacharyya", "fisher"):
        value, error = divergence.estimate(p, q, which, 20_000, alpha=order(which))
        exact = CLOSED[which](p, q).item()
        assert value.item() == pytest.approx(exact, abs=4 * error.item())
        assert error < 0.1 * exact


def test_strata_take_the_chance_of_the_component_away():
    """Of clusters far apart what a draw says is which cluster it came from."""
    p = line_mixture((0.5, 0.5), (0, 1000), (1e-4, 1e-4))
    q = line_mixture((0.1, 0.9), (0, 1000), (1e-4, 1e-4))
    value, error = divergence.estimate(p, q, "kl", 1000)
    exact = 0.5 * math.log(5) + 0.5 * math.log(5 / 9)
    assert value.item() == pytest.approx(exact, abs=1e-9)
    assert error < 1e-9


def test_bounds_hold_the_kl_between_them():
    for seed in range(20):
        p, q = (
            Mixture(
                normal(k, seed=seed + k).log_softmax(0),
                Gaussian(2 * normal(k, 1, seed=seed + 40 + k), 0.5 * normal(k, 1, seed=seed + k)),
            )
            for k in (2, 4)
        )
        low, high = divergence.bounds(p, q)
        exact = divergence.integral(p, q, "kl")
        assert 0 <= low <= exact + 1e-10 <= high + 2e-10
        assert divergence.bounds(p, p)[1] < 1e-9


def test_bounds_are_tight_for_two_gaussians_and_for_clusters_far_apart():
    p, q = mixed(FullGaussian, k=1), mixed(FullGaussian, k=1, seed=4)
    exact = divergence.kl(p.components, q.components).item()
    assert [each.item() for each in divergence.bounds(p, q)] == pytest.approx([exact, exact])
    far = line_mixture((0.5, 0.5), (0, 1000), (1, 1))
    other = line_mixture((0.1, 0.9), (0, 1000), (1, 1))
    exact = 0.5 * math.log(5) + 0.5 * math.log(5 / 9)
    assert divergence.bounds(far, other)[1].item() == pytest.approx(exact, abs=1e-6)


def test_closed_forms_are_differentiable():
    leaves = [normal(4, 3, seed=seed).requires_grad_() for seed in range(4)]

    def every(a, b, c, d):
        p, q = Gaussian(a, 0.2 * b), Gaussian(c, 0.2 * d)
        return torch.stack([CLOSED[which](p, q).sum() for which in CLOSED])

    assert torch.autograd.gradcheck(every, leaves)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: divergence.alpha(N01, N14, 1), r"alpha is 1, .*: expected another .*kl\(p, q\)"),
        (lambda: divergence.alpha(N01, N14, 0), r"alpha is 0, .* use kl\(q, p\)"),
        (lambda: divergence.renyi(N01, N14, -1), "alpha is -1: expected a number of at least 0"),
        (lambda: divergence.kl(BIMODAL, N01), "no closed form: expected Gaussians; use"),
        (lambda: divergence.estimate(N01, N14, "kll"), "which is 'kll': .*did you mean kl"),
        (lambda: divergence.estimate(N01, N14, "kl", alpha=2), "kl has no order"),
        (lambda: divergence.estimate(N01, N14, "renyi"), "renyi needs an order"),
        (lambda: divergence.estimate(N01, N14, samples=1), "samples is 1"),
        (
            lambda: divergence.jensen_shannon(mixed(Gaussian), mixed(Gaussian)),
            "4 dimensions: expected 1; use divergence.estimate",
        ),
        (lambda: divergence.estimate(N01, mixed(Gaussian)), "p has 1 dimensions and q 4"),
        (lambda: divergence.kl(3, N01), "components are int"),
    ],
)
def test_what_has_no_answer_is_refused_in_a_sentence(ask, said):
    with pytest.raises(InputError, match=said):
        ask()
