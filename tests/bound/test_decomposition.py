"""The parts of the rate against closed forms, quadrature and a direct sum over all pairs."""

import math

import numpy as np
import pytest
import torch
from cases import some
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import logsumexp

from jensen.base.errors import InputError
from jensen.bound import overlap
from jensen.bound.aggregate import Draws, aggregate_log_density, draw
from jensen.bound.decomposition import decompose
from jensen.bound.overlap import excess
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parts(posterior: Gaussian, samples: int = 4000, **options) -> dict[str, float]:
    result = decompose(posterior, samples=samples, generator=generator(), **options)
    return {name: value.item() for name, value in result._asdict().items() if value.dim() == 0}


def random_posterior(count: int, dim: int, seed: int = 0, log_var: float = -2.0) -> Gaussian:
    noise = torch.randn(2, count, dim, generator=generator(seed), dtype=torch.float64)
    return Gaussian(noise[0], log_var + 0.5 * noise[1])


def pairwise(draws: Draws, q: Gaussian) -> np.ndarray:
    """log q(z_s|x_n), `(S, N)`, by scipy."""
    std = np.exp(0.5 * q.log_var.numpy())
    return stats.norm.logpdf(draws.z.numpy()[:, None], q.mean.numpy(), std).sum(2)


def linear_gaussian(count: int, std: tuple[float, ...] = (0.5, 0.7, 0.9, 1.0)):
    """G1: posteriors of a linear encoder on N points of exact covariance I, and MI, TC, DWKL of an
    infinite sample.
    """
    dim = len(std)
    x = torch.randn(count, dim, generator=generator(1), dtype=torch.float64)
    x = x - x.mean(0)
    x = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T @ x / count), x.T, upper=False).T
    matrix = 0.6 * torch.randn(dim, dim, generator=generator(2), dtype=torch.float64)
    shift = torch.tensor([0.5, 0.0, -1.0, 0.2], dtype=torch.float64)
    variance = torch.tensor(std, dtype=torch.float64).square()
    c = matrix @ matrix.T + variance.diag()
    diagonal = c.diagonal()
    log_det = torch.logdet(c)
    truth = {
        "mutual_information": 0.5 * (log_det - variance.log().sum()),
        "total_correlation": 0.5 * (diagonal.log().sum() - log_det),
        "dimension_wise_kl": 0.5 * (diagonal + shift.square() - 1 - diagonal.log()).sum(),
        "marginal_kl": 0.5 * (c.trace() + shift.square().sum() - dim - log_det),
    }
    return Gaussian(x @ matrix.T + shift, variance.log().expand(count, dim)), truth


@pytest.mark.parametrize(("count", "tolerance"), [(500, 0.1), (2000, 0.03), (8000, 0.01)])
def test_a_linear_encoder_on_gaussian_data_approaches_its_closed_form(count, tolerance):
    posterior, truth = linear_gaussian(count)
    found = parts(posterior)
    for name, value in truth.items():
        assert found[name] == pytest.approx(value.item(), abs=tolerance), name


@pytest.mark.parametrize(
    ("std", "expected"), [(0.1, 0.693147), (0.5, 0.632720), (1.0, 0.336831), (2.0, 0.111421)]
)
def test_two_points(std, expected):
    """G4: the constants are log 2 - E softplus(-2 a^2/s^2 - 2 a e/s), here by quadrature too."""
    integrand = lambda e: stats.norm.pdf(e) * np.logaddexp(0, -2 / std**2 - 2 * e / std)  # noqa: E731
    by_quadrature = math.log(2) - integrate.quad(integrand, -12, 12, epsabs=1e-12)[0]
    assert by_quadrature == pytest.approx(expected, abs=1e-6)
    found = parts(
        Gaussian(torch.tensor([[-1.0], [1.0]]), torch.full((2, 1), 2 * math.log(std))),
        samples=200_000,
    )
    assert found["mutual_information"] == pytest.approx(
        by_quadrature, abs=max(5 * found["mutual_information_se"], 1e-9)
    )
    assert found["mutual_information"] == pytest.approx(expected, abs=1e-3)


