"""Narrow clusters far apart, beside an outlier, or in a ridge keep their width; who ends on the
floor is named.
"""

import logging

import numpy as np
import pytest
import torch
from cases import some
from scipy import special, stats
from sklearn.mixture import GaussianMixture
from torch.utils.data import DataLoader, TensorDataset

from jensen.em.collapse import twins
from jensen.family.full import FullGaussian
from jensen.family.mixture import Mixture
from jensen.family.moments import PseudoCounts
from jensen.model.gmm import GMM

COVARIANCES = ["full", "tied", "diag", "spherical"]
every_covariance = pytest.mark.parametrize("covariance", COVARIANCES)
NOISE = np.random.default_rng(0).normal(size=(800, 2))
LABEL = np.arange(800) % 2


def covariances(gmm):
    scale_tril = gmm.mixture.components.cholesky()
    return (scale_tril @ scale_tril.mT).numpy()


def expected_of(x, covariance):
    """The covariances of the halves by LABEL, from deviations: responsibilities are 0 and 1."""
    each = np.array([np.cov(x[k == LABEL].T, bias=True) for k in range(2)])
    shapes = {
        "full": each,
        "tied": np.broadcast_to(each.mean(0), each.shape),
        "diag": np.array([np.diag(np.diag(c)) for c in each]),
        "spherical": np.array([np.eye(2) * np.trace(c) / 2 for c in each]),
    }
    return shapes[covariance]


@every_covariance
@pytest.mark.parametrize(
    ("apart", "dtype"),
    [
        (1e5, np.float64),
        (3e7, np.float64),
        (1e9, np.float64),
        (1e5, np.float32),
        (1e6, np.float32),
        (3e7, np.float32),
    ],
)
def test_clusters_far_apart_keep_their_width(covariance, apart, dtype):
    x = (NOISE + apart * LABEL[:, None]).astype(dtype)
    gmm = GMM(2, covariance, init=x[:2]).fit(x)
    whole = x.astype(np.float64)
    exact = (
        1e-6 if dtype == np.float64 else 1e-4
    )  # float32 coordinates about the origin are rounded once more
    np.testing.assert_allclose(
        gmm.mean, [whole[k == LABEL].mean(0) for k in range(2)], rtol=1e-9, atol=exact
    )
    np.testing.assert_allclose(
        covariances(gmm), expected_of(whole, covariance), rtol=1e-5, atol=10 * exact
    )
    assert gmm.converged
    assert not gmm.collapsed


def test_the_ways_in_give_the_same_width():
    """Weights, batches, a missing value, a prior, and a row that counts for nothing."""
    x = NOISE + 3e7 * LABEL[:, None]
    expected = expected_of(x, "full")
    batches = DataLoader(TensorDataset(torch.from_numpy(x)), 64)
    holed = x.copy()
    holed[0, 0] = np.nan
    found = {
        "weights": GMM(2, init=x[:2]).fit(x, np.full(800, 3.0)),
        "batches": GMM(2, init=x[:2]).fit(batches),
        "missing": GMM(2, init=x[:2], missing=True).fit(holed),
        "pseudo-counts": GMM(2, init=x[:2], prior=PseudoCounts(weight=1.0)).fit(x),
        "accelerated or not": GMM(2, init=x[:2], accelerate=False).fit(x),
        "restarts": GMM(2, restarts=3).fit(x[:, :1]),
    }
    for name, gmm in found.items():
        assert gmm.failure is None, name
        order = gmm.mean[:, 0].argsort()
        cov = covariances(gmm)[order]
        dims = gmm.mean.shape[1]
        np.testing.assert_allclose(
            cov, expected[:, :dims, :dims], rtol=5e-3, atol=5e-3, err_msg=name
        )


@every_covariance
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_outlier_gets_its_own_component_and_is_named(covariance, dtype, caplog):
    if covariance == "tied":
        pytest.skip("all share one covariance")
    noise = NOISE[:, : 1 if covariance == "full" else 2]
    x = (noise + 5 * LABEL[:, None]).astype(dtype)
    peer = GaussianMixture(
        2, covariance_type=covariance, means_init=x[:2].astype(float), tol=1e-12, reg_covar=0
    ).fit(x)
    expected = (
        np.broadcast_to(peer.covariances_.reshape(2, -1), (2, 2))
        if covariance == "spherical"
        else peer.covariances_
    )
    for far in (1e4, 1e7, 1e9):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="jensen"):
            gmm = GMM(3, covariance, order="mean", tolerance=1e-10).fit(
                np.concatenate([x, np.full((1, x.shape[1]), far, dtype)])
            )
        assert gmm.collapsed == [2]
        assert "component 2 ends on the covariance floor, with 1 of 801 points" in caplog.text
        np.testing.assert_allclose(gmm.mean[2], np.float64(dtype(far)), rtol=1e-7)
        np.testing.assert_allclose(
            gmm.log_weight.exp(), [*(peer.weights_ * 800 / 801), 1 / 801], atol=1e-3
        )
        np.testing.assert_allclose(gmm.mean[:2], peer.means_, atol=1e-2)
        found = covariances(gmm)[:2]
        found = found.diagonal(axis1=-2, axis2=-1) if covariance != "full" else found
        np.testing.assert_allclose(found, expected, atol=2e-2)


