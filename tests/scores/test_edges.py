"""What holds of every score: finite and in range at the edges, unmoved by names and units, the same
bytes twice.
"""

import json

import numpy as np
import pytest
import torch
from cases import some

from jensen import scores
from jensen.base.errors import InputError

SIZES = (3, 4, 5)
ORDERED = ("sap_r2",)  # labels count as numbers
SCALED = (
    "sap_svc",
    "beta_vae",
    "irs",
    "mig_exact",
)  # units count: a penalty, a weight, or the posterior's own scale
DRAWN = {
    "mig_exact": 0.05,
    "mig_knn": 0.02,
    "beta_vae": 0.02,
    "factor_vae": 0.1,
    "dci_boost20": 0.03,
}
"""How much the order of latents or factors matters: it decides which of equal splits a tree takes,
and what is drawn.
"""


def factors_of(points=600, sizes=SIZES, seed=0):
    return np.random.default_rng(seed).integers(0, sizes, (points, len(sizes)))


def codes_of(factors, latents=4, noise=0.3, seed=1):
    rng = np.random.default_rng(seed)
    held = np.zeros((len(factors), latents))
    width = min(latents, factors.shape[1])
    held[:, :width] = factors[:, :width] - factors[:, :width].mean(0)
    return held + noise * rng.standard_normal(held.shape)


def constant_latent():
    factors = factors_of()
    codes = codes_of(factors)
    codes[:, 1] = 0.1  # no binary fraction, so that a mean of it is off by a rounding
    return codes, factors


def one_active_latent():
    factors = factors_of()
    codes = np.zeros((len(factors), 4))
    codes[:, 2] = codes_of(factors)[:, 0]
    return codes, factors


def nothing_active():
    return np.full((600, 3), 0.1), factors_of()


def factor_of_size_one():
    factors = factors_of()
    factors[:, 1] = 7
    return codes_of(factors_of()), factors


def only_factors_of_size_one():
    return codes_of(factors_of()), np.full((600, 2), 7)


def factor_encoded_nowhere():
    return codes_of(factors_of(sizes=(3, 4)), latents=3), factors_of(sizes=(3, 4, 9), seed=5)


def one_latent():
    factors = factors_of()
    return codes_of(factors)[:, :1], factors


def one_factor():
    factors = factors_of()
    return codes_of(factors), factors[:, :1]


def one_of_each():
    factors = factors_of()
    return codes_of(factors)[:, :1], factors[:, :1]


def unbalanced_factors():
    rng = np.random.default_rng(3)
    factors = np.stack(
        [rng.binomial(1, 0.01, 600), rng.geometric(0.3, 600), (rng.random(600) < 0.9).astype(int)],
        1,
    )
    return codes_of(factors), factors


def correlated_factors():
    factors = factors_of()
    factors[:, 1] = factors[:, 0]
    return codes_of(factors), factors


def a_value_each():
    factors = factors_of()
    factors[:, 2] = np.arange(600)
    return codes_of(factors_of()), factors


def few_points():
    factors = factors_of(12)
    return codes_of(factors), factors


def far_from_zero():
    factors = factors_of()
    return 1e6 + 1e-3 * codes_of(factors), factors


def perfect():
    factors = factors_of()
    return codes_of(factors, noise=0.0), factors


EDGES = [
    constant_latent,
    one_active_latent,
    nothing_active,
    factor_of_size_one,
    only_factors_of_size_one,
    factor_encoded_nowhere,
    one_latent,
    one_factor,
    one_of_each,
    unbalanced_factors,
    correlated_factors,
    few_points,
    far_from_zero,
    perfect,
]


def check(found, headlines):
    assert next(iter(found)) == headlines[0]
    for key in headlines:
        assert type(found[key]) is float, key
        assert 0 <= found[key] <= 1, key
    for key, value in found.items():
        assert isinstance(value, float | int | np.ndarray), key
        assert np.isfinite(value).all(), key


@some(7, "edge", EDGES)
def test_scores_are_finite_and_in_range(score, headlines, edge):
    check(score(*edge()), headlines)


@some(1, "edge", [constant_latent, factor_of_size_one, one_latent, few_points])
def test_dci_is_finite_and_in_range(edge):
    check(
        scores.dci(*edge(), train=60, test=40),
        ("dci", "disentanglement", "completeness", "informativeness"),
    )


def test_a_factor_with_a_value_for_each_point(name, score, headlines):
    if name in ("dci_boost20", "sap_svc"):
        pytest.skip("a class for each point takes minutes")
    check(score(*a_value_each()), headlines)


@pytest.mark.parametrize("edge", [nothing_active, only_factors_of_size_one])
def test_where_there_is_nothing_to_score_the_score_is_0(name, score, headlines, edge):
    found = score(*edge())
    at_chance = {
        "explicitness": 0.5,
        "beta_vae": 0.45,
        "jemmig": 0.75,
    }  # jemmig: what its definition gives a constant
    assert (
        found[headlines[0]] <= (at_chance.get(name, 0.0) if edge is nothing_active else 0.0) + 1e-12
    )


def test_a_factor_of_size_one_changes_nothing_else(name, score, headlines):
    codes, factors = perfect()
    more = np.concatenate([factors, np.full((len(factors), 1), 3)], 1)
    for key in headlines:
        assert score(codes, more)[key] == pytest.approx(score(codes, factors)[key], abs=1e-12)


