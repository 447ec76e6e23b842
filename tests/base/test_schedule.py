"""Schedules, against plain arithmetic and the formula of Fu et al. 2019."""

import math
from copy import deepcopy
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

from jensen.base.errors import InputError
from jensen.base.schedule import Constant, Cyclic, Geometric, Linear, as_schedule


def at(schedule, step):
    return schedule(torch.tensor(step)).item()


def fu(step, start, end, steps, cycles, ramp):
    """Eq. 6-7 in exact arithmetic; `step` counts from 0, as their t - 1 does."""
    if step >= steps:
        return end
    period = Fraction(steps, cycles)
    tau = (step % period) / period
    return start + (end - start) * (float(tau / Fraction(ramp)) if tau <= Fraction(ramp) else 1)


def test_a_constant_is_the_same_at_every_step():
    schedule = Constant(0.25)
    assert [at(schedule, step) for step in (0, 1, 10**9)] == [0.25] * 3
    assert schedule.end_step == 0
    assert schedule.bounds == (0.25, 0.25)


@pytest.mark.parametrize(("start", "end"), [(0.0, 4.0), (4.0, 0.0), (-1.0, 3.0), (2.0, 2.0)])
def test_a_line_goes_from_start_to_end_and_stays(start, end):
    schedule = Linear(start, end, 100)
    found = [at(schedule, step) for step in (0, 25, 50, 99, 100, 101, 10**8)]
    expected = [start + (end - start) * part for part in (0, 0.25, 0.5, 0.99, 1, 1, 1)]
    assert found == pytest.approx(expected, abs=1e-6)
    assert found[4:] == [end] * 3
    assert schedule.end_step == 100
    assert schedule.bounds == (min(start, end), max(start, end))


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        (Constant(0.1), 7, Fraction(1, 10)),
        (Linear(0.1, 0.7, 10), 3, Fraction(28, 100)),
        (Geometric(0.1, 0.9, 2), 1, Fraction(3, 10)),
        (Cyclic(0.1, 0.7, 30, 3, 0.9), 3, Fraction(1, 10) + Fraction(6, 10) * Fraction(3, 9)),
    ],
)
@pytest.mark.parametrize(
    "convert", ["double", "by way of float32", "of a deep copy", "within a module"]
)
def test_a_schedule_of_float64_has_the_numbers_that_were_given(schedule, step, expected, convert):
    schedule = deepcopy(schedule)  # a parameter is shared
    assert abs(Fraction(at(schedule, step)) - expected) > Fraction(1, 10**10)  # in float32, before
    if convert == "by way of float32":
        schedule.double().float()
    if convert == "of a deep copy":
        schedule = deepcopy(deepcopy(schedule).double())
    whole = torch.nn.Sequential(schedule).to(torch.float64)
    assert at(whole[0], step) == pytest.approx(float(expected), rel=4e-16)
    assert at(whole.float()[0], step) == pytest.approx(float(expected), rel=4e-7)


def test_a_number_that_someone_has_put_there_is_kept():
    schedule = Linear(0.1, 0.7, 10)
    schedule.end.fill_(0.5)
    assert at(schedule.double(), 10) == 0.5


def test_a_line_of_one_step_is_done_after_it():
    assert [at(Linear(0.0, 1.0, 1), step) for step in (0, 1, 2)] == [0, 1, 1]


@pytest.mark.parametrize(
    ("start", "end", "steps", "cycles", "ramp"),
    [
        (0, 1, 80, 4, 0.5),
        (0, 1, 81, 4, 0.5),
        (1, 0, 60, 3, 1),
        (0.5, 4, 100, 7, 0.25),
        (0, 1, 64, 1, 0.75),
        (0, 2, 3, 4, 0.5),
    ],
)
def test_cycles_are_those_of_fu_et_al(start, end, steps, cycles, ramp):
    schedule = Cyclic(start, end, steps, cycles, ramp)
    for step in range(steps + 20):
        assert at(schedule, step) == pytest.approx(
            fu(step, start, end, steps, cycles, ramp), abs=1e-5
        ), step
    assert schedule.end_step == steps
    assert schedule.bounds == (min(start, end), max(start, end))


def test_every_cycle_begins_again_at_start():
    schedule = Cyclic(0.0, 1.0, 300_000, cycles=3)
    for first in (0, 100_000, 200_000):
        assert at(schedule, first) == 0
        assert at(schedule, first + 25_000) == pytest.approx(0.5)
        assert [at(schedule, first + later) for later in (50_000, 75_000, 99_999)] == [1, 1, 1]


