"""A graph tried against the steps that it stands for, before it is trusted."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from jensen.algorithm.chunk import Chunk

LEAP = 100_003
"""Steps from the one that was captured to the one that the graph is tried at."""


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


def distrust(step: Trial, replay: Trial, precision: str) -> str:
    """The reason to distrust the replay of a step; empty where it does what the step does.

    Kernels may add in another order at each run, and Adam moves by the sign of a gradient that is
    nearly 0: a tenth of the move is far more than that, and far less than what a wrong buffer does.
    """
    rough = 1e-4 if precision in ("32-true", "64-true") else 1e-2
    near = (step.loss - replay.loss).abs() <= rough * step.loss.abs() + 1e-6
    for expected, found, same in zip(step.loss, replay.loss, near, strict=True):
        if not bool(same):
            return (
                f"a replay gives a loss of {found.item():g} where a step gives {expected.item():g}"
            )
    apart = (step.moved - replay.moved).norm(dim=1)
    for length, move in zip(apart, step.moved.norm(dim=1), strict=True):
        if not bool(length <= 0.1 * move + 1e-12):
            return f"a replay moves the parameters {length.item():.2g} from where a step moves them"
    return ""
