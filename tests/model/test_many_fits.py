"""Many fits as one batch: each is its own fit."""

import io
import math

import pytest
import torch
from mixtures import normal
from torch import Tensor

from jensen import GMM
from jensen.base.errors import InputError
from jensen.em import many, many_start
from jensen.family.structures import STRUCTURES

every_covariance = pytest.mark.parametrize("covariance", list(STRUCTURES))


def sets(count, points=80, dim=2, seed=0):
    inside = normal(count, points, 1, seed=seed) < -0.3
    spread = torch.linspace(1, 0.4, dim, dtype=torch.float64)
    place = normal(count, 1, dim, seed=seed + 1)
    return normal(count, points, dim, seed=seed + 2) * spread + 3 * inside + place


def same(many: GMM, row: int, one: GMM, tolerance: float = 1e-9) -> None:
    own = many[row]
    for ours, theirs in zip(
        (own.log_weight, *own.mixture.components),
        (one.log_weight, *one.mixture.components),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    assert (own.iterations, own.converged, own.collapsed) == (
        one.iterations,
        one.converged,
        one.collapsed,
    )
    assert own.reseeded == one.reseeded
    assert own.failure == one.failure
    assert own.log_likelihood == pytest.approx(one.log_likelihood, rel=1e-9)
    found, expected = (torch.tensor([[*step] for step in each.history]) for each in (own, one))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@every_covariance
@pytest.mark.parametrize("accelerate", [True, False])
def test_each_is_its_own_fit(covariance, accelerate):
    x = sets(6)
    options = {"covariance": covariance, "accelerate": accelerate}
    found = GMM(2, **options).fit(x)
    assert found.mean.shape == (6, 2, 2)
    assert found.log_likelihood.shape == found.iterations.shape == found.converged.shape == (6,)
    for row in range(6):
        same(found, row, GMM(2, **options).fit(x[row]))


@pytest.mark.parametrize(
    ("options", "dim", "components"),
    [
        ({"seed": 5, "order": "mean"}, 3, 3),
        ({"order": "weight", "tolerance": 1e-10}, 1, 2),
        ({"max_iter": 2}, 2, 2),
        ({"tolerance": 0, "max_iter": 4}, 2, 2),
        ({}, 2, 1),
        ({"init": "random"}, 2, 2),
    ],
)
def test_with_other_options_too(options, dim, components):
    x = sets(4, dim=dim)
    found = GMM(components, **options).fit(x)
    for row in range(4):
        same(found, row, GMM(components, **options).fit(x[row]))


def test_sets_of_unequal_size_by_a_mask():
    x = sets(5)
    mask = torch.rand(5, 80, generator=torch.Generator().manual_seed(0)) < torch.linspace(
        0.3, 1, 5
    ).unsqueeze(1)
    x = torch.where(mask.unsqueeze(-1), x, math.nan)
    found = GMM(2).fit(x, mask=mask)
    for row in range(5):
        same(found, row, GMM(2).fit(x[row][mask[row]]))


@pytest.mark.slow
def test_with_weights_noise_and_restarts_each_is_its_own_fit_too():
    """Of several sizes: what is not there has no weight and no noise."""
    x = sets(3, points=40)
    mask = torch.arange(40) < torch.tensor([40, 31, 36])[:, None]
    draw = torch.Generator().manual_seed(3)
    weights = torch.rand(3, 40, generator=draw, dtype=torch.float64) + 0.1
    noise = 0.2 * torch.rand(3, 40, 2, generator=draw, dtype=torch.float64)
    for options, given in (
        ({"restarts": 3}, {}),
        ({}, {"weights": weights}),
        ({"covariance": "tied"}, {"weights": weights, "noise": noise}),
        ({}, {"noise": noise.diag_embed()}),
    ):
        found = GMM(2, **options).fit(x, mask=mask, **given)
        assert found[0].noisy == ("noise" in given)
        for row in range(3):
            own = {name: value[row][mask[row]] for name, value in given.items()}
            same(found, row, GMM(2, **options).fit(x[row][mask[row]], **own), 0)


@pytest.mark.parametrize(("count", "options"), [(3, {}), (2, {"covariance": "tied"}), (4, {})])
def test_starts_that_differ_between_candidates_are_the_single_fits(count, options):
    """Of many sets, some of whose k-means end in other cells, and one with fewer different points."""
    x = sets(40, points=30, dim=2, seed=9)
    found = GMM(count, max_iter=0, **options).fit(x)
    for row in range(40):
        one = GMM(count, max_iter=0, **options).fit(x[row])
        torch.testing.assert_close(found.mean[row], one.mean, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("count", "points", "components"), [(300, 12, 2), (2, 2500, 3)])
def test_many_sets_and_many_points_are_the_single_fits(count, points, components):
    x = sets(count, points=points, seed=4)
    found = GMM(components).fit(x)
    for row in {0, 1, count - 1}:
        same(found, row, GMM(components).fit(x[row]))


def test_float32_and_points_far_from_zero():
    x = sets(3).float() + 1000
    found = GMM(2).fit(x)
    for row in range(3):
        same(found, row, GMM(2).fit(x[row]), 1e-7)


def test_a_set_out_of_the_ordinary_is_fitted_alone_and_the_others_are_not(monkeypatch, caplog):
    """Copies of one point, an outlier, a far cluster: what loses components and seeds them anew."""
    x = sets(6)
    x[1, :30] = x[1, 0]
    x[2, 0] = 1e4
    x[3, 40:] += 1e7
    alone = []
    fit_mixture = "jensen.model.many_fit.fit_mixture"
    from jensen.model import many_fit

    own = many_fit.fit_mixture

    def counted(*given):
        alone.append(1)
        return own(*given)

    monkeypatch.setattr(fit_mixture, counted)
    found = GMM(3).fit(x)
    assert 1 <= len(alone) <= 5
    assert "fits have a component on the covariance floor" in caplog.text
    monkeypatch.undo()
    for row in range(6):
        same(found, row, GMM(3).fit(x[row]), 1e-6 if row == 3 else 1e-9)


def test_blocks_are_the_whole(monkeypatch):
    x = sets(5)
    whole = GMM(2).fit(x)
    monkeypatch.setattr(many_start, "_WORKING_SET", 1)
    monkeypatch.setattr("jensen.model.many_fit._WORKING_SET", 1)
    parts = GMM(2).fit(x)
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-12, atol=1e-12)
    assert torch.equal(parts.iterations, whole.iterations)