def test_scores_do_not_see_the_names_of_values(name, score, headlines):
    factors = factors_of()
    codes = codes_of(factors)
    rng = np.random.default_rng(2)
    renamed = np.stack(
        [rng.permutation(size)[column] for size, column in zip(SIZES, factors.T, strict=True)], 1
    )
    if name in ORDERED:
        renamed = 3 * factors + 5
    elif name != "irs":
        renamed = renamed * 1000 + 17
    for key in headlines:
        assert score(codes, renamed)[key] == pytest.approx(score(codes, factors)[key], abs=1e-12)


def test_scores_do_not_see_the_order_of_latents_and_factors(name, score, headlines):
    factors = factors_of()
    codes = codes_of(factors)
    expected = score(codes, factors)
    for found in (score(codes[:, [2, 0, 3, 1]], factors), score(codes, factors[:, [2, 0, 1]])):
        for key in headlines:
            assert found[key] == pytest.approx(expected[key], abs=DRAWN.get(name, 1e-3))


def test_scores_do_not_see_units(name, score, headlines):
    if name in SCALED:
        pytest.skip(f"{name} depends on units, and says so")
    factors = factors_of()
    codes = codes_of(factors)
    moved = codes * (2.5, 0.7, 1.3, 3.1) + (1.0, -20.0, 0.3, 5.0)
    for key in headlines:
        assert score(moved, factors)[key] == pytest.approx(score(codes, factors)[key], abs=0.005)


def test_same_inputs_same_bytes(score):
    factors = factors_of()
    codes = codes_of(factors)
    first, second = (score(codes.copy(), factors.copy()) for _ in range(2))
    assert first.keys() == second.keys()
    for key in first:
        assert np.asarray(first[key]).tobytes() == np.asarray(second[key]).tobytes(), key


def test_scores_leave_the_global_generators_alone(score):
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    score(*perfect())
    assert np.array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())


def test_arrays_and_tensors_are_the_same(score, headlines):
    factors = factors_of()
    codes = codes_of(factors).astype(np.float32)
    expected = score(codes, factors)
    tensors = torch.from_numpy(codes).requires_grad_(), torch.from_numpy(factors)
    for found in (
        score(*tensors),
        score(codes, torch.from_numpy(factors.astype(np.uint8))),
        score(codes.tolist(), factors.tolist()),
    ):
        assert [found[key] for key in headlines] == [expected[key] for key in headlines]


def test_inputs_are_not_written_to(score):
    codes, factors = perfect()
    codes.flags.writeable = factors.flags.writeable = False
    score(codes, factors)


def test_a_score_can_be_written_as_json(score, headlines):
    found = score(*perfect())
    json.dumps(
        {
            key: value.tolist() if isinstance(value, np.ndarray) else value
            for key, value in found.items()
        }
    )


def wrong(codes=None, factors=None):
    good = codes_of(factors_of(20)), factors_of(20)
    return good[0] if codes is None else codes, good[1] if factors is None else factors


HOLED = codes_of(factors_of(20))
HOLED[3, 2] = np.nan
ENDLESS = codes_of(factors_of(20))
ENDLESS[0, 1] = -np.inf

BAD = [
    (
        wrong(codes=codes_of(factors_of(19))),
        "codes have 19 rows and factors 20: expected one row of each a point",
    ),
    (
        wrong(codes=HOLED),
        r"codes hold nan at row 3, latent 2 \(1 such values\): expected finite numbers",
    ),
    (wrong(codes=ENDLESS), "codes hold -inf at row 0, latent 1"),
    (wrong(codes=np.full((20, 2), 1e200)), r"codes hold 1e\+200"),
    (
        wrong(factors=factors_of(20).astype(float)),
        "factors are float64: expected integer labels; number the values",
    ),
    (wrong(factors=factors_of(20) - 1), "factors lie in -1..3: expected labels of at least 0"),
    (wrong(factors=factors_of(20)[:, 0]), r"factors are of shape \(20,\): expected \(N, F\)"),
    (wrong(codes=HOLED[:, 0]), r"codes are of shape \(20,\): expected \(N, D\)"),
    (wrong(codes=HOLED[None]), r"codes are of shape \(1, 20, 4\)"),
    (
        wrong(codes=np.zeros((0, 4)), factors=np.zeros((0, 2), int)),
        r"codes of shape \(0, 4\) are empty",
    ),
    (wrong(codes=np.zeros((20, 0))), r"codes of shape \(20, 0\) are empty"),
    (wrong(factors=np.zeros((20, 0), int)), r"factors of shape \(20, 0\) are empty"),
    (wrong(codes=np.full((20, 2), "a")), "codes hold <U1: expected real numbers"),
    (wrong(codes=np.zeros((20, 2), complex)), "codes hold complex128"),
    (
        wrong(codes=np.zeros((1, 2)), factors=np.zeros((1, 2), int)),
        "hold 1 points: expected at least",
    ),
]


@pytest.mark.parametrize(("inputs", "message"), BAD)
def test_bad_input_is_refused_in_one_sentence(score, inputs, message):
    with pytest.raises(InputError, match=message) as caught:
        score(*inputs)
    assert "\n" not in str(caught.value)
    assert ". " not in str(caught.value)
