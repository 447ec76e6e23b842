"""Constant latents: what is one, and that adding some changes no score."""

import math
from functools import partial

import numpy as np
import pytest
from conftest import BY_NAME, SMALL, with_variance

from jensen import scores
from jensen.scores.constant import constant, settled, varying

RNG = np.random.default_rng(0)
SIZES = (3, 4, 6)
FACTORS = RNG.integers(0, SIZES, (999, 3))
CODES = FACTORS[:, [0, 1, 2, 1]] * (0.9, 0.7, 1.3, 1.0) + RNG.normal(
    0, (0.3, 0.3, 0.5, 2.0), (999, 4)
)
FACTOR = FACTORS[:, 2]
NOISE = RNG.standard_normal(999)

DEAD = {
    "zeros": np.zeros(999),
    "a tenth": np.full(999, 0.1),
    "rounding about 5": 5 + 1e-15 * FACTOR,
    "a billionth": 1e-9 * FACTOR,
    "noise about 5": 5 + 4e-15 * NOISE,
    "rounding of single precision": np.float32(3) + np.float32(2.5e-7) * FACTOR.astype(np.float32),
    "rounding about a million": 1e6 + 1e-10 * FACTOR,
}

SCORES = BY_NAME | {
    "mig_hist": partial(scores.mig_hist, bins=100),
    "mig_sup by kl": with_variance(scores.mig_sup),
    "mig_sup by variance": partial(scores.mig_sup, active="variance"),
    "infomec by kl": with_variance(partial(scores.infomec, **SMALL)),
    "factor_vae, no threshold": partial(scores.factor_vae, threshold=0.0, **SMALL),
    "irs of the values": partial(scores.irs, bins=None),
    "active_units": with_variance(scores.active_units),
    "udr": lambda z, v: udr(z, "spearman"),
    "udr by lasso": lambda z, v: udr(z, "lasso"),
}
"""Every score, in all its variants."""

BEFORE = 3

CHANCE = 0.4
"""More than what a constant predicts of factors of three, four and six values."""


def udr(codes, similarity):
    """Two other runs, and this one, whose latents are all said to be informative."""
    others = [CODES[:, [1, 0]] ** 3, CODES @ np.random.default_rng(1).standard_normal((4, 3))]
    runs = [codes, *others]
    return scores.udr(runs, [np.ones(run.shape[1]) for run in runs], similarity=similarity)


def with_dead(codes):
    """`codes` and the dead latents, half of them before and half behind."""
    dead = np.column_stack(list(DEAD.values()))
    return np.column_stack([dead[:, :BEFORE], codes, dead[:, BEFORE:]])


def numbers(found):
    """The numbers of a score that are one each."""
    return {key: value for key, value in found.items() if isinstance(value, int | float)}


def corrected(name, found, latents):
    """`found` of some latents and the dead, as it would be if the published definition did not
    count all latents.
    """
    everyone = latents + len(DEAD)
    if name == "modularity":  # a mean over all latents
        return found | {name: found[name] * everyone / latents}
    if name == "dci_boost20":  # 1 - H / log D
        entropy = (1 - found["completeness"]) * math.log(everyone)
        return found | {"completeness": 1 - entropy / math.log(latents)}
    return found


@pytest.mark.parametrize("name", [name for name in SCORES if name != "sap_svc"])
def test_adding_a_dead_latent_changes_nothing(name):
    expected, found = (numbers(SCORES[name](codes, FACTORS)) for codes in (CODES, with_dead(CODES)))
    assert corrected(name, found, CODES.shape[1]) == pytest.approx(expected, abs=1e-9)


def test_a_dead_latent_predicts_at_chance_in_sap_svc():
    """So it may be the runner-up, as in the libraries: nothing changes where another is better than
    chance.
    """
    score = SCORES["sap_svc"]
    expected = score(CODES, FACTORS)
    found = score(with_dead(CODES), FACTORS)
    assert np.array_equal(found["predictability"][BEFORE : BEFORE + 4], expected["predictability"])
    assert np.delete(found["predictability"], range(BEFORE, BEFORE + 4), 0).max() < CHANCE
    assert found["sap_svc"] <= expected["sap_svc"]
    good = np.column_stack([CODES, CODES])  # each has a runner-up as good as itself
    assert score(with_dead(good), FACTORS)["sap_svc"] == score(good, FACTORS)["sap_svc"]


@pytest.mark.parametrize("points", [10, 100, 999, 1000, 1999, 2000, 2500, 3000, 3001, 4000])
def test_the_modularity_of_constants_is_0(points):
    factors = np.random.default_rng(points).integers(0, 7, (points, 4))
    found = scores.modularity(np.full((points, 6), 0.1), factors)
    assert found["modularity"] == 0
    assert not found["mutual_information"].any()


def test_a_latent_that_is_independent_on_a_grid_tells_exactly_nothing():
    """Its plug-in information is 0, and 2e-16 by rounding: no share of that is anything."""
    grid = np.stack(np.meshgrid(*map(np.arange, (3, 7, 11, 13)), indexing="ij"), -1).reshape(-1, 4)
    found = scores.modularity(grid[:, :1].astype(float), grid[:, 1:])
    assert found["modularity"] == 0
    assert found["mutual_information"].tolist() == [[0, 0, 0]]


def test_what_is_constant_and_what_is_not():
    dead = np.column_stack(list(DEAD.values()))
    assert constant(np.column_stack([dead, CODES])).tolist() == [True] * len(DEAD) + [False] * 4
    assert constant(dead[:, [0, 1, 2, 4, 5, 6]]).all()
    far = np.column_stack([1e6 + 1e-3 * NOISE, 1e9 + FACTOR, NOISE * 1e-3, NOISE * 1e3])
    assert not constant(far).any()
    assert not constant(1e-9 * CODES).any()  # units are no matter, where all are the same
    assert not constant((5 + 1e-3 * CODES).astype(np.float32).astype(float)).any()
    assert (
        settled(np.column_stack([dead, CODES])).tolist()
        == np.column_stack([0 * dead, CODES]).tolist()
    )
    assert varying(np.column_stack([dead, CODES])).tolist() == [*range(len(DEAD), len(DEAD) + 4)]
    assert varying(0 * CODES).tolist() == [0]


def test_a_constant_is_not_active_by_any_rule_however_high_its_rate():
    codes = np.column_stack([CODES, np.full(999, 5.0)])
    assert scores.active_units(codes, None, 0 * codes)["active_by_kl"] == 4
    for rule in ("kl", "range", "variance"):
        found = scores.mig_sup(codes, FACTORS, 0 * codes, active=rule)
        assert found["active"].tolist() == [True] * 4 + [False]


def test_every_score_of_the_package_is_called_by_the_tests_of_all():
    """`dci` is called at its edges by name, and differs from dci_boost20 in the number of trees
    alone.
    """
    tried = {name.split()[0].rstrip(",") for name in SCORES}
    assert tried | {"dci"} == {*scores.__all__}