def test_finished_fits_leave_the_batch(monkeypatch):
    rows = []
    look = many._Fits.look

    def counted(self):
        rows.append(len(self.alive))
        return look(self)

    monkeypatch.setattr(many._Fits, "look", counted)
    GMM(2).fit(sets(30))
    assert rows[0] == 30
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < 10


def test_one_of_them_is_a_gmm_and_all_of_them_are_saved():
    x = sets(4)
    found = GMM(2, seed=3).fit(x)
    assert found[1].predict(x[1]).shape == (80,)
    assert found[-1].bic(x[3]) == pytest.approx(GMM(2, seed=3).fit(x[3]).bic(x[3]))
    density: Tensor = found.mixture.log_prob(x)
    torch.testing.assert_close(density.sum(1), found.log_likelihood)
    file = io.BytesIO()
    torch.save(found.state_dict(), file)
    file.seek(0)
    loaded = GMM(2)
    loaded.load_state_dict(torch.load(file))
    assert torch.equal(loaded.mean, found.mean)
    assert found.parameter_count == 11
    again = found.fit(x[0])
    assert again.mean.shape == (2, 2)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (
            lambda x: GMM(3).fit(x, mask=torch.arange(80) < torch.tensor([80, 2, 80, 80])[:, None]),
            "set 1 of x has 2 points: expected at least 3, one for each component; leave it out",
        ),
        (lambda x: GMM(2).fit(torch.zeros(4, 5, 2)), "set 0 of x: all 5 points of x are the same"),
        (lambda x: GMM(2).fit(x * math.nan), "set 0 of x: x holds NaN in row 0"),
        (lambda x: GMM(2).fit(x, mask=torch.ones(4, 3)), r"mask has the shape \(4, 3\): expected"),
        (lambda x: GMM(2).fit(x[0], mask=torch.ones(80)), "mask came with one set of points"),
        (
            lambda x: GMM(2).fit(x, torch.ones(80)),
            r"weights has the shape \(80,\) and x \(4, 80, 2\): expected \(4, 80\), sets by points",
        ),
        (lambda x: GMM(2).fit(x, noise=x[0]), r"noise has the shape \(80, 2\) and x"),
        (lambda x: GMM(2).fit(x, noise=-x.abs()), "set 0 of x: noise holds -"),
        (
            lambda x: GMM(2, warm_start=True).fit(x),
            "warm_start is True and x holds 4 sets: expected warm_start=False",
        ),
        (lambda x: GMM(2).fit(x).predict(x[0]), "holds 4 fits of sets of points: expected one"),
        (lambda x: GMM(2).fit(x).sample(3), "holds 4 fits of sets of points: expected one"),
        (lambda x: GMM(2).fit(x)[4], r"holds 4 fits of sets of points: there is no \[4\]"),
        (lambda x: GMM(2).fit(x[0])[0], r"holds 0 fits of sets of points: there is no \[0\]"),
        (lambda x: GMM(2).fit(x[:0]), r"x has the shape \(0, 80, 2\)"),
    ],
)
def test_what_is_no_batch_of_fits_is_refused_in_a_sentence(ask, said):
    with pytest.raises(InputError, match=said):
        ask(sets(4))
