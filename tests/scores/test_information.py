"""The building blocks, against scikit-learn, scipy, loops and quadrature."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from informations import gaussian_information
from scipy import stats
from scipy.special import digamma
from sklearn.feature_selection import mutual_info_classif
from sklearn.metrics import mutual_info_score
from torch import from_numpy
from torch.distributions import Normal, kl_divergence

from jensen.base.errors import InputError
from jensen.scores.activity import active_latents, mean_kl
from jensen.scores.importances import completeness, concentration, disentanglement
from jensen.scores.infomec import excess
from jensen.scores.information import (
    discretise,
    divide,
    entropies,
    informations,
    neighbour_informations,
    top,
)
from jensen.scores.inputs import numbered, some_rows, split_rows, standardised
from jensen.scores.interventions import draw_groups, draw_rows, groups

few = settings(derandomize=True, deadline=None, max_examples=30)
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, (2, 5, 40), (700, 3))


def test_plug_in_informations_are_those_of_scikit_learn():
    other = RNG.integers(0, (3, 7), (700, 2)) + LABELS[:, :2]
    expected = [[mutual_info_score(z, v) for v in LABELS.T] for z in other.T]
    np.testing.assert_allclose(informations(other, LABELS), expected, atol=1e-12)


def test_entropies_are_those_of_scipy():
    expected = [stats.entropy(np.unique(column, return_counts=True)[1]) for column in LABELS.T]
    np.testing.assert_allclose(entropies(LABELS), expected, atol=1e-12)


def test_information_is_within_its_bounds_and_of_itself_the_entropy():
    found = informations(LABELS, LABELS)
    np.testing.assert_allclose(np.diag(found), entropies(LABELS), atol=1e-12)
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    assert (found <= np.minimum.outer(entropies(LABELS), entropies(LABELS)) + 1e-12).all()


@pytest.mark.parametrize("bins", [2, 20, 100])
def test_discretise_is_the_digitised_histogram(bins):
    codes = np.random.default_rng(1).standard_normal((1000, 3)) * (1, 1e-6, 1e6)
    expected = np.stack([np.digitize(z, np.histogram(z, bins)[1][:-1]) - 1 for z in codes.T], 1)
    assert np.array_equal(discretise(codes, bins), expected)


@pytest.mark.parametrize("step", [1.0, 0.1, 0.3, 1 / 7, 1e5])
@pytest.mark.parametrize("bins", [5, 7, 20, 30])
def test_codes_on_the_edges_of_bins_are_digitised_as_numpy_does(step, bins):
    rng = np.random.default_rng(bins)
    whole = rng.integers(-30, 30, (60, 20)) * step + rng.choice([0, 0.1, 1 / 3, -1e3], 20)
    expected = np.stack([np.digitize(z, np.histogram(z, bins)[1][:-1]) - 1 for z in whole.T], 1)
    assert np.array_equal(discretise(whole, bins), expected)


def test_discretise_takes_any_range():
    near = 1 + np.finfo(float).eps * np.arange(4.0)
    codes = np.stack([np.full(4, 0.1), near, near * 1e-320, 1e99 * near], 1)
    found = discretise(codes, 20)
    assert found[:, 0].tolist() == [0, 0, 0, 0]
    assert found[:, 1].tolist() == [0, 6, 13, 19]
    assert found.min() == 0
    assert found.max() == 19


@pytest.mark.parametrize(
    ("distance", "deviation"), [(1.0, 0.5), (1.0, 1.0), (1.0, 2.0), (0.0, 1.0)]
)
def test_neighbours_find_the_information_of_gaussians(distance, deviation):
    rng = np.random.default_rng(2)
    v = rng.integers(0, 2, (5000, 1))
    z = (2 * v - 1) * distance + deviation * rng.standard_normal((5000, 1))
    expected = gaussian_information(distance, deviation)
    assert neighbour_informations(z, v, 10)[0, 0] == pytest.approx(expected, abs=0.03)


def test_neighbours_find_nothing_in_a_constant_and_no_more_than_the_entropy():
    v = LABELS[:, :1]
    codes = np.stack([np.full(700, 0.1), v[:, 0] + 0.0, 1e9 + v[:, 0]], 1)
    found = neighbour_informations(codes, v, 3)[:, 0]
    assert found[0] == 0
    assert found[1] == pytest.approx(entropies(v)[0], abs=0.01)
    assert found[2] == pytest.approx(found[1], abs=0.01)
    assert (found <= entropies(v)).all()


def test_neighbours_count_as_in_scikit_learn_where_its_rounding_lets_it():
    """With one value's furthest neighbour counted or not by chance there, most points agree; by
    loops, all.
    """
    rng = np.random.default_rng(4)
    v = rng.integers(0, 4, (150, 1))
    z = v + rng.standard_normal((150, 1))
    z[:20] = z[20:40]  # ties
    counts = np.bincount(v[:, 0])[v[:, 0]]
    terms = []
    for i in range(150):
        distance = np.abs(z[:, 0] - z[i, 0])
        others = np.delete(np.arange(150), i)
        own = others[v[others, 0] == v[i, 0]]
        radius = np.sort(distance[own])[2]
        near = (distance[own] <= radius).sum()
        among_all = (distance[others] <= radius).sum()
        terms.append(digamma(150) + digamma(near) - digamma(counts[i]) - digamma(among_all))
    assert neighbour_informations(z, v, 3)[0, 0] == pytest.approx(np.mean(terms), abs=1e-12)
    fine = v + rng.standard_normal((2000, 1))[:150]
    expected = mutual_info_classif(
        fine, v[:, 0], discrete_features=False, n_neighbors=3, random_state=0
    )
    assert neighbour_informations(fine, v, 3)[0] == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("points", [66, 300])
def test_neighbours_do_not_hang_on_the_last_bits_of_the_codes(points):
    """Scikit-learn's moves by .02 nats at 66 points: what two ranks round otherwise."""
    rng = np.random.default_rng(0)
    v = rng.integers(0, (3, 6, 20), (points, 3))
    z = v @ rng.normal(size=(3, 4)) + rng.normal(size=(points, 4))
    moved = z * (1 + 1e-12 * rng.standard_normal(z.shape))
    np.testing.assert_allclose(
        neighbour_informations(moved, v, 3), neighbour_informations(z, v, 3), atol=1e-12
    )


