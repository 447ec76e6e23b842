"""The number of optimiser steps that Lightning's loop is asked for at a time.

Lightning takes some 300 us around each batch. Here one of its batches may be a chunk of K
minibatches: fetched in one gather, its noise drawn at once, K optimiser steps, logged once. All that
counts steps (`global_step`, batches, validation, schedules) counts the K, so a run in chunks is, on
a CPU bit for bit, the run without.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import ParallelStrategy
from torch import Tensor

from jensen.algorithm.batches import own_data
from jensen.base.batch import Batch
from jensen.base.device import sent
from jensen.base.errors import InputError
from jensen.base.random import fold, normal
from jensen.data.examples import Examples

AUTO = "auto"

MOST = 25
"""Steps that `auto` takes at most: by then Lightning's part of a step is small, and a signal waits
for a chunk's end.
"""

BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}
"""Decoded observations of a chunk, at most."""

_AMID = (
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)
_AROUND = ("on_train_batch_start", "on_train_batch_end")
_STEP = (
    *_AMID,
    "training_step",
    "backward",
    "optimizer_zero_grad",
    "optimizer_step",
    "configure_gradient_clipping",
    "clip_gradients",
    "still",
)
"""Methods of an algorithm that make up a step which Lightning takes; a `Drive` knows only jensen's."""

_TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device")
"""Methods that Lightning calls of the data or, where these have none, of the algorithm."""

_CALL = (*_AROUND, *_TRANSFER, "observe")
"""Those that are called once for all steps of a chunk."""

_OF_DATA = (*_TRANSFER, "on_after_batch_transfer", "train_dataloader")
"""The same, of a subclass of jensen's data."""

_OF_STRATEGY = ("training_step", "backward", "optimizer_step")
_OF_PRECISION = ("pre_backward", "backward", "post_backward", "optimizer_step", "clip_gradients")
"""Methods of a step of a strategy, and of a plugin, that somebody has made."""

_CHUNKWISE = (
    "jensen.callbacks.",
    "pytorch_lightning.callbacks.model_checkpoint",
    "pytorch_lightning.callbacks.progress.",
    "pytorch_lightning.callbacks.timer",
)
"""Modules of hooks that need not be called at each step. A callback of your own says so by
`chunkwise = True`, one of these that does need it by `every_step`.
"""


