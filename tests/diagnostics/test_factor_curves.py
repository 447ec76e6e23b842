"""Curves and heat maps of codes over factors, against loops over the values."""

import numpy as np
import pytest
import torch
from snapshots import generator, image_snapshot, vector_snapshot, with_posterior

from jensen.base.errors import InputError
from jensen.diagnostics import factor_curves as module
from jensen.diagnostics.factor_curves import curve, factor_curves, surface

COUNT = 400
CODES = np.random.default_rng(0).normal(size=(COUNT, 3)) * [1, 5, 0.1] + [0, 100, 0]
LABELS = np.random.default_rng(1).integers([0, 3], [4, 9], (COUNT, 2)) * [1, 2]


def test_a_curve_is_the_mean_and_the_spread_over_the_examples_of_each_value():
    for labels in LABELS.T:
        found = curve(CODES, labels)
        assert found.values.tolist() == sorted(set(labels.tolist()))
        for place, value in enumerate(found.values):
            some = CODES[labels == value]
            np.testing.assert_allclose(found.mean[place], some.mean(0), rtol=1e-12)
            np.testing.assert_allclose(found.std[place], some.std(0), rtol=1e-9)


def test_a_surface_is_the_mean_over_the_examples_of_both_values_and_empty_where_none_is():
    one, other = LABELS.T.copy()
    one[(one == 2) & (other == 8)] = 3
    found = surface(CODES, one, other, 9)
    assert found.shape == (3, 6, 4)
    for row, up in enumerate(np.unique(other)):
        for column, right in enumerate(np.unique(one)):
            some = CODES[(one == right) & (other == up)]
            expected = some.mean(0) if len(some) else np.full(3, np.nan)
            np.testing.assert_allclose(found[:, row, column], expected, rtol=1e-12)
    assert np.isnan(found).any()


def test_neighbouring_values_share_a_cell_where_there_are_too_many():
    one, other = LABELS.T
    found = surface(CODES, one, other, 3)
    assert found.shape == (3, 3, 3)
    # four values in three cells, of which the first holds two; six in three, two in each
    right = [np.isin(one, each) for each in ([0, 1], [2], [3])]
    up = [np.isin(other, each) for each in ([6, 8], [10, 12], [14, 16])]
    for row in range(3):
        for column in range(3):
            expected = CODES[right[column] & up[row]].mean(0)
            np.testing.assert_allclose(found[:, row, column], expected, rtol=1e-12)


@pytest.fixture
def snapshot():
    """The second of three latents is dead; the second factor has one value."""
    mean = torch.randn(COUNT, 3, generator=generator()) * torch.tensor([0.5, 0.0, 2.0])
    log_var = torch.tensor([-1.0, 0.0, -1.0]).expand(COUNT, 3)
    factors = torch.stack([torch.arange(COUNT) % size for size in (7, 1, 3)], 1)
    return with_posterior(image_snapshot(latents=3), mean, log_var)._replace(
        z=mean + 1, factors=factors, names=("posX", "one", "posY")
    )


@pytest.fixture
def drawn(monkeypatch):
    found = []
    monkeypatch.setattr(module, "_draw", lambda *parts: found.append(parts) or torch.zeros(3, 2, 2))
    return found


def test_live_latents_by_falling_rate_over_factors_that_vary(snapshot, drawn):
    factor_curves(snapshot)
    ((rows, curves, maps),) = drawn
    assert rows == ["z2", "z0"]
    assert list(curves) == ["posX", "posY"]
    assert list(maps) == [("posX", "posY")]
    means = snapshot.posterior.mean[snapshot.factors[:, 2] == 1].mean(0).tolist()
    assert curves["posY"].mean[1] == pytest.approx([means[2], means[0]], rel=1e-5)


def test_dead_latents_are_shown_where_all_are_dead_and_no_more_than_asked_for(snapshot, drawn):
    factor_curves(with_posterior(snapshot, torch.zeros(COUNT, 3), torch.zeros(COUNT, 3)), latents=2)
    assert len(drawn[0][0]) == 2


def test_pairs_that_the_data_lack_are_left_out(snapshot, drawn):
    factor_curves(snapshot, pairs=[["posX", "colour"], ["posY", "posX"]])
    assert list(drawn[0][2]) == [("posY", "posX")]


def test_the_picture_has_a_panel_for_each(snapshot):
    picture = factor_curves(snapshot)["curves"]
    assert picture.dtype == torch.uint8
    assert picture.shape == (3, 320, 570)


def test_without_factors_there_is_nothing(snapshot):
    assert factor_curves(vector_snapshot()) == {}
    assert factor_curves(snapshot._replace(factors=0 * snapshot.factors)) == {}


@pytest.mark.parametrize("pair", [["posX"], "xy", ["a", "b", "c"]])
def test_a_pair_is_two_names(snapshot, pair):
    with pytest.raises(InputError, match=r"pairs holds .*: expected two names of factors"):
        factor_curves(snapshot, pairs=[pair])