def test_posteriors_far_apart_carry_log_n():
    found = parts(Gaussian(100.0 * torch.arange(100)[:, None], torch.zeros(100, 1)))
    assert found["mutual_information"] == pytest.approx(math.log(100), abs=1e-6)
    assert found["log_n"] == pytest.approx(math.log(100))


def test_a_product_structure_has_no_total_correlation():
    """G6: x on a full grid, each latent sees one coordinate."""
    axis = torch.tensor([-2.0, -0.3, 0.8, 1.5], dtype=torch.float64)
    mean = torch.cartesian_prod(axis, axis, axis)
    found = parts(Gaussian(mean, torch.full_like(mean, -2.0)), samples=20_000)
    assert abs(found["total_correlation"]) < 4 * found["total_correlation_se"] + 1e-9
    alone = parts(
        Gaussian(axis[:, None], torch.full((4, 1), -2.0, dtype=torch.float64)), samples=20_000
    )
    slack = 5 * (found["mutual_information_se"] + 3 * alone["mutual_information_se"])
    assert found["mutual_information"] == pytest.approx(3 * alone["mutual_information"], abs=slack)


def test_a_duplicated_latent_adds_its_mutual_information_to_the_total_correlation():
    """G7, for z2 = the mean of z1 plus noise of its own: TC = I(z1; z2), by quadrature over the
    plane.
    """
    mean = torch.tensor([[-1.0], [0.2], [1.1]], dtype=torch.float64).expand(-1, 2)
    posterior = Gaussian(mean, torch.full((3, 2), -1.0, dtype=torch.float64))
    grid = np.linspace(-6, 6, 601)
    each = stats.norm.pdf(grid[:, None], mean[:, 0].numpy(), math.exp(-0.5))
    joint = np.einsum("an,bn->ab", each, each) / 3
    single = each.mean(1)
    expected = integrate.simpson(
        integrate.simpson(joint * np.log(joint / np.outer(single, single)), x=grid), x=grid
    )
    found = parts(posterior, samples=50_000)
    assert found["total_correlation"] == pytest.approx(
        expected, abs=5 * found["total_correlation_se"]
    )
    alone = parts(Gaussian(mean[:, :1], posterior.log_var[:, :1]))
    assert found["dimension_wise_kl"] == pytest.approx(2 * alone["dimension_wise_kl"], rel=1e-9)


def test_a_collapsed_encoder_has_nothing():
    found = parts(Gaussian(torch.zeros(200, 3), torch.zeros(200, 3)))
    for name in (
        "rate",
        "mutual_information",
        "total_correlation",
        "dimension_wise_kl",
        "marginal_kl",
    ):
        assert found[name] == pytest.approx(0, abs=1e-9), name


def test_the_displayed_parts_add_up_to_the_displayed_closed_form_rate():
    posterior = random_posterior(300, 4)
    found = parts(posterior, samples=50)
    reference = torch.distributions.Normal(posterior.mean, (0.5 * posterior.log_var).exp())
    rate = (
        torch.distributions.kl_divergence(reference, torch.distributions.Normal(0.0, 1.0))
        .sum(1)
        .mean()
        .item()
    )
    assert found["rate"] == pytest.approx(rate, rel=1e-12)
    added = found["mutual_information"] + found["total_correlation"] + found["dimension_wise_kl"]
    assert added == pytest.approx(rate, rel=1e-12)
    assert found["mutual_information"] + found["marginal_kl"] == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("log_var", [-9.0, -2.0, 1.0])
