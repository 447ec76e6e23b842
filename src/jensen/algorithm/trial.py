"""A graph tried against the steps that it stands for, before it is trusted."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from jensen.algorithm.chunk import Chunk
from jensen.base.replay import Run

LEAP = 100_003
"""Steps from the one that was captured to the one that the graph is tried at."""


_AGAIN = 3
"""More runs of the steps, where a replay is too far from the first."""

_APART = 3
"""Times the most that runs of the steps differ among themselves."""


class Trial(NamedTuple):
    """The effect of some steps on M models: losses `(M,)`, and all parameters' moves in one, `(M, P)`."""

    loss: Tensor
    moved: Tensor


def far(chunk: Chunk, count: int) -> Chunk:
    """`count` steps far from those of the chunk, on its minibatches in turn."""
    at = torch.arange(count, device=chunk.step.device) % len(chunk.step)
    x, row, noise, _, first = chunk
    step = chunk.step[0] + LEAP + torch.arange(count, device=at.device)
    return Chunk(x[at], row[at], noise[at], step, first)


def tried(run: Callable[[], None], loss: Callable[[], Tensor], stacked: Sequence[Tensor]) -> Trial:
    """Try `run` on parameters `(M, ...)`; whoever asks puts them back."""
    before = [each.detach().clone() for each in stacked]
    run()
    moves = [
        (each.detach() - old).reshape(len(each), -1)
        for each, old in zip(stacked, before, strict=True)
    ]
    return Trial(loss().detach().clone().reshape(-1), torch.cat(moves, 1))


def distrust(attempt: Callable[[Run], Trial], steps: Run, replay: Run, precision: str) -> str:
    """The reason to distrust the replay of some steps; empty where it does what they do, as nearly as
    they do so again.

    Kernels may add in another order at each run, and Adam moves by the sign of a gradient that is
    nearly 0: a tenth of the move is far more than that, and far less than what a wrong buffer does.
    But of two dozen steps of convolutions (an H200) the last loss was 5e-4 from that of a replay,
    and in other runs none was.
    """
    once, repeated = attempt(steps), attempt(replay)
    rough = 1e-4 if precision in ("32-true", "64-true") else 1e-2
    why = _apart(once, repeated, rough, [once])
    if why:
        why = _apart(once, repeated, rough, [once, *(attempt(steps) for _ in range(_AGAIN))])
    return why


def _apart(step: Trial, replay: Trial, rough: float, runs: Sequence[Trial]) -> str:
    """The difference between a step and its replay, in words, if it is larger than is `rough` and
    than `runs` of the step explain; else empty.
    """
    pairs = [*combinations(runs, 2)]
    loss = [(one.loss - other.loss).abs() for one, other in pairs]
    move = [(one.moved - other.moved).norm(dim=1) for one, other in pairs]
    by_chance = [_APART * torch.stack(each).amax(0) if pairs else 0.0 for each in (loss, move)]
    near = (step.loss - replay.loss).abs() <= rough * step.loss.abs() + 1e-6 + by_chance[0]
    for expected, found, same in zip(step.loss, replay.loss, near, strict=True):
        if not bool(same):
            return (
                f"a replay gives a loss of {found.item():g} where a step gives {expected.item():g}"
            )
    apart = (step.moved - replay.moved).norm(dim=1)
    far = apart > 0.1 * step.moved.norm(dim=1) + 1e-12 + by_chance[1]
    for length, too_far in zip(apart, far | apart.isnan(), strict=True):
        if bool(too_far):
            return f"a replay moves the parameters {length.item():.2g} from where a step moves them"
    return ""
