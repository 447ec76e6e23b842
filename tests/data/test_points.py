"""Blobs and Gaussian points: the moments that they promise. Examples: how rows are gathered."""

import math

import pytest
import torch
from scipy import stats

from jensen.base.errors import InputError
from jensen.data.blobs import blobs, centres
from jensen.data.examples import Examples, Rows, identity, pixels
from jensen.data.gaussian import covariance, gaussian

VARIANCES = (4.0, 2.0, 1.0, 0.5, 0.25)


def sample_covariance(x):
    x = x.double()
    return (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)


def test_blobs_surround_their_centres():
    examples = blobs(size=20_000, dim=3, components=4, spread=8.0, scale=0.5, seed=2)
    assert examples.stored.shape == (20_000, 3)
    assert examples.stored.dtype == torch.float32
    assert (examples.names, examples.sizes) == (("component",), (4,))
    means = centres(4, 3, 8.0, seed=2)
    assert means.dtype == torch.float64
    for component, mean in enumerate(means):
        points = examples.stored[examples.factors[:, 0] == component].double()
        assert len(points) == 5000
        assert (points.mean(0) - mean).abs().max() < 4 * 0.5 / math.sqrt(5000)
        assert (sample_covariance(points) - 0.25 * torch.eye(3)).abs().max() < 0.02
        scaled = ((points - mean) / 0.5).flatten().numpy()
        assert stats.kstest(scaled, "norm").pvalue > 1e-3


def test_the_centres_have_the_spread_asked_for():
    means = centres(2000, 3, 5.0)
    assert stats.kstest((means / 5).flatten().numpy(), "norm").pvalue > 1e-3
    assert torch.equal(centres(7, 3, 5.0), means[:7])
    assert torch.equal(centres(2000, 3, 10.0), 2 * means)


@pytest.mark.parametrize(
    ("size", "components"), [(10, 5), (11, 5), (14, 5), (3, 5), (1, 1), (1000, 7)]
)
def test_components_have_as_many_points_as_each_other_give_or_take_one(size, components):
    counts = torch.bincount(
        blobs(size=size, components=components).factors[:, 0], minlength=components
    )
    assert counts.sum() == size
    assert counts.max() - counts.min() <= 1


def test_components_come_in_a_random_order():
    component = blobs(size=1000, components=2).factors[:, 0]
    changes = int((component.diff() != 0).sum())
    assert abs(changes - 500) < 4 * math.sqrt(250)


def test_blobs_without_scale_lie_on_their_centres():
    examples = blobs(size=30, components=3, scale=0)
    assert torch.equal(examples.stored, centres(3, 2, 5.0)[examples.factors[:, 0]].float())


@pytest.mark.parametrize("source", [blobs, gaussian])
def test_points_are_a_function_of_the_seed(source):
    assert torch.equal(source(size=100, seed=3).stored, source(size=100, seed=3).stored)
    assert not torch.equal(source(size=100, seed=3).stored, source(size=100, seed=4).stored)


@pytest.mark.parametrize("name", ["size", "dim", "components"])
@pytest.mark.parametrize("bad", [0, -1, 1.0, True, "2", None])
def test_blobs_refuse_what_is_no_count(name, bad):
    with pytest.raises(InputError, match=f"{name} is .*: expected an integer of at least 1"):
        blobs(**{name: bad})


@pytest.mark.parametrize("name", ["spread", "scale"])
@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, True, "2", None])
def test_blobs_refuse_what_is_no_length(name, bad):
    with pytest.raises(InputError, match=f"{name} is .*: expected a number of at least 0"):
        blobs(**{name: bad})


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("size", [6, 50, 10_000])
def test_exact_points_have_the_moments_themselves(size, rotate):
    x = gaussian(size=size, variances=VARIANCES, rotate=rotate, seed=1).stored
    assert x.dtype == torch.float32
    assert x.double().mean(0).abs().max() < 1e-6
    torch.testing.assert_close(
        sample_covariance(x), covariance(VARIANCES, rotate, seed=1), rtol=0, atol=1e-6
    )


def test_other_points_have_the_moments_of_a_sample():
    size = 40_000
    x = gaussian(size=size, exact=False).stored.double()
    deviations = torch.tensor(VARIANCES, dtype=torch.float64).sqrt()
    assert (x.mean(0) / deviations).abs().max() < 4 / math.sqrt(size)
    assert x.mean(0).abs().max() > 1e-5  # not exact
    error = sample_covariance(x / deviations) - torch.eye(5)
    assert error.abs().max() < 4 * math.sqrt(2 / size)
    assert error.abs().max() > 1e-5


@pytest.mark.parametrize("exact", [True, False])
def test_points_are_gaussian(exact):
    for column, variance in zip(gaussian(exact=exact).stored.T, VARIANCES, strict=True):
        assert stats.kstest(column.double().numpy() / math.sqrt(variance), "norm").pvalue > 1e-3


def test_the_covariance_has_the_variances_as_its_eigenvalues():
    assert torch.allclose(
        covariance(VARIANCES), torch.diag(torch.tensor(VARIANCES, dtype=torch.float64))
    )
    rotated = covariance(VARIANCES, rotate=True)
    assert torch.linalg.eigvalsh(rotated).flip(0).tolist() == pytest.approx(VARIANCES)
    assert (rotated - rotated.diag().diag()).abs().max() > 0.1
    assert not torch.allclose(rotated, covariance(VARIANCES, rotate=True, seed=1))


def test_gaussian_points_have_no_factors():
    examples = gaussian(size=20)
    assert examples.factors.shape == (20, 0)
    assert (examples.names, examples.sizes) == ((), ())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size is 0"),
        ({"size": 1.5}, r"size is 1\.5"),
        ({"variances": ()}, "variances is empty"),
        ({"variances": (1.0, 0.0)}, "variances is 0"),
        ({"variances": (1.0, -1.0)}, r"variances is -1"),
        ({"variances": (math.nan,)}, "variances is nan"),
        ({"size": 5}, "size is 5: expected more than 5 points, or exact=false"),
    ],
)
def test_other_gaussians_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        gaussian(**options)


def test_few_points_are_enough_where_they_need_not_be_exact():
    assert len(gaussian(size=1, exact=False)) == 1
    assert gaussian(size=2, variances=(3.0,)).stored.flatten().abs().tolist() == pytest.approx(
        [math.sqrt(3)] * 2
    )


def test_examples_gather_rows_in_one_call():
    stored = torch.arange(12, dtype=torch.uint8).reshape(4, 3)
    examples = Examples(
        stored, pixels, torch.tensor([[0], [1], [0], [2]], dtype=torch.uint8), ("class",), (3,)
    )
    assert len(examples) == 4
    batch = examples[torch.tensor([3, 1, 1])]
    assert isinstance(batch, Rows)
    assert torch.equal(batch.stored, stored[[3, 1, 1]])
    assert batch.stored.dtype == torch.uint8
    assert batch.factors.tolist() == [[2], [1], [1]]
    assert batch.factors.dtype == batch.row.dtype == torch.int64
    assert batch.row.tolist() == [3, 1, 1]
    moved = examples.to("cpu")
    assert torch.equal(moved.stored, stored)
    assert (moved.decode, moved.names, moved.sizes) == (pixels, ("class",), (3,))


def test_grey_levels_become_numbers_from_zero_to_one():
    found = pixels(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([0, 0.2, 1])
    x = torch.rand(3)
    assert identity(x) is x