def test_the_aggregate_density_is_the_direct_sum_over_all_pairs(log_var):
    q = random_posterior(700, 5, log_var=log_var)
    draws = draw(q, 1500, generator())
    direct = logsumexp(pairwise(draws, q), axis=1) - math.log(700)
    assert np.abs(aggregate_log_density(draws, q, 700).numpy() - direct).max() < 1e-9


def clusters(places: tuple[float, ...], log_var: float, count: int = 300, dim: int = 2) -> Gaussian:
    """Posteriors about each of some places, a deviation or so apart: they overlap."""
    deviation = math.exp(0.5 * log_var)
    mean = torch.randn(count, dim, generator=generator(3), dtype=torch.float64) * 2 * deviation
    mean += torch.tensor(places).double()[torch.arange(count) % len(places), None]
    return Gaussian(mean, torch.full_like(mean, log_var))


@pytest.mark.parametrize("places", [(1e4,), (0.0, 1e4), (-3e5, 0.0, 1e5)])
@pytest.mark.parametrize("log_var", [-19.0, -8.0])
@pytest.mark.parametrize("wider", [0.0, 20.0])
def test_the_aggregate_density_is_the_direct_sum_wherever_narrow_posteriors_lie(
    places, log_var, wider
):
    """Clusters far apart have no place about which all products keep their digits."""
    q = clusters(places, log_var)
    q = q._replace(log_var=q.log_var + wider * (torch.arange(300) % 7 == 0)[:, None])
    draws = draw(q, 1000, generator())
    direct = logsumexp(pairwise(draws, q), axis=1) - math.log(300)
    rounding = np.finfo(float).eps * max(map(abs, places)) / math.exp(0.5 * log_var)
    found = aggregate_log_density(draws, q, 300).numpy()
    assert np.abs(found - direct).max() < 1e-4 + 100 * rounding


@pytest.mark.parametrize("place", [1e4, -3e6])
@pytest.mark.parametrize("samples", [4000, 400])
def test_where_posteriors_lie_changes_their_information_by_nothing(place, samples):
    q = clusters((0.0,), -19.0)
    here = parts(q, samples)
    there = parts(q._replace(mean=q.mean + place), samples)
    rounding = abs(place) * np.finfo(float).eps / math.exp(-9.5)  # of a mean, in deviations
    for name in ("mutual_information", "total_correlation"):
        assert there[name] == pytest.approx(here[name], abs=1e-6 + 30 * rounding)
        assert there[f"{name}_se"] == pytest.approx(here[f"{name}_se"], rel=1e-2, abs=1e-9)


def test_clusters_far_apart_carry_the_log_of_their_number_and_what_each_does():
    """Two copies of one cluster, 1e6 apart: log 2 more, in the joint and in every marginal."""
    one = clusters((0.0,), -19.0)
    both = Gaussian(torch.cat([one.mean, one.mean + 1e6]), torch.cat([one.log_var, one.log_var]))
    single, pair = parts(one, 20_000), parts(both, 20_000)
    error = 4 * math.hypot(single["mutual_information_se"], pair["mutual_information_se"])
    assert pair["mutual_information"] == pytest.approx(
        single["mutual_information"] + math.log(2), abs=error + 1e-3
    )
    error = 4 * math.hypot(single["total_correlation_se"], pair["total_correlation_se"])
    assert pair["total_correlation"] == pytest.approx(
        single["total_correlation"] + math.log(2), abs=error + 1e-3
    )


def test_a_posterior_that_dwarfs_the_draws_own_is_summed_again():
    """One posterior e^900 times as dense as the wide one that a draw came from: exp of the ratio
    overflows.
    """
    q = Gaussian(
        torch.zeros(2, 100, dtype=torch.float64),
        torch.stack([torch.zeros(100), torch.full((100,), -18.4)]).double(),
    )
    draws = Draws(
        torch.zeros(1, 100, dtype=torch.float64),
        torch.zeros(1, dtype=torch.long),
        torch.zeros(1, 100).double(),
    )
    direct = logsumexp(pairwise(draws, q), axis=1) - math.log(2)
    assert aggregate_log_density(draws, q, 2).numpy() == pytest.approx(direct, rel=1e-12)


