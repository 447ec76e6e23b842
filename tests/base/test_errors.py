"""The checks of input: what they let pass, what they refuse, and what they say."""

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from jensen.base.errors import (
    InputError,
    check_choice,
    check_count,
    check_flag,
    check_list,
    check_number,
    check_path,
    check_seed,
)


def test_an_input_error_is_a_value_error():
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize(
    ("value", "least"), [(1, 1), (2, 1), (10**30, 1), (0, 0), (-3, -3), (5, 5)]
)
def test_counts_that_pass(value, least):
    check_count("n", value, least)


@pytest.mark.parametrize(
    ("value", "least"),
    [
        (0, 1),
        (-1, 1),
        (-1, 0),
        (4, 5),
        (1.0, 1),
        (1.5, 1),
        (math.nan, 1),
        (True, 1),
        (False, 0),
        ("1", 1),
        (None, 1),
        ([1], 1),
    ],
)
def test_counts_that_do_not(value, least):
    with pytest.raises(InputError) as caught:
        check_count("latent_dim", value, least)
    assert str(caught.value) == f"latent_dim is {value!r}: expected an integer of at least {least}"


@pytest.mark.parametrize("value", [True, False])
def test_flags_that_pass(value):
    check_flag("fused", value)


@pytest.mark.parametrize("value", [1, 0, 1.0, math.nan, "true", "false", "", None, [], [True]])
def test_nothing_is_a_flag_by_its_truth(value):
    with pytest.raises(InputError) as caught:
        check_flag("optimizer.fused", value)
    assert str(caught.value) == f"optimizer.fused is {value!r}: expected true or false"


@pytest.mark.parametrize("value", [0, 1, (1 << 32) - 1])
def test_seeds_that_every_generator_takes(value):
    check_seed("seed", value)
    np.random.RandomState(value)


@pytest.mark.parametrize("value", [-1, 1 << 32, 10**30, 1.0, math.nan, True, "1", None, [1]])
def test_seeds_that_one_of_them_does_not(value):
    with pytest.raises(
        InputError, match=r"^seed is .*: expected an integer (of at least 0|below 2\^32)$"
    ):
        check_seed("seed", value)


@pytest.mark.parametrize(
    "value",
    [0, 1, -1, 0.0, -0.0, 1e308, -1e308, 5e-324, np.float64(2), np.float32(2), Fraction(1, 3)],
)
def test_any_finite_number_passes_without_bounds(value):
    check_number("x", value)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        np.float32("nan"),
        True,
        False,
        "1",
        None,
        1j,
        Decimal(1),
        [1.0],
    ],
)
def test_what_is_no_finite_number_does_not(value):
    for bounds in ({}, {"low": 0}, {"low": -2, "high": 2}):
        with pytest.raises(InputError, match=r"x is .*: expected a"):
            check_number("x", value, **bounds)


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (0, {"low": 0}, None),
        (7, {"low": 0}, None),
        (0, {"low": 0, "high": 1}, None),
        (1, {"low": 0, "high": 1}, None),
        (-1e-12, {"low": 0}, "a number of at least 0"),
        (1.0001, {"low": 0, "high": 1}, r"a number in \[0, 1\]"),
        (-0.5, {"low": 0, "high": 1}, r"a number in \[0, 1\]"),
        (math.inf, {"low": 0}, "a number of at least 0"),
        (math.nan, {}, "a finite number"),
    ],
)
def test_a_number_lies_between_its_bounds(value, bounds, message):
    if message is None:
        check_number("beta", value, **bounds)
    else:
        with pytest.raises(InputError, match=f"^beta is {value!r}: expected {message}$"):
            check_number("beta", value, **bounds)


def test_an_integer_too_large_for_a_float_is_refused_like_any_other():
    with pytest.raises(InputError, match="x is 1000"):
        check_number("x", 10**400)


@pytest.mark.parametrize(
    ("value", "choices"), [("relu", ("relu", "tanh")), (2, (2, 4)), (None, (None, "a"))]
)
def test_a_choice_that_passes(value, choices):
    check_choice("activation", value, choices)


NEAR = "; did you mean relu?"


@pytest.mark.parametrize(
    ("value", "more"),
    [
        ("Relu", NEAR),
        ("", ""),
        ("relu ", NEAR),
        ("gelato", ""),
        (None, ""),
        (0, ""),
        (["relu"], NEAR),
        ({"relu": 1}, ""),
    ],
)
def test_a_choice_that_does_not_is_told_the_others(value, more):
    with pytest.raises(InputError) as caught:
        check_choice("activation", value, ("relu", "tanh"))
    assert str(caught.value) == f"activation is {value!r}: expected one of relu, tanh{more}"


@pytest.mark.parametrize("value", ["a/b", Path("a"), "7"])
def test_paths_that_pass(value):
    check_path("root", value)


@pytest.mark.parametrize("value", [None, 7, "", ["a"], 1.5])
def test_paths_that_do_not(value):
    with pytest.raises(InputError) as caught:
        check_path("root", value)
    assert str(caught.value) == f"root is {value!r}: expected a path"


@pytest.mark.parametrize("value", [[], [1], (1, 2), np.zeros(2)])
def test_lists_that_pass(value):
    check_list("variances", value)


@pytest.mark.parametrize("value", [None, 7, "abc", 1.5])
def test_lists_that_do_not(value):
    with pytest.raises(InputError) as caught:
        check_list("variances", value)
    assert (
        str(caught.value) == f"variances is {value!r}: expected a list, such as variances=[{value}]"
    )
