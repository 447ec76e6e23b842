"""Raising the bound by gradient: the thin LightningModule of every model that has a loss."""

import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from jensen.core import gaussian
from jensen.core.batch import Batch
from jensen.core.bound import Bound, Inference
from jensen.core.errors import InputError
from jensen.core.gaussian import Gaussian
from jensen.core.random import fold, normal
from jensen.core.schedule import Schedule, as_schedule
from jensen.model.vae import VAE
from jensen.objective.objective import Objective

TERMS = ("loss", "elbo", "distortion", "rate")
MakeOptimizer = Callable[[Iterable[dict[str, Any]]], Optimizer]


class Gradient(LightningModule):
    """Minimises an objective of a model's inference.

    Training, validation and test run the same code on the same loss and differ in the tag; all of them sample z. The noise
    of an example is a function of the seed, the step and the example, so ranks, batches and resumed runs draw the same.

    Args:
        model: the VAE.
        objective: the loss.
        optimizer: parameters to optimiser.
        seed: of the noise.
        lr_scale: times the optimiser's lr; a schedule of it is a warm-up or a decay.
    """

    def __init__(
        self, model: VAE, objective: Objective, optimizer: MakeOptimizer, seed: int, lr_scale: float | Schedule = 1.0
    ) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.optimizer, self.seed = optimizer, seed
        self.lr_scale = as_schedule("lr_scale", lr_scale, low=0)
        self._sums: list[Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        inference = self._infer(batch, fold(self.seed, "noise", self.global_step))
        loss = self.objective(inference, self.step)
        if self.global_step % self.trainer.log_every_n_steps == 0:
            with torch.no_grad():
                terms = _terms(loss, inference.bound) | self.objective.terms(inference, self.step)
                if self.model.prior.rate_is_bound:
                    terms["rate_monte_carlo"] = rate_monte_carlo(inference).mean()
                self._log_step(terms)
        examples = len(batch.row)
        self.model.prior.update(Gaussian(*(part[:examples].detach() for part in inference.posterior)), self.step)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Inference:
        inference = self._infer(batch, fold(self.seed, "evaluation"))
        terms = _terms(self.objective(inference, self.step), inference.bound)
        self._sums.append(torch.stack([*terms.values(), torch.ones_like(inference.z[0, 0])]) * len(batch.row))
        return first_draws(inference, len(batch.row))

    def test_step(self, batch: Batch, batch_idx: int) -> Inference:
        return self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        self._log_epoch("test")

    def _infer(self, batch: Batch, key: int) -> Inference:
        """The model's word on a batch, with the noise of `key`."""
        noise = normal(key, batch.row, (self.objective.samples, self.model.latent_dim))
        return self.model(batch.x, noise.transpose(0, 1).flatten(0, 1))

    @property
    def step(self) -> Tensor:
        """Optimiser steps so far, `()`, filled in on the device without waiting for it."""
        return torch.full((), self.global_step, device=self.device)

    def _log_step(self, terms: dict[str, Tensor]) -> None:
        """Writes the terms, averaged over the ranks, and what the schedules say, in one transfer.

        Straight to the loggers: `self.log` costs more than a small model's step, and Lightning's own count of steps, which it
        would write them under, shifts when a run is continued.
        """
        terms |= {name: schedule(self.step) for name, schedule in self.objective.schedules.items()}
        values = self.trainer.strategy.reduce(torch.stack([*terms.values()]), reduce_op="mean").tolist()
        self._write("train", dict(zip(terms, values, strict=True)))

    def _log_epoch(self, tag: str) -> None:
        """Means over all examples of all ranks, to the loggers and to the callbacks that monitor them."""
        *totals, count = self.trainer.strategy.reduce(torch.stack(self._sums).sum(0), reduce_op="sum")
        self._sums.clear()
        means = {name: total / count for name, total in zip(TERMS, totals, strict=True)}
        self.log_dict({f"{tag}/{name}": mean for name, mean in means.items()}, logger=False)
        self._write(tag, {name: mean.item() for name, mean in means.items()})

    def _write(self, tag: str, terms: dict[str, float]) -> None:
        """Also beta_effective, the beta for which distortion + beta * rate would be this loss, and bits per pixel value."""
        if terms["rate"]:
            terms["beta_effective"] = (terms["loss"] - terms["distortion"]) / terms["rate"]
        if len(shape := self.trainer.datamodule.x_shape) == 3:
            terms["bits_per_dimension"] = -terms["elbo"] / (math.prod(shape) * math.log(2))
        for logger in self.loggers:
            logger.log_metrics({f"{tag}/{name}": value for name, value in terms.items()}, self.global_step)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups: list[dict[str, Any]] = [{"params": [*self.model.parameters()]}]
        if own := [*self.objective.parameters()]:
            groups.append({"params": own, **self.objective.optimizer_options})
        optimizer = self.optimizer(groups)
        if self.lr_scale.end_step == 0:
            return optimizer
        scale = deepcopy(self.lr_scale).cpu()  # asked for a Python number at every step: not from the device
        scheduler = LambdaLR(optimizer, lambda step: scale(torch.tensor(step)).item())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Refuses what could only fail, or mislead, later."""
        trainer = self.trainer
        self.last_step = steps = trainer.estimated_stepping_batches
        self.objective.dataset_size = trainer.datamodule.train_size
        schedules = {f"objective.{name}": schedule for name, schedule in self.objective.schedules.items()}
        for name, schedule in (schedules | {"algorithm.lr_scale": self.lr_scale}).items():
            if schedule.end_step > steps:
                raise InputError(
                    f"{name} changes until step {schedule.end_step} but training ends at step {steps}:"
                    f" lower {name}.steps or raise trainer.max_steps"
                )
        if (warmup := self.model.prior.warmup) >= steps:
            raise InputError(
                f"model.prior.warmup is {warmup} but training ends at step {steps}: lower it or raise trainer.max_steps"
            )
        x = trainer.datamodule.show(256).to(self.device)
        self.model.likelihood.check(x)
        with torch.no_grad():
            shape = self.model.decode(self.model.encode(x[:1]).mean).shape[1:]
        if shape != x.shape[1:]:
            raise InputError(
                f"model.decoder gives shape {list(shape)} for examples of shape {list(x.shape[1:])}: expected the same shape"
            )

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        if self.global_step == self.last_step:
            # So that Lightning validates and keeps the last step, wherever the interval falls.
            self.trainer.should_stop = True


def first_draws(inference: Inference, examples: int) -> Inference:
    """Of an inference with several draws an example, the first of each: `(S B, ...)` to `(B, ...)`."""
    bound, posterior, z, log_prior = inference
    return Inference(
        Bound(*(part[:examples] for part in bound)),
        Gaussian(*(part[:examples] for part in posterior)),
        z[:examples],
        log_prior[:examples],
    )


def rate_monte_carlo(inference: Inference) -> Tensor:
    """log q(z|x) - log p(z) at the sample, `(B,)`, nats: on average the KL, which a rate that is a bound may exceed."""
    return gaussian.log_density(inference.z, inference.posterior).sum(-1) - inference.log_prior


def _terms(loss: Tensor, bound: Bound) -> dict[str, Tensor]:
    """What is always logged, `()` each, means over the batch in nats per example, in the order of `TERMS`."""
    distortion, rate = bound.distortion.mean(), bound.rate.mean()
    return dict(zip(TERMS, (loss, -(distortion + rate), distortion, rate), strict=True))