def test_own_weight_bounds_the_log_ratio_by_log_n():
    """I2, per draw, for all posteriors and for a subset that stands for a larger data set."""
    q = random_posterior(200, 3, log_var=-6.0)
    draws = draw(q, 1000, generator())
    own = np.take_along_axis(pairwise(draws, q), draws.row.numpy()[:, None], 1)[:, 0]
    for size in (200, 100_000):
        assert (own - aggregate_log_density(draws, q, size).numpy()).max() <= math.log(size) + 1e-6


def test_the_stratified_estimate_of_a_subset():
    """w = 1/N for the draw's own posterior, (N-1)/(N(M-1)) for the others."""
    q = random_posterior(20, 2)
    draws = draw(q, 100, generator())
    weights = np.full((100, 20), 999 / (1000 * 19))
    weights[np.arange(100), draws.row.numpy()] = 1 / 1000
    direct = logsumexp(pairwise(draws, q), axis=1, b=weights)
    assert aggregate_log_density(draws, q, 1000).numpy() == pytest.approx(direct, abs=1e-9)
    assert parts(q, dataset_size=1000)["log_n"] == pytest.approx(math.log(1000))


def test_the_standard_error_is_that_of_repetitions():
    posterior = random_posterior(400, 3, log_var=-4.0)
    runs = [decompose(posterior, samples=400, generator=generator(seed)) for seed in range(60)]
    for name in ("mutual_information", "total_correlation"):
        values = torch.stack([getattr(run, name) for run in runs])
        claimed = torch.stack([getattr(run, f"{name}_se") for run in runs]).mean()
        assert 0.6 < values.std() / claimed < 1.4


def corners(dim: int, reach: float) -> tuple[Gaussian, float]:
    """Posteriors of deviation 1 at the 2^dim corners of a cube, and the MI, by quadrature of one
    latent (G4, G6).
    """
    corner = torch.cartesian_prod(
        *[torch.tensor([-reach, reach], dtype=torch.float64)] * dim
    ).reshape(-1, dim)
    lost = integrate.quad(
        lambda e: stats.norm.pdf(e) * np.logaddexp(0, -2 * reach**2 - 2 * reach * e),
        -12,
        12,
        points=[-reach],
        epsabs=1e-14,
    )[0]
    return Gaussian(corner, torch.zeros_like(corner)), dim * (math.log(2) - lost)


@some(2, ("dim", "reach", "samples"), [(6, 2.6, 128), (6, 3.4, 128), (6, 4.0, 1000), (3, 3.3, 64)])
def test_the_standard_error_holds_where_hardly_any_draw_overlaps(dim, reach, samples):
    """MI is .06 to .0002 nats below log N, by a few draws of a set, or none: their spread alone is
    up to 9 times too small.
    """
    posterior, exact = corners(dim, reach)
    runs = [decompose(posterior, samples=samples, generator=generator(seed)) for seed in range(60)]
    for name, truth in (("mutual_information", exact), ("total_correlation", 0.0)):
        error = torch.stack([getattr(run, name) for run in runs]) - truth
        claimed = torch.stack([getattr(run, f"{name}_se") for run in runs])
        assert 0.4 < error.square().mean().sqrt() / claimed.median() < 1.5
        assert (error.abs() <= 2 * claimed).double().mean() >= 0.9