def test_cycles_stay_precise_over_ten_million_steps():
    steps = 10_000_000
    cycles = 8
    schedule = Cyclic(0.0, 1.0, steps, cycles, ramp=1.0)
    for step in (steps - 1, steps // 2 - 1, steps // 2, 7 * steps // 8, 9_999_000, 6_543_210):
        assert at(schedule, step) == pytest.approx(
            fu(step, 0.0, 1.0, steps, cycles, 1.0), abs=1e-5
        ), step


@pytest.mark.parametrize("schedule", [Constant(2.0), Linear(0.0, 1.0, 50), Cyclic(0.0, 1.0, 50)])
def test_a_value_depends_on_the_step_alone(schedule):
    steps = list(range(0, 60, 7))
    upwards = [at(schedule, step) for step in steps]
    assert [at(schedule, step) for step in reversed(steps)] == upwards[::-1]
    assert [at(schedule, step) for step in steps] == upwards
    assert schedule(torch.tensor(3)).shape == ()


@pytest.mark.parametrize("schedule", [Constant(2.0), Linear(0.0, 1.0, 50), Cyclic(0.0, 1.0, 50)])
def test_the_numbers_are_buffers_that_stay_out_of_checkpoints(schedule):
    assert schedule.state_dict() == {}
    assert not list(schedule.parameters())
    assert dict(schedule.named_buffers())
    assert schedule.double()(torch.tensor(1)).dtype == torch.float64


@pytest.mark.parametrize(
    "stack",
    [
        [Constant(1.0), Constant(4.0)],
        [Linear(0.0, 1.0, 10), Linear(2.0, 0.5, 40)],
        [Cyclic(0.0, 1.0, 40), Cyclic(1.0, 2.0, 30, 3, 1.0)],
    ],
    ids=lambda stack: type(stack[0]).__name__,
)
def test_schedules_can_be_stacked(stack):
    parameters, buffers = stack_module_state(stack)
    assert parameters == {}
    together = vmap(
        lambda state, step: functional_call(stack[0], state, (step,)), in_dims=(0, None)
    )
    for step in (0, 7, 20, 35, 100):
        assert together(buffers, torch.tensor(step)).tolist() == [
            at(member, step) for member in stack
        ]


BAD_NUMBERS = [math.nan, math.inf, -math.inf, True, "1", None, 1j]


@pytest.mark.parametrize("bad", BAD_NUMBERS)
def test_what_is_no_finite_number_is_refused(bad):
    for make in (
        lambda: Constant(bad),
        lambda: Linear(bad, 1.0, 10),
        lambda: Linear(0.0, bad, 10),
        lambda: Cyclic(bad, 1.0, 10),
        lambda: Cyclic(0.0, bad, 10),
        lambda: as_schedule("beta", bad),
    ):
        with pytest.raises(InputError, match=r"is .*: expected"):
            make()


@pytest.mark.parametrize("bad", [0, -1, 1.5, 10.0, True, "10", None])
def test_steps_and_cycles_are_positive_integers(bad):
    for make in (lambda: Linear(0.0, 1.0, bad), lambda: Cyclic(0.0, 1.0, bad)):
        with pytest.raises(InputError, match=r"steps is .*: expected an integer of at least 1"):
            make()
    with pytest.raises(InputError, match=r"cycles is .*: expected an integer of at least 1"):
        Cyclic(0.0, 1.0, 10, cycles=bad)


@pytest.mark.parametrize("bad", [0, 0.0, -0.5, 1.0001, math.nan, math.inf, True, "0.5"])
def test_a_ramp_is_a_part_of_a_cycle(bad):
    with pytest.raises(InputError, match="ramp is"):
        Cyclic(0.0, 1.0, 10, ramp=bad)


@pytest.mark.parametrize("value", [0, 4, 2.5, np.float64(2.5), np.float32(2.5)])
def test_a_number_becomes_a_constant(value):
    schedule = as_schedule("beta", value, low=0)
    assert isinstance(schedule, Constant)
    assert at(schedule, 3) == value


def test_a_schedule_is_kept_as_it_is():
    schedule = Linear(0.0, 1.0, 10)
    assert as_schedule("beta", schedule, low=0) is schedule


@pytest.mark.parametrize(
    "value",
    [
        -1e-9,
        -3,
        Constant(-1.0),
        Linear(-0.1, 1.0, 10),
        Linear(1.0, -0.1, 10),
        Cyclic(-0.1, 1.0, 10),
    ],
)
def test_what_falls_below_the_least_is_refused_by_name(value):
    with pytest.raises(InputError, match=r"beta (is|falls to) -.* at least 0"):
        as_schedule("beta", value, low=0)
    as_schedule("beta", value)
