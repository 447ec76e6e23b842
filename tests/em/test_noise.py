"""Points with an error of their own: the mixture that is found is the one without it."""

import math

import numpy as np
import pytest
import torch
from mixtures import STRUCTURES, close, covariance, every_structure, mixed, normal
from scipy import stats

from jensen import GMM
from jensen.base.errors import InputError
from jensen.em import local, missing, noise
from jensen.em.information import Plain
from jensen.family.structures import structure_of


def chunks(x, weights=None):
    def give(size):
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            yield x[part], None if weights is None else weights[part]

    return give


def errors(n, dim, seed=7):
    a = normal(n, dim, dim, seed=seed)
    return a @ a.mT


@every_structure
def test_without_error_it_is_the_plain_e_step(structure):
    p = mixed(structure)
    x = 3 * normal(60, 4)
    weights = torch.rand(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    origin = torch.zeros(4, dtype=torch.float64)
    none = torch.zeros(60, 4, 4, dtype=torch.float64)
    found = noise.local(chunks(x, weights), none, origin, p)
    expected = local.expect(chunks(x, weights), origin, p)
    close(found.log_likelihood, expected.log_likelihood)
    for ours, theirs in zip(found.moments, expected.moments, strict=True):
        close(ours, theirs, 1e-9)


def test_without_error_and_with_holes_it_is_the_e_step_of_missing_values():
    p = mixed(STRUCTURES[0])
    x = 3 * normal(60, 4)
    x[::3, 1] = math.nan
    x[::4, 2] = math.nan
    origin = torch.zeros(4, dtype=torch.float64)
    none = torch.zeros(60, 4, 4, dtype=torch.float64)
    found = noise.local(chunks(x), none, origin, p)
    expected = missing.local(chunks(x), origin, p)
    close(found.log_likelihood, expected.log_likelihood)
    for ours, theirs in zip(found.moments, expected.moments, strict=True):
        close(ours, theirs, 1e-9)


@every_structure
def test_the_likelihood_is_scipy_s_and_parts_are_the_whole(structure, monkeypatch):
    p = mixed(structure)
    x = 3 * normal(30, 4)
    own = errors(30, 4)
    origin = torch.full((4,), 0.5, dtype=torch.float64)
    whole = noise.local(chunks(x + origin), own, origin, p)
    cov = covariance(p.components)
    expected = sum(
        np.log(
            sum(
                weight * stats.multivariate_normal(m, v + s).pdf(point)
                for weight, m, v in zip(
                    p.log_weight.exp().tolist(), p.components.mean.numpy(), cov.numpy(), strict=True
                )
            )
        )
        for point, s in zip(x.numpy(), own.numpy(), strict=True)
    )
    assert whole.log_likelihood.item() == pytest.approx(expected)
    monkeypatch.setattr(noise, "_LIMIT", 1)
    parts = noise.local(chunks(x + origin), own, origin, p)
    close(parts.log_likelihood, whole.log_likelihood)
    close(parts.moments.second, whole.moments.second)


def test_the_moments_are_those_of_the_posterior_of_the_point_without_its_error():
    """Bovy et al. by its joint Gaussian of a point and its error-free self."""
    p = mixed(STRUCTURES[0], k=1, d=2)
    x, own = normal(1, 2), errors(1, 2)
    found = noise.local(chunks(x), own, torch.zeros(2, dtype=torch.float64), p).moments
    v, m = covariance(p.components)[0], p.components.mean[0]
    precision = v.inverse() + own[0].inverse()
    expected = precision.inverse() @ (v.inverse() @ m + own[0].inverse() @ x[0])
    close(found.first[0], expected - m)
    move = (expected - m)[:, None]
    close(found.second[0], move @ move.T + precision.inverse())


def noisy(n=5000, seed=0):
    rng = np.random.default_rng(seed)
    inside = rng.random(n) < 0.4
    factor = np.where(inside[:, None, None], [[1, 0], [0.5, 0.6]], [[0.5, 0], [0, 1.2]])
    clean = (
        np.where(inside[:, None], [-2, 0], [2.5, 1]) + (factor @ rng.normal(size=(n, 2, 1)))[..., 0]
    )
    scale = rng.uniform(0.2, 1.5, size=(n, 2))
    truth = [[[1, 0.5], [0.5, 0.61]], [[0.25, 0], [0, 1.44]]]
    return (
        torch.tensor(clean + scale * rng.normal(size=(n, 2))),
        torch.tensor(scale**2),
        torch.tensor(truth),
    )


def test_noisy_points_of_a_known_mixture_give_its_covariances_and_not_the_inflated_ones():
    x, variances, truth = noisy()
    gmm = GMM(2, order="mean").fit(x, noise=variances)
    plain = GMM(2, order="mean").fit(x)
    names = gmm.parameter_names
    # An error-free fit to as many points errs less than this one, whose errors are from the
    # curvature of its own likelihood.
    found = Plain(gmm.mixture)
    theta = found.vector()

    def log_likelihood(at):
        p = found.mixture(at)
        cov = p.components.scale_tril @ p.components.scale_tril.mT
        each = torch.distributions.MultivariateNormal(
            p.components.mean, cov + variances.diag_embed()[:, None]
        )
        return (each.log_prob(x[:, None]) + p.log_weight).logsumexp(1).sum()

    curvature = torch.autograd.functional.hessian(log_likelihood, theta)
    error = (-curvature).inverse().diagonal().sqrt()
    for k in range(2):
        for i, j in ((0, 0), (1, 0), (1, 1)):
            place = names.index(f"covariance[{k},{i},{j}]")
            assert (theta[place] - truth[k, i, j]).abs() < 3 * error[place]
            if i == j:
                inflated = Plain(plain.mixture).vector()[place]
                assert inflated > truth[k, i, j] + 6 * error[place]
    assert gmm.log_likelihood == pytest.approx(log_likelihood(theta).item())


@pytest.mark.parametrize("structure", [structure_of(mixed(s).components) for s in STRUCTURES])
def test_a_fit_with_no_noise_is_the_plain_fit(structure):
    x, _, _ = noisy(600)
    plain = GMM(2, structure, order="mean", tolerance=1e-10).fit(x)
    found = GMM(2, structure, order="mean", tolerance=1e-10).fit(x, noise=torch.zeros(600, 2))
    close(found.mean, plain.mean, 1e-5)
    assert found.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-6)