@pytest.mark.slow
def test_the_standard_error_of_a_marginal_that_is_taken_at_the_draws_holds_as_well():
    """Posteriors on a line, 7 deviations apart, so many that a grid would be too long: H(z) is that
    of one, and log N, less what two neighbours share."""
    mean = torch.arange(600, dtype=torch.float64)[:, None] * 7
    posterior = Gaussian(mean, torch.zeros_like(mean))
    runs = [decompose(posterior, samples=600, generator=generator(seed)) for seed in range(40)]
    share = integrate.quad(
        lambda e: stats.norm.pdf(e) * np.logaddexp(0, -24.5 - 7 * e), -12, 12, points=[-3.5]
    )[0]
    exact = math.log(600) - 2 * share * 599 / 600
    error = torch.stack([run.dimension_wise_kl - run.rate for run in runs]) + exact
    claimed = torch.stack([run.dimension_wise_kl_se for run in runs])
    assert 0.4 < error.square().mean().sqrt() / claimed.median() < 1.5


@pytest.mark.parametrize("distance", [1.0, 2.0, 10.0, 50.0])
def test_the_excess_over_a_rival_is_the_integral(distance):
    """Two posteriors, of one deviation: log r is N(-a, 2 a) with a half of the squared distance."""
    q = Gaussian(
        torch.tensor([[0.0, 1.0], [math.sqrt(2 * distance), 1.0]]).double(),
        torch.zeros(2, 2).double(),
    )
    for power, found in enumerate(excess(q), 1):
        expected = integrate.quad(
            lambda e, power=power: (
                stats.norm.pdf(e)
                * np.logaddexp(0, -distance + math.sqrt(2 * distance) * e) ** power
            ),
            -14,
            14,
            points=[math.sqrt(distance / 2)],
            epsabs=1e-16,
        )[0]
        assert found.item() == pytest.approx(expected, rel=0.01)


def test_the_excess_of_many_posteriors_is_that_of_some(monkeypatch):
    q = random_posterior(300, 3, log_var=-5.0)
    whole = excess(q)
    monkeypatch.setattr(overlap, "WORK", 300 * 3 * 100)
    assert [part.item() for part in excess(q)] == pytest.approx(
        [part.item() for part in whole], rel=0.3
    )
    alone = excess(Gaussian(*(part[:1] for part in q)))
    assert [part.item() for part in alone] == [0, 0]


def test_the_control_variates_do_not_bias():
    """Mean over repetitions against the exact MI by quadrature over one latent."""
    mean = torch.tensor([[-1.5], [-0.2], [0.4], [2.0]], dtype=torch.float64)
    std = np.array([0.3, 0.6, 0.2, 0.9])
    posterior = Gaussian(mean, torch.from_numpy(2 * np.log(std))[:, None])
    density = lambda z: stats.norm.pdf(z, mean[:, 0].numpy(), std).mean()  # noqa: E731
    entropy = -integrate.quad(
        lambda z: density(z) * np.log(density(z)), -8, 10, epsabs=1e-11, limit=400
    )[0]
    exact = entropy - (0.5 * np.log(2 * np.pi * np.e * std**2)).mean()
    runs = [decompose(posterior, samples=1000, generator=generator(seed)) for seed in range(40)]
    values = torch.stack([run.mutual_information for run in runs])
    assert values.mean().item() == pytest.approx(exact, abs=4 * values.std().item() / math.sqrt(40))
    assert abs(runs[0].total_correlation) < 4 * runs[0].total_correlation_se  # one latent has none


def test_products_of_latents_are_made_where_there_are_draws_enough_for_them(monkeypatch):
    made = []
    indices = torch.triu_indices
    monkeypatch.setattr(torch, "triu_indices", lambda *a, **o: made.append(a) or indices(*a, **o))
    for samples in (600, 700):  # a tenth of them, less two, is 58 or 68: 2 x 10 + 45 is 65
        decompose(random_posterior(50, 10), samples=samples, generator=generator())
        assert len(made) == (samples == 700)


