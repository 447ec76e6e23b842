"""A replay is held against the steps it stands for, and no nearer than they come to themselves."""

import itertools

import pytest
import torch

from jensen.algorithm.trial import Trial, distrust


def attempts(spread, replay, loss=900.0):
    """Trials of steps whose losses and moves are `spread` apart, and of a replay at `replay` of it."""
    turns = itertools.count()

    def attempt(run):
        times = run()
        chance = 0.0 if times is None else times
        away = spread * next(turns) / 4 if times is None else chance
        move = torch.tensor([[1.0, 0.0]]) + torch.tensor([[0.0, away]])
        return Trial(torch.tensor([loss * (1 + away)]), move)

    return attempt, lambda: None, lambda: replay


@pytest.mark.parametrize(
    ("spread", "replay", "trusted"),
    [
        (0.0, 0.0, True),
        (0.0, 5e-5, True),
        (0.0, 5e-4, False),
        (4e-4, 5e-4, True),  # what an H200 gave after 24 steps
        (4e-4, 0.01, False),
        (0.0, float("nan"), False),
    ],
)
def test_a_replay_may_differ_as_runs_of_the_steps_do(spread, replay, trusted):
    assert (distrust(*attempts(spread, replay), "32-true") == "") == trusted


@pytest.mark.parametrize(("replay", "trusted"), [(0.05, True), (0.2, False), (float("nan"), False)])
def test_moves_count_where_losses_are_equal(replay, trusted):
    attempt, steps, again = attempts(0.0, replay, loss=0.0)
    why = distrust(attempt, steps, again, "32-true")
    assert (why == "") == trusted
    assert trusted or "parameters" in why or "nan" in why


def test_steps_are_run_once_where_that_is_enough():
    run = []

    def attempt(program):
        run.append(program)
        return Trial(torch.ones(1), torch.ones(1, 1))

    assert distrust(attempt, "steps", "replay", "64-true") == ""
    assert run == ["steps", "replay"]