@some(1, "covariance", ["full", "spherical"])
def test_starts_beside_an_outlier_are_not_all_twins(covariance):
    """Components as wide as the data with the outlier would be the same over both clusters, and
    stay so.
    """
    x = np.concatenate([NOISE + 5 * LABEL[:, None], [[1e7, 1e7]]])
    means = np.array([[0.5, 0], [4, 5], [1e7, 1e7]])
    ways = [{"init": means}, {}]
    # what all share stays as wide as the outlier is far where no start is at that
    if covariance != "tied":
        ways.append({"init": "random", "restarts": 20})
    for options in ways:
        gmm = GMM(3, covariance, order="mean", **options).fit(x)
        np.testing.assert_allclose(gmm.mean[:2], [[0, 0], [5, 5]], atol=0.15, err_msg=str(options))


def test_a_long_ridge_keeps_its_width():
    """Ten million long and one wide, at 45 degrees: a condition number of 1e14."""
    long = np.random.default_rng(1).normal(size=800) * 1e7
    x = np.round(long[:, None] * [1, 1] + NOISE[:, :1] * [1, -1], 3)
    apart = np.concatenate([x, x + [1e7, -1e7]])
    gmm = GMM(2, init=apart[[0, -1]]).fit(apart)
    across = np.var((x[:, 0] - x[:, 1]) / 2)
    for cov in covariances(gmm):
        precision = np.linalg.inv(np.linalg.cholesky(cov))
        width = 1 / np.square(precision @ [1, -1]).sum()
        assert width == pytest.approx(across, rel=0.05)
    assert not gmm.collapsed
    assert GMM(2, "tied", init=apart[[0, -1]]).fit(apart).converged