def test_permuting_latents_or_examples_changes_nothing():
    posterior = random_posterior(300, 4)
    found = parts(posterior, samples=3000)
    latents = torch.tensor([2, 0, 3, 1])
    rows = torch.randperm(300, generator=generator(5))
    for order in (lambda part: part[:, latents], lambda part: part[rows]):
        again = parts(Gaussian(*(order(part) for part in posterior)), samples=3000)
        assert again["dimension_wise_kl"] == pytest.approx(found["dimension_wise_kl"], rel=1e-9)
        slack = 5 * (found["mutual_information_se"] + again["mutual_information_se"])
        assert again["mutual_information"] == pytest.approx(found["mutual_information"], abs=slack)


def test_float32_and_float64_posteriors_agree():
    posterior = random_posterior(500, 6)
    single = Gaussian(*(part.float() for part in posterior))
    double = Gaussian(*(part.double() for part in single))
    assert parts(single) == parts(double)


def test_narrow_posteriors_fall_back_from_the_grid_to_the_draws():
    posterior = random_posterior(50, 2, log_var=-18.0)
    found = parts(posterior, samples=500)
    assert found["dimension_wise_kl_se"] > 0
    assert found["mutual_information"] == pytest.approx(math.log(50), abs=1e-3)
    total = found["mutual_information"] + found["total_correlation"] + found["dimension_wise_kl"]
    assert total == pytest.approx(found["rate"], rel=1e-12)
    draws = draw(posterior, 200_000, generator(9))
    std = np.exp(0.5 * posterior.log_var.numpy())
    for latent in range(2):
        log_q = logsumexp(
            stats.norm.logpdf(
                draws.z[:2000, latent].numpy()[:, None],
                posterior.mean[:, latent].numpy(),
                std[:, latent],
            ),
            axis=1,
        ) - math.log(50)
        assert np.isfinite(log_q).all()


# ---- priors that are not N(0, I)


def test_a_mixture_of_one_standard_normal_is_the_standard_normal():
    """G10: and the rate, though estimated, is exact, since log p is quadratic."""
    posterior = random_posterior(300, 3)
    plain = parts(posterior)
    for count in (1, 3):
        components = Gaussian(torch.zeros(count, 3).double(), torch.zeros(count, 3).double())
        prior = Mixture(torch.full((count,), -math.log(count), dtype=torch.float64), components)
        found = parts(posterior, prior=prior)
        for name in (
            "rate",
            "mutual_information",
            "total_correlation",
            "dimension_wise_kl",
            "marginal_kl",
            "prior_dependence",
        ):
            assert found[name] == pytest.approx(plain[name], abs=1e-8), name


def test_a_mixture_prior_has_a_fourth_term():
    """KL(q || p) = TC + DWKL - E log [p / prod p_d], each by quadrature on the plane for two
    posteriors.
    """
    posterior = Gaussian(
        torch.tensor([[-1.0, -0.5], [1.0, 0.7]]).double(),
        torch.tensor([[-1.0, -0.4], [-0.2, -1.5]]).double(),
    )
    means = torch.tensor([[-1.2, -1.0], [0.9, 1.0]]).double()
    scale = torch.tensor([[[0.8, 0.0], [0.3, 0.6]], [[0.5, 0.0], [-0.2, 0.9]]]).double()
    prior = Mixture(torch.tensor([0.3, 0.7]).double().log(), FullGaussian(means, scale))
    grid = np.linspace(-7, 7, 701)
    plane = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1)
    std = np.exp(0.5 * posterior.log_var.numpy())
    each = stats.norm.pdf(grid[:, None, None], posterior.mean.numpy(), std)  # (G, N, D)
    q = np.einsum("an,bn->ab", each[..., 0], each[..., 1]) / 2
    q0 = each[..., 0].mean(1)
    q1 = each[..., 1].mean(1)
    covariance = (scale @ scale.mT).numpy()
    p = sum(
        w * stats.multivariate_normal(m, c).pdf(plane)
        for w, m, c in zip((0.3, 0.7), means.numpy(), covariance, strict=True)
    )
    p0, p1 = (
        sum(
            w * stats.norm.pdf(grid, m[d], math.sqrt(c[d, d]))
            for w, m, c in zip((0.3, 0.7), means.numpy(), covariance, strict=True)
        )
        for d in (0, 1)
    )
    expected = lambda f: integrate.simpson(integrate.simpson(q * f, x=grid), x=grid)  # noqa: E731
    found = parts(posterior, samples=50_000, prior=prior)
    truth = {
        "marginal_kl": expected(np.log(q / p)),
        "total_correlation": expected(np.log(q / np.outer(q0, q1))),
        "dimension_wise_kl": expected(np.log(np.outer(q0, q1) / np.outer(p0, p1))),
        "prior_dependence": expected(np.log(p / np.outer(p0, p1))),
    }
    for name, value in truth.items():
        assert found[name] == pytest.approx(value, abs=5 * found[f"{name}_se"] + 1e-6), name
    four = found["total_correlation"] + found["dimension_wise_kl"] - found["prior_dependence"]
    assert found["marginal_kl"] == pytest.approx(four, abs=1e-9)
    assert found["rate"] >= found["mutual_information"] - 4 * found["marginal_kl_se"]