class Chunk(NamedTuple):
    """K minibatches, with all that differs between their steps.

    x: `(K, B, *event)`. row: `(K, B)`, places in the data set. noise: `(K, S B, D)`. step: `(K,)`
    int64, the optimiser's steps before each. first: the number of the first on the host.
    """

    x: Tensor
    row: Tensor
    noise: Tensor
    step: Tensor
    first: int

    def minibatches(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """x, row, noise and step of one after the other."""
        return zip(self.x, self.row, self.noise, self.step, strict=True)


def chunk(
    batch: Batch, x: Tensor, steps: int, first: int, seed: int, samples: int, latents: int
) -> Chunk:
    """A chunk of a batch that holds `steps` minibatches one after another; the noise of each is
    what it is drawn for that minibatch alone.
    """
    device = x.device
    keys = sent([fold(seed, "noise", first + each) for each in range(steps)], device)
    size = len(batch.row) // steps
    each = keys.unsqueeze(1).expand(-1, size).reshape(-1)
    noise = normal(each, batch.row, (samples, latents))
    return Chunk(
        x.unflatten(0, (steps, size)),
        batch.row.unflatten(0, (steps, size)),
        noise.unflatten(0, (steps, size)).transpose(1, 2).flatten(1, 2),
        torch.arange(first, first + steps, device=device),
        first,
    )


def most(trainer: Trainer) -> int:
    """The most steps at a time that end wherever something is due between two steps, `auto`."""
    due = math.gcd(*_intervals(trainer).values())
    data = own_data(trainer)
    assert data is not None
    each = data.batch_size * math.prod(data.source.x_shape) * 4
    room = BYTES["cpu" if trainer.strategy.root_device.type == "cpu" else "cuda"] // each
    least = max(1, min(MOST, room))
    return next(steps for steps in range(least, 0, -1) if due % steps == 0)


def check_divides(steps: int, trainer: Trainer) -> None:
    """Refuse a number of steps at a time that would pass over something."""
    for name, interval in _intervals(trainer).items():
        if interval % steps:
            raise InputError(
                f"algorithm.steps_per_call is {steps} but {name} is {interval}, which it does not"
                " divide: expected auto, or a number that divides it"
            )


def _intervals(trainer: Trainer) -> dict[str, int]:
    """Numbers of steps after which something is due, by the key that says so."""
    found = {"trainer.log_every_n_steps": trainer.log_every_n_steps}
    if trainer.max_steps > 0:
        found["trainer.max_steps"] = trainer.max_steps
    if trainer.check_val_every_n_epoch is None:
        found["trainer.val_check_interval"] = int(trainer.val_check_interval)
    for each in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(each, ModelCheckpoint) and each._every_n_train_steps:
            found["every_n_train_steps of a ModelCheckpoint"] = each._every_n_train_steps
    return found


def ours_to_drive(trainer: Trainer) -> str:
    """The reason why Lightning must take each step itself; empty if it need not."""
    data = own_data(trainer)
    if data is None:
        return "the data are not a jensen.data.module.DataModule"
    if isinstance(trainer.strategy, ParallelStrategy):  # of one rank too: it wraps the model
        return "trainer.strategy is one for several ranks"
    if trainer.accumulate_grad_batches != 1:
        return "trainer.accumulate_grad_batches is not 1"
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        return "trainer.precision=16-mixed scales each loss"
    return (
        _overriding(trainer, _AMID)
        or _rewritten(trainer.lightning_module, _STEP)
        or _rewritten(trainer.strategy, _OF_STRATEGY)
        or _rewritten(trainer.precision_plugin, _OF_PRECISION)
    )


def one_at_a_time(trainer: Trainer) -> str:
    """The reason why each call must be a single step; empty if it need not."""
    data = own_data(trainer)
    assert data is not None
    if not isinstance(data.examples("train"), Examples) or data.workers or not data.shuffle:
        return "the data are read batch by batch"
    if trainer.limit_train_batches != 1.0 or trainer.overfit_batches:
        return "trainer.limit_train_batches counts batches"
    by_steps = trainer.check_val_every_n_epoch is None
    if (
        not isinstance(trainer.val_check_interval, int)
        if by_steps
        else trainer.val_check_interval != 1
    ):
        return "trainer.val_check_interval is no number of steps"
    return (
        _overriding(trainer, _AROUND)
        or _rewritten(trainer.lightning_module, _CALL)
        or _rewritten(data, _OF_DATA)
    )


def _overriding(trainer: Trainer, hooks: Sequence[str]) -> str:
    """The callback that has one of these hooks, in words; empty if none would miss a step."""
    for each in trainer.callbacks:  # type: ignore[attr-defined]
        for hook in hooks:
            module = _home(each, hook)
            if module == Callback.__module__:
                continue
            known = module.startswith(_CHUNKWISE) and not hasattr(each, "every_step")
            if hooks is _AMID or not (known or getattr(each, "chunkwise", False)):
                return f"{type(each).__name__}.{hook} is called at every step"
    return ""


def _rewritten(owner: object, methods: Sequence[str]) -> str:
    """The method of these that an algorithm, or data, of somebody's own has, in words; empty if it has
    none.
    """
    if methods in (_CALL, _OF_DATA) and getattr(owner, "chunkwise", False):
        return ""
    for name in methods:
        if not _home(owner, name).startswith(("jensen.", "pytorch_lightning.")):
            return f"{type(owner).__name__}.{name} is called at every step"
    return ""


def _home(each: object, name: str) -> str:
    """The module of the class that has a method; empty where the object itself has one, as Lightning's
    LambdaCallback. A function's own word, `__module__`, may be another's (`functools.wraps`).
    """
    if name in vars(each):
        return ""
    return next(kind.__module__ for kind in type(each).__mro__ if name in vars(kind))


def count(trainer: Trainer, more: int) -> None:
    """Have Lightning count `more` steps than the one it takes this batch for."""
    loop = trainer.fit_loop.epoch_loop
    step = loop.automatic_optimization.optim_progress.optimizer.step
    for progress in (step.total, step.current):
        progress.ready += more
        progress.completed += more
    for progress in (loop.batch_progress.total, loop.batch_progress.current):
        progress.ready += more
        progress.started += more
        progress.processed += more
        progress.completed += more
    loop._batches_that_stepped += more


@contextmanager
def counting(trainer: Trainer) -> Iterator[Callable[[int], None]]:
    """Amid a chunk, have Lightning count so many steps: a module, or its hook, may ask for
    `global_step`. Afterwards it has counted none, and `count` adds all.
    """
    before = trainer.global_step

    def count_to(taken: int) -> None:
        if more := taken - trainer.global_step:
            count(trainer, more)

    try:
        yield count_to
    finally:
        count_to(before)


def next_lr(trainer: Trainer, taken: int) -> None:
    """Move the learning rate on after a step amid a chunk, as Lightning does after the last: by the
    number of the batch, if a scheduler has a `frequency`.

    taken: the optimiser's steps so far.
    """
    if trainer.lr_scheduler_configs:
        loop = trainer.fit_loop.epoch_loop
        more = taken - trainer.global_step - 1
        loop.batch_progress.current.ready += more
        try:
            loop.update_lr_schedulers("step", update_plateau_schedulers=False)
        finally:
            loop.batch_progress.current.ready -= more
