"""The part of a LightningModule that every algorithm has: batches of any loader, and its word on
the held-out set.
"""

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from jensen.algorithm.batches import observed, own_data
from jensen.algorithm.logs import Means, derived, write
from jensen.algorithm.snapshot import known, snapshot
from jensen.base.batch import Batch
from jensen.bound.bound import Inference
from jensen.diagnostics.snapshot import Snapshot


class Algorithm(LightningModule):
    """A way to raise a model's bound. Abstract. Validation and test run the same code, and differ
    in the tag.

    latest: terms of the last step that was logged, nats per example.
    held_out: sums over the held-out examples so far. x_shape: `event` shape of the last batch.
    mid_epoch: whether batches have been seen that no step has used yet, and a checkpoint does not
        hold (`callbacks.last`).
    ended_by: what ended the training before `trainer.max_steps`, once it has converged
        (`callbacks.end`).
    """

    model: nn.Module
    latest: Mapping[str, float] = MappingProxyType({})
    mid_epoch: bool = False
    ended_by: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.held_out = Means()
        self.x_shape: tuple[int, ...] = ()
        self._evaluated = 0

    @property
    def step(self) -> Tensor:
        """Optimiser steps so far, `()`, filled in on the device without waiting for it."""
        return torch.full((), self.global_step, device=self.device)

    def configure_model(self) -> None:
        """Lightning would convert it after it has loaded a checkpoint, and so load float64 into
        float32.
        """
        self.trainer.precision_plugin.convert_module(self)

    def observe(self, given: Any, first: int) -> Batch:
        """A batch of any loader (`batches.observed`); one of a user's own is checked, since nobody
        has looked at it.
        """
        trainer = self.trainer
        batch = observed(given, first, trainer.global_rank, trainer.world_size)
        self.x_shape = tuple(batch.x.shape[1:])
        if own_data(trainer) is None:
            self.check_batch(batch)
        return batch

    def validation_step(self, batch: Any, batch_idx: int) -> Inference:
        self._evaluated = self._evaluated if batch_idx else 0
        own = self.observe(batch, self._evaluated * self.trainer.world_size)
        count = len(own.row)
        self._evaluated += count
        inference, sums = self.look(own)
        self.held_out.add(sums, count)
        return inference

    def test_step(self, batch: Any, batch_idx: int) -> Inference:
        return self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_held_out("val")

    def on_test_epoch_end(self) -> None:
        self._log_held_out("test")

    def _log_held_out(self, tag: str) -> None:
        """Means over all examples of all ranks, to the callbacks that monitor them and to the
        loggers.
        """
        totals = self.held_out.totals(self.trainer.strategy.reduce)
        self.check_held_out(totals)
        means = self.held_out.take(totals)
        self.log_dict({f"{tag}/{name}": mean for name, mean in means.items()}, logger=False)
        count = getattr(getattr(self.model, "likelihood", None), "symbols", None)
        symbols = count(self.x_shape) if count is not None else 0
        terms = derived({name: mean.item() for name, mean in means.items()}, self.x_shape, symbols)
        write(self.loggers, tag, terms, self.global_step)

    @torch.no_grad()
    def held_out_names(self, x: Tensor) -> list[str]:
        """The names of the means that a validation logs, by a look at `x` `(1, *event)` that leaves no
        trace.
        """
        dtype: Any = self.dtype
        x = x.to(self.device, dtype)
        none = torch.zeros(1, 0, dtype=torch.int64, device=x.device)
        training = [part for part in self.modules() if part.training]
        self.eval()
        try:
            _, sums = self.look(Batch(x, none, none.new_zeros(1)))
        finally:
            for part in training:
                part.training = True
        means = Means()
        means.add(sums, 1)
        return [*means.take(means.totals(lambda sums, **_: sums))]

    def check_batch(self, batch: Batch) -> None:
        """Refuse a batch of a user's own loader."""

    def check_held_out(self, totals: Tensor) -> None:
        """Refuse sums of a validation, the same on all ranks."""

    @abstractmethod
    def look(self, batch: Batch) -> tuple[Inference, dict[str, Tensor]]:
        """The inference of each held-out example, and sums over them, `()` each, nats: distortion
        and rate at least.
        """

    def known(self, images: Tensor) -> dict[str, Any]:
        """The part of a snapshot that is there before any example is encoded."""
        return known(self.model, images)

    def snapshot(
        self, inference: Inference, factors: Tensor, names: tuple[str, ...], images: Tensor
    ) -> Snapshot:
        """The model's word on the held-out set, for the diagnostics."""
        self.check_held_out(torch.stack([*inference.bound]))
        return snapshot(self.model, inference, factors, names, images)