# ---- any input


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    count=st.integers(1, 30),
    dim=st.integers(1, 6),
    samples=st.integers(2, 80),
    log_var=st.sampled_from([-18.0, -5.0, 0.0, 3.0]),
    spread=st.sampled_from([0.0, 1e-3, 1.0, 50.0]),
)
def test_any_posteriors_give_finite_parts_within_their_bounds(count, dim, samples, log_var, spread):
    mean = spread * torch.randn(count, dim, generator=generator(count), dtype=torch.float64)
    found = parts(Gaussian(mean, torch.full_like(mean, log_var)), samples=samples)
    assert all(math.isfinite(value) for value in found.values())
    scale = 1e-9 * max(1, abs(found["rate"]))
    assert found["mutual_information"] <= math.log(count) + 1e-6 + (
        6 * found["mutual_information_se"] if samples >= 20 else 0
    )
    if samples >= 30:  # a standard error of fewer draws is itself a guess
        slack = 6 * found["mutual_information_se"] + 1e-6 + scale
        assert found["mutual_information"] >= -slack
        assert found["mutual_information"] <= found["rate"] + slack
        assert found["marginal_kl"] >= max(0, found["rate"] - math.log(count)) - slack
        assert found["total_correlation"] >= -6 * found["total_correlation_se"] - 1e-6 - scale
        assert found["dimension_wise_kl"] >= -6 * found["dimension_wise_kl_se"] - 1e-6 - scale
    total = found["mutual_information"] + found["total_correlation"] + found["dimension_wise_kl"]
    assert total == pytest.approx(found["rate"], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("posterior", "options", "message"),
    [
        (Gaussian(torch.zeros(0, 3), torch.zeros(0, 3)), {}, r"mean \[0, 3\]"),
        (Gaussian(torch.zeros(5), torch.zeros(5)), {}, r"expected \(N, D\)"),
        (Gaussian(torch.zeros(5, 2), torch.zeros(5, 3)), {}, r"log_var \[5, 3\]"),
        (Gaussian(torch.full((5, 2), math.nan), torch.zeros(5, 2)), {}, "NaN or infinite"),
        (Gaussian(torch.zeros(5, 2), torch.full((5, 2), math.inf)), {}, "NaN or infinite"),
        (
            Gaussian(torch.zeros(5, 2), torch.zeros(5, 2)),
            {"dataset_size": 4},
            "dataset_size is 4: expected an integer of at least 5",
        ),
        (
            Gaussian(torch.zeros(5, 2), torch.zeros(5, 2)),
            {"samples": 1},
            "samples is 1: expected an integer of at least 2",
        ),
    ],
)
def test_bad_input_is_one_sentence(posterior, options, message):
    with pytest.raises(InputError, match=message):
        decompose(posterior, **({"samples": 10, "generator": generator()} | options))