def test_the_floor_of_infomec_is_above_what_independence_gives():
    """Its docstring's claim: 3 / sqrt(N) is about 4 standard deviations."""
    rng = np.random.default_rng(3)
    for points in (500, 2000):
        noise = neighbour_informations(
            rng.standard_normal((points, 10)), rng.integers(0, (3, 6, 40), (points, 3)), 3
        )
        assert noise.max() < 3 / np.sqrt(points)
        assert np.sqrt(np.mean(noise**2)) == pytest.approx(0.6 / np.sqrt(points), rel=0.5)


def test_divide_and_top():
    assert divide([1.0, 0.0, 3.0], [2.0, 0.0, 0.0]).tolist() == [0.5, 0, 0]
    best = top(np.array([[1.0, 5.0], [4.0, 5.0], [3.0, 0.0]]), 0)
    assert [part.tolist() for part in best] == [[4, 5], [1, 0], [3, 5]]
    assert top(np.array([[1.0, 5.0]]), 0).second.tolist() == [0, 0]


def test_concentration_is_one_less_the_entropy_in_that_base():
    weights = np.random.default_rng(4).random((6, 5)) ** 4
    np.testing.assert_allclose(
        concentration(weights), 1 - stats.entropy(weights, base=5, axis=1), atol=1e-12
    )
    assert concentration(
        np.array([[0.0, 2.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    ).tolist() == pytest.approx([1, 0, 0])
    assert concentration(np.array([[3.0], [0.0]])).tolist() == [0, 0]


def test_disentanglement_and_completeness_of_a_matrix_by_hand():
    importances = np.array(
        [[0.8, 0.0], [0.2, 0.0], [0.0, 0.5], [0.0, 0.5]]
    )  # factor 0 mostly in one latent, 1 in two
    assert disentanglement(importances)[0] == pytest.approx(1)
    expected = [1 - stats.entropy([0.8, 0.2], base=4), 1 - stats.entropy([0.5, 0.5], base=4)]
    assert completeness(importances)[1] == pytest.approx(expected)
    assert completeness(importances)[0] == pytest.approx(np.mean(expected))
    weighted = np.array([[0.9, 0.0], [0.05, 0.05]])  # the undecided latent weighs a tenth
    assert disentanglement(weighted)[0] == pytest.approx(0.9)


def test_excess_by_hand():
    share = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0], [0.9, 0.1]])
    assert excess(share, 2, 1).tolist() == pytest.approx([1, 0, 0, 0.8])
    assert excess(share[:, :1], 1, 1).tolist() == [0, 0, 0, 0]