def test_covariances_weights_and_one_dimension():
    x, variances, _ = noisy(400)
    diagonal = GMM(2).fit(x, noise=variances)
    close(GMM(2).fit(x, noise=variances.diag_embed()).mean, diagonal.mean)
    twice = GMM(2, init=diagonal.mean).fit(torch.cat([x, x]), noise=torch.cat([variances] * 2))
    weighed = GMM(2, init=diagonal.mean).fit(x, torch.full((400,), 2.0), noise=variances)
    close(weighed.mean, twice.mean, 1e-6)
    one = GMM(2, order="mean").fit(x[:, :1], noise=variances[:, :1])
    assert one.mean[:, 0].tolist() == pytest.approx([-2, 2.5], abs=0.4)
    rises = np.diff([step.log_likelihood for step in one.history])
    assert (rises > -1e-9).all()


@pytest.mark.parametrize(
    ("x", "given", "said"),
    [
        (normal(9, 2), -torch.ones(9, 2), "noise holds -1: expected variances of at least 0"),
        (normal(9, 2), torch.ones(9), r"noise has the shape \(9,\): expected \(9, 2\)"),
        (normal(9, 2), torch.ones(8, 2), r"noise has the shape \(8, 2\): expected \(9, 2\)"),
        (normal(9, 2), torch.full((9, 2), math.nan), "noise holds NaN"),
        (
            normal(9, 2),
            torch.tensor([[1.0, 2.0], [2.0, 1.0]]).expand(9, 2, 2),
            r"noise\[0\] is no covariance",
        ),
        ([normal(9, 2)], torch.ones(9, 2), "noise came with batches"),
    ],
)
def test_noise_that_is_none_is_refused_in_a_sentence(x, given, said):
    with pytest.raises(InputError, match=said):
        GMM(2).fit(x, noise=given)


def test_what_a_noisy_fit_cannot_say_is_refused_in_a_sentence():
    x, variances, _ = noisy(200)
    gmm = GMM(2).fit(x, noise=variances)
    with pytest.raises(InputError, match="fitted to points with noise"):
        gmm.standard_errors(x)
    for criterion in (gmm.bic, gmm.aic, gmm.icl):
        with pytest.raises(InputError, match="fitted to points with noise, and a criterion is of"):
            criterion(x)
    assert gmm.fit(x).standard_errors(x).isfinite().all()