@pytest.mark.parametrize("width", [1e-1, 1e-2, 1e-3, 3e-4])
@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_a_ridge_in_float32_is_that_of_float64(width, covariance):
    """Products in float32 lose a direction of so little variance: the fit ended .37 and 500,000
    nats lower.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60_000, 3))
    x[:, 1] = x[:, 0] + width * x[:, 1]
    x[30_000:, :2] += 3
    x = x.astype(np.float32)
    means = np.array([[0.0, 0, 0], [3, 3, 0]])
    single, whole = (GMM(2, covariance, init=means).fit(each) for each in (x, x.astype(np.float64)))
    assert abs(single.log_likelihood - whole.log_likelihood) / len(x) < 1e-5
    assert not single.collapsed


@every_covariance
def test_scores_of_far_components_are_scipys(covariance):
    x = NOISE + 3e7 * LABEL[:, None]
    gmm = GMM(2, covariance, init=x[:2]).fit(x)
    joint = [
        np.log(weight) + stats.multivariate_normal(np.zeros(2), cov).logpdf(x - mean)
        for weight, mean, cov in zip(
            gmm.log_weight.exp().numpy(), gmm.mean.numpy(), covariances(gmm), strict=True
        )
    ]
    np.testing.assert_allclose(gmm.log_prob(x), special.logsumexp(joint, axis=0), rtol=1e-6)
    assert gmm.log_likelihood == pytest.approx(gmm.log_prob(x).sum().item(), rel=1e-6)
    last = gmm.history[-1]
    assert last.bound + last.gap == pytest.approx(last.log_likelihood, abs=1e-9)
    assert 0 <= last.gap + 1e-9 < 1e-3


@every_covariance
def test_the_units_do_not_matter(covariance):
    """By a power of two, so that it is exact; with copies of a point, on which a component
    collapses.
    """
    x = np.concatenate([NOISE[:100], NOISE[:100] + 7, np.full((40, 2), 3.0)])
    first = GMM(3, covariance, init=x[[0, 100, 200]]).fit(x)
    for scale in (2.0**-30, 2.0**40):
        other = GMM(3, covariance, init=x[[0, 100, 200]] * scale).fit(x * scale)
        np.testing.assert_allclose(other.mean / scale, first.mean, rtol=1e-9)
        np.testing.assert_allclose(covariances(other) / scale**2, covariances(first), rtol=1e-6)
        assert other.collapsed == first.collapsed
        assert [e[:3] for e in other.reseeded] == [e[:3] for e in first.reseeded]


def test_points_in_a_plane_are_named():
    x = NOISE.copy()
    x[:, 1] = 3 * x[:, 0]
    gmm = GMM(2, init=x[:2]).fit(x)
    assert gmm.collapsed == [0, 1]
    assert np.isfinite(gmm.log_likelihood)
    assert GMM(2, init=NOISE[:2]).fit(NOISE).collapsed == []
    assert GMM(2, "tied", init=x[:2]).fit(x).collapsed == [0, 1]


@some(1, "covariance", ["full", "diag", "spherical"])
def test_restarts_beside_an_outlier_converge(covariance):
    """Many starts have met there, and rounding of a component on the floor is no reason to keep one
    that went no further.
    """
    rng = np.random.default_rng(0)
    two = np.concatenate([rng.normal(0, 1, 500), rng.normal(5, 1, 500)])
    for outlier in (1e6, 1e9):
        x = np.append(two, outlier)[:, None]
        gmm = GMM(3, covariance, restarts=5, order="mean").fit(x)
        assert gmm.converged
        assert gmm.failure is None
        assert gmm.collapsed == [2]
        plain = GMM(
            3, covariance, init=gmm.mean, accelerate=False, tolerance=1e-9, order="mean"
        ).fit(x)
        np.testing.assert_allclose(gmm.mean, plain.mean, rtol=0, atol=1e-3)


@pytest.mark.parametrize("restarts", [1, 4])
@some(1, "covariance", ["full", "diag", "spherical"])
def test_what_became_of_components_is_said_once_of_the_fit_that_is_kept(
    covariance, restarts, caplog
):
    """The middle 40 points are copies of one: a component collapses there, and once more after each
    time it is seeded anew.
    """
    x = np.concatenate([NOISE[:100], NOISE[:100] + 7, np.full((40, 2), 3.0)])
    with caplog.at_level(logging.WARNING, logger="jensen"):
        gmm = GMM(3, covariance, restarts=restarts, order="mean").fit(x)
    anew, floor = (record.message for record in caplog.records)
    assert anew.endswith(", and was seeded anew")
    first = gmm.reseeded[0]
    assert anew.startswith(
        f"component {first.component} was collapsed after iteration {first.iteration}"
    )
    assert floor.startswith(
        "component 1 ends on the covariance floor, with 40 of 240 points about (3, 3)"
    )
    iterations = [event.iteration for event in gmm.reseeded]
    assert iterations == sorted(iterations)
    assert iterations[-1] <= gmm.iterations


def test_many_components_on_the_floor_are_one_sentence(caplog):
    x = np.repeat(NOISE[:6], 20, axis=0)
    gmm = GMM(6, "diag", init=x[::20]).fit(x)
    assert gmm.collapsed == [0, 1, 2, 3, 4, 5]
    (record,) = [record for record in caplog.records if "floor" in record.message]
    assert record.message.endswith("; so do component 1, component 2, component 3 and 2 more")


def test_components_that_end_as_one_are_named(caplog):
    """Sharing a covariance as wide as an outlier is far, two components over both clusters are all
    alike, and stay so.
    """
    x = np.concatenate([NOISE + 5 * LABEL[:, None], [[1e7, 1e7]]])
    gmm = GMM(2, "tied", init="random").fit(x)
    assert gmm.collapsed == []
    along, across = (
        x @ [[1, 1], [1, -1]] / 2**0.5
    ).T  # where the covariance of all is not nearly singular
    one = np.cov(along, across, bias=True)
    log_det = np.log(one[0, 0]) + np.log(one[1, 1] - one[0, 1] ** 2 / one[0, 0])
    assert gmm.log_likelihood == pytest.approx(
        -801 * (np.log(2 * np.pi) + 1 + log_det / 2), abs=0.01
    )
    assert "components 0 and 1 end alike" in caplog.text
    caplog.clear()
    higher = GMM(2, "tied").fit(x)
    assert higher.log_likelihood > gmm.log_likelihood + 9000
    assert not caplog.text
    same = np.eye(2)
    ways = {"full": [[1, 0.9], [0.9, 1]], "diag": [[2, 0], [0, 1]], "spherical": [[2, 0], [0, 2]]}
    for covariance, cov in ways.items():  # of one mean, but of two covariances
        draw = np.random.default_rng(0).multivariate_normal([0, 0], same, 2000)
        other = np.random.default_rng(1).multivariate_normal([0, 0], 9 * np.array(cov), 2000)
        GMM(2, covariance).fit(np.concatenate([draw, other]))
    assert not caplog.text


def test_alike_is_told_in_each_components_own_units():
    for scale in (1e-6, 1.0, 1e6):
        spread = scale * torch.tensor([[1.0, 0], [0.999, 0.0447]], dtype=torch.float64)
        mean = scale * torch.tensor([[0.0, 0], [0.01, 0.01], [0.01, -0.01]], dtype=torch.float64)
        p = Mixture(
            torch.full((3,), -np.log(3.0), dtype=torch.float64),
            FullGaussian(mean, spread.expand(3, 2, 2)),
        )
        assert twins(p) == [(0, 1)]  # 0.02 across a ridge of width 0.04 is far
        crossed = torch.stack([spread, spread * torch.tensor([[1.0, 1], [-1, 1]]), 1.01 * spread])
        assert twins(Mixture(p.log_weight, FullGaussian(torch.zeros_like(mean), crossed))) == [
            (0, 2)
        ]
