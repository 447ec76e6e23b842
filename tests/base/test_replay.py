"""Functions by replay, on the CPU with `tape` in the place of a CUDA graph."""

import gc
import math
from typing import NamedTuple

import pytest
import torch
from tape import taped
from torch import Tensor

from jensen.base import replay
from jensen.base.replay import Replayed
from jensen.base.unlikely import presuming, unlikely


class Pair(NamedTuple):
    one: Tensor
    other: Tensor


@pytest.fixture
def captures(monkeypatch):
    """The programs that were captured; more may be said of how."""
    found = []

    def capture(run):
        found.append(run)
        return taped(run)

    monkeypatch.setitem(replay.CAPTURES, "cpu", capture)
    return found


def product(p):
    return Pair((p.one @ p.other).exp(), p.one.sum() > 0)


def given(seed, rows=3):
    generator = torch.Generator().manual_seed(seed)
    return Pair(
        torch.randn(rows, 4, generator=generator), torch.randn(4, 2, generator=generator).T.mT
    )


def test_replays_give_what_the_function_gives(captures):
    function = Replayed("it", product)
    for seed in range(12):
        p = given(seed)
        for found, expected in zip(function(p), product(p), strict=True):
            assert torch.equal(found, expected)
    assert len(captures) == 1
    assert not function.why


def test_without_a_gpu_the_function_is_called(monkeypatch):
    monkeypatch.setattr(replay, "CAPTURES", {})
    calls = []
    function = Replayed("it", lambda x: (calls.append(1), x + 1)[1])
    for _ in range(9):
        assert function(torch.zeros(2)).tolist() == [1, 1]
    assert len(calls) == 9


def test_a_replay_calls_nothing_and_its_results_are_kept_apart(captures):
    calls = []
    function = Replayed("it", lambda x: (calls.append(1), (x + 1, 2 * x))[1])
    found = [function(torch.full((2,), float(place))) for place in range(20)]
    assert [pair[0][0].item() for pair in found] == [place + 1 for place in range(20)]
    assert [pair[1][1].item() for pair in found] == [2 * place for place in range(20)]
    assert len(calls) < 14


def test_each_make_of_arguments_has_a_graph_of_its_own(captures):
    function = Replayed("it", product)
    for seed in range(36):
        p = given(seed, rows=1 + seed % 3)
        assert torch.equal(function(p).one, product(p).one)
    assert len(captures) >= 3
    assert len(function._programs) <= replay._KEPT
    assert not function.why


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: x * float(x.sum()), "a value was asked for"),
        (lambda x: x[x > 0], "the size of a result was asked for"),
        (lambda x: x + torch.tensor(1.0), "a number was brought from the host"),
        (
            lambda x: torch.linalg.cholesky(x.outer(x) + torch.eye(2)),
            "whether there was an error was asked for",
        ),
    ],
)
def test_what_asks_the_device_is_called_and_named(captures, caplog, function, why):
    asking = Replayed("the test", function)
    for place in range(9):
        x = torch.tensor([1.0, 2.0]) + place
        assert torch.equal(asking(x), function(x))
    assert why in asking.why
    assert caplog.text.count("the test is computed without a CUDA graph (operation not") == 1


def test_a_number_that_python_had_is_found_to_be_stale(captures, caplog):
    """As a graph would have it for ever."""
    steps = iter(range(100))
    stale = Replayed("the test", lambda x: x + next(steps))
    found = [stale(torch.zeros(2))[0].item() for _ in range(12)]
    assert found == sorted(found)
    assert "a replay gives other numbers than a call" in caplog.text


def test_a_first_capture_that_fails_is_tried_again(monkeypatch):
    tries = []

    def capture(run):
        tries.append(run)
        if len(tries) == 1:
            raise RuntimeError("CUDA error: operation failed due to a previous error")
        return taped(run)

    monkeypatch.setitem(replay.CAPTURES, "cpu", capture)
    function = Replayed("it", product)
    for seed in range(9):
        function(given(seed))
    assert len(tries) == 2
    assert not function.why


def test_an_unlikely_answer_is_looked_for_after_the_replay(captures):
    answers = []

    def halved(x):
        if unlikely((x < 0).any()):
            answers.append(float(x[0]))
            return -x
        return x / 2

    function = Replayed("it", halved)
    for place in range(12):
        assert function(torch.full((2,), float(place))).tolist() == [place / 2] * 2
    assert function(torch.tensor([-3.0, 1.0])).tolist() == [3.0, -1.0]
    assert answers == [-3.0]
    assert function(torch.tensor([4.0, 1.0])).tolist() == [2.0, 0.5]
    assert not function.why


def test_presuming_is_over_at_its_end():
    with presuming() as flags:
        assert not unlikely(torch.tensor(True))
    assert [bool(flag) for flag in flags] == [True]
    assert unlikely(torch.tensor(True))


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        ([1.0, 2.0], [1.0, 2.0009], True),
        ([1.0, 2.0], [1.0, 2.01], False),
        ([1e-9, 1.0], [5e-7, 1.0], True),  # beside 1 that is rounding
        ([1e-9], [5e-7], False),
        ([math.nan, math.inf, -math.inf], [math.nan, math.inf, -math.inf], True),
        ([math.nan], [0.0], False),
        ([0.0], [math.nan], False),
        ([math.inf], [-math.inf], False),
        ([math.inf], [7.0], False),
        ([7.0], [math.inf], False),
        ([3, 4], [3, 4], True),
        ([3, 4], [3, 5], False),
        ([True], [False], False),
        ([], [], True),
    ],
)
def test_results_that_differ_by_rounding_are_the_same(expected, found, same):
    assert bool(replay._same(torch.tensor(expected), torch.tensor(found))) == same


def test_no_garbage_is_collected_amid_a_capture():
    with replay.uncollected():
        assert not gc.isenabled()
        with replay.uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
