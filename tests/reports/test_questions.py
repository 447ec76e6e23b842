"""What a report of many objectives says of its runs, against scipy and closed forms."""

import numpy as np
import pytest
from scipy import stats

from jensen.base.errors import InputError
from jensen.reports.level import difference, levels, read_at, table_at
from jensen.reports.pick import beaten
from jensen.reports.ranks import rank_correlations
from jensen.reports.shares import shares


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_rank_correlations_are_scipys():
    values = drawn(40, 4)
    values[:, 1] = np.round(values[:, 0])  # ties
    found = rank_correlations(values, range(40), resamples=2)
    np.testing.assert_allclose(found.value, stats.spearmanr(values).statistic, atol=1e-12)


def test_a_run_that_lacks_a_quantity_is_left_out_of_its_correlations_alone():
    values = drawn(20, 3)
    values[:5, 2] = np.nan
    found = rank_correlations(values, range(20), resamples=2)
    expected = stats.spearmanr(values[:, 0], values[:, 1]).statistic
    assert found.value[0, 1] == pytest.approx(expected)
    expected = stats.spearmanr(values[5:, 0], values[5:, 2]).statistic
    assert found.value[0, 2] == found.value[2, 0] == pytest.approx(expected)
    np.testing.assert_allclose(found.value.diagonal(), 1)


@pytest.mark.slow
def test_intervals_of_runs_by_themselves_are_scipys_bootstrap():
    x = drawn(60)
    y = x + drawn(60, seed=1)
    found = rank_correlations(np.stack([x, y], 1), range(60), resamples=2000).of(0, 1)
    expected = stats.bootstrap(
        (x, y),
        lambda a, b: stats.spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.03)
    assert found.settles_sign


def test_seeds_of_one_setting_are_no_independent_witnesses():
    settings = drawn(10, 2)
    thrice = np.repeat(settings, 3, axis=0)
    whole = rank_correlations(thrice, np.repeat(np.arange(10), 3), resamples=400).of(0, 1)
    apart = rank_correlations(thrice, range(30), resamples=400).of(0, 1)
    once = rank_correlations(settings, range(10), resamples=400).of(0, 1)
    assert (whole.low, whole.high) == pytest.approx((once.low, once.high))
    assert apart.high - apart.low < 0.8 * (whole.high - whole.low)


def test_a_constant_quantity_correlates_with_nothing():
    values = np.stack([np.arange(5.0), np.ones(5)], 1)
    found = rank_correlations(values, range(5), resamples=5)
    assert np.isnan(found.of(0, 1)).all()


def test_rank_correlations_of_no_runs_are_refused():
    with pytest.raises(InputError, match="expected a row a run"):
        rank_correlations(np.zeros((0, 3)), [])


def test_shares_are_the_sums_of_squares_and_the_ratio_is_scipys():
    objective = np.repeat(["a", "b", "c"], 12)
    strength = np.tile(np.repeat(range(4), 3), 3)
    x = drawn(36) + np.repeat(drawn(12, seed=1), 3)
    found = shares(x, objective, strength)
    assert found.outer + found.inner + found.rest == pytest.approx(1)
    by_objective = x.reshape(3, 12).mean(1)
    total = ((x - x.mean()) ** 2).sum()
    assert found.outer == pytest.approx(12 * ((by_objective - x.mean()) ** 2).sum() / total)
    ratio = stats.f_oneway(*x.reshape(12, 3)).statistic
    assert found.setting == pytest.approx((ratio - 1) / (ratio - 1 + 3))
    assert found.low < found.setting < found.high


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_the_interval_holds_the_share_of_the_setting_as_often_as_it_says(sigma):
    """Normal effects of settings, variance sigma^2, beside seeds of variance 1."""
    truth = sigma**2 / (sigma**2 + 1)
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        x = np.repeat(generator.normal(0, sigma, 20), 3) + generator.normal(size=60)
        found = shares(x, [0] * 60, np.repeat(range(20), 3))
        held += found.low <= truth <= found.high
    assert held / 400 == pytest.approx(0.95, abs=0.033)  # 3 standard errors


def test_one_seed_a_setting_cannot_tell_what_is_of_the_seed():
    with pytest.raises(InputError, match="two seeds of one"):
        shares([1.0, 2.0, 3.0], "abc", [0, 0, 0])


def test_shares_of_a_quantity_that_never_changes_are_unknown():
    assert np.isnan(shares([1.0] * 4, "aabb", [0] * 4)).all()


def test_a_curve_is_read_between_its_points_alone():
    assert read_at([3, 1], [30, 10], 1.5) == 15
    assert np.isnan(read_at([3, 1], [30, 10], 0.9))
    assert np.isnan(read_at([3, 1], [30, 10], 3.1))


def test_levels_lie_where_the_most_curves_reach():
    assert levels([[0, 10], [5, 20], [6, 8]], 3) == [6.5, 7.0, 7.5]
    assert levels([[0, 1], [2, 3]]) == []


def test_differences_at_a_level_have_scipys_paired_interval():
    points = {
        name: {seed: ([0, 1], [shift + seed, shift + seed + 0.1 * seed**2]) for seed in range(4)}
        for name, shift in (("one", 0.0), ("other", 1.0))
    }
    points["other"][3] = ([0, 0.2], [0, 0])  # does not reach
    read = table_at(points, 0.5)
    found = difference(read["one"], read["other"])
    assert found.seeds == 3
    assert found.mean == pytest.approx(-1)
    one, other = drawn(5), drawn(5, seed=1)
    expected = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert difference(one, other)[1:3] == pytest.approx((expected.low, expected.high))
    assert np.isnan(difference([1.0], [2.0]).low)


def test_a_criterion_that_is_the_score_beats_all_and_one_that_is_its_opposite_none():
    score = drawn(30)
    settings = np.repeat(range(10), 3)
    best = beaten(score, score, settings)
    worst = beaten(-score, score, settings)
    assert best.value == pytest.approx(29.5 / 30)
    assert worst.value == pytest.approx(0.5 / 30)
    assert best.low > 0.8
    assert worst.high < 0.2


def test_a_criterion_of_chance_settles_nothing():
    found = beaten(drawn(60), drawn(60, seed=5), np.repeat(range(20), 3))
    assert found.low < 0.5 < found.high