@given(st.lists(st.integers(0, 5), min_size=2, max_size=40), st.permutations(range(6)))
@few
def test_numbers_do_not_depend_on_names(labels, names):
    column = np.array(labels)[:, None]
    found = numbered(column)
    assert np.array_equal(found, numbered(np.array(names)[column] * 100))
    assert np.array_equal(np.unique(found), np.arange(len(set(labels))))
    assert (found[:, 0] == found[0, 0]).tolist() == (column[:, 0] == column[0, 0]).tolist()


def test_standardised():
    codes = np.random.default_rng(5).normal((3.0, -1e6, 0.1), (2.0, 1e-3, 0.0), (100, 3))
    np.testing.assert_allclose(standardised(codes)[:, :2], stats.zscore(codes[:, :2]), atol=1e-6)
    assert (standardised(codes)[:, 2] == 0).all()
    np.testing.assert_allclose(standardised(codes[:5], like=codes), standardised(codes)[:5])


@given(st.integers(4, 60), st.integers(2, 40), st.integers(1, 40))
@few
def test_splits_are_disjoint_and_as_large_as_they_can_be(size, train, test):
    rows, held_out = split_rows(size, train, test, 0)
    both = np.concatenate([rows, held_out])
    assert len(set(both.tolist())) == len(both) == min(size, train + test)
    assert len(rows) >= 2
    assert len(held_out) >= 1
    if size >= train + test:
        assert (len(rows), len(held_out)) == (train, test)
    assert len(some_rows(size, train, 0)) == min(size, train)


@pytest.mark.parametrize("option", [{"train": 1}, {"train": 2.0}, {"test": 0}, {"seed": -1}])
def test_sizes_and_seeds_are_checked(option):
    with pytest.raises(InputError, match=f"{next(iter(option))} is .*: expected"):
        split_rows(10, **({"train": 4, "test": 2, "seed": 0} | option))


def test_draws_hold_their_value_and_values_are_equally_likely():
    factors = np.stack(
        [np.repeat([4, 9, 2], [90, 9, 1]), np.arange(100), np.zeros(100, int), np.arange(100) % 2],
        1,
    )
    found = groups(factors)
    assert found.factors.tolist() == [0, 3]  # not the one with a value each, not the constant
    assert found.values.tolist() == [2, 2]  # not the value that one point holds
    rng = np.random.default_rng(0)
    factor = rng.integers(2, size=4000)
    group = draw_groups(rng, found, factor)
    rows = draw_rows(rng, found, group, 5)
    assert rows.shape == (4000, 5)
    values = factors[rows, found.factors[factor][:, None]]
    assert (values == values[:, :1]).all()
    assert (values[factor == 0, 0] == 9).mean() == pytest.approx(0.5, abs=0.05)
    assert len(np.unique(rows[factor == 0])) == 99  # every point is drawn
    assert groups(np.zeros((5, 2), int)).factors.size == 0


def test_mean_kl_is_that_of_torch():
    codes, log_var = np.random.default_rng(6).standard_normal((2, 50, 3))
    posterior = Normal(from_numpy(codes), from_numpy(np.exp(log_var / 2)))
    expected = kl_divergence(posterior, Normal(0.0, 1.0)).mean(0).numpy()
    np.testing.assert_allclose(mean_kl(codes, log_var), expected, rtol=1e-6)


def test_the_rules_of_activity():
    codes = np.random.default_rng(7).standard_normal((1000, 4)) * (1.0, 0.2, 0.02, 0.0)
    log_var = np.log(np.array([0.1, 0.9, 1.0, 1.0]) ** 2) * np.ones((1000, 1))
    assert active_latents(codes, log_var, None).tolist() == [True, True, False, False]
    assert active_latents(codes, None, None).tolist() == [True, True, False, False]
    assert active_latents(codes, None, "variance").tolist() == [True, True, False, False]
    assert active_latents(codes[:, 2:], None, "range").tolist() == [True, False]
    assert active_latents(0 * codes, None, "range").tolist() == [False] * 4
    assert active_latents(codes, None, [True, False, True, False]).tolist() == [
        True,
        False,
        True,
        False,
    ]
    for rule, message in (
        ("kl", "there is no log_var"),
        ("mean", "expected one of kl"),
        ([1, 0], "expected 4 booleans"),
    ):
        with pytest.raises(InputError, match=f"active is .*{message}"):
            active_latents(codes, None, rule)
