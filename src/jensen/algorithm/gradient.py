"""Raising the bound by gradient: the thin LightningModule of every model that has a loss."""

from collections.abc import Callable, Iterable

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from jensen.core.batch import Batch
from jensen.core.bound import Inference
from jensen.core.errors import InputError
from jensen.core.random import fold, normal
from jensen.model.vae import VAE
from jensen.objective.objective import Objective

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


class Gradient(LightningModule):
    """Minimises an objective of a model's inference.

    Training, validation and test run the same code on the same loss and differ in the tag; all of them sample z. The noise
    of an example is a function of the seed, the step and the example, so ranks, batches and resumed runs draw the same.

    Args:
        model: the VAE.
        objective: the loss.
        optimizer: parameters to optimiser.
        seed: of the noise.
    """

    def __init__(
        self, model: VAE, objective: Objective, optimizer: Callable[[Iterable[nn.Parameter]], Optimizer], seed: int
    ) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.optimizer, self.seed = optimizer, seed

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        inference = self.infer(batch, fold(self.seed, "noise", self.global_step))
        loss = self.objective(inference, self.step)
        if (
            self.global_step + 1
        ) % self.trainer.log_every_n_steps == 0:  # a call of self.log costs more than a small model's step
            self._log("train", loss, inference)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Inference:
        return self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Inference:
        return self._evaluate("test", batch)

    def _evaluate(self, tag: str, batch: Batch) -> Inference:
        inference = self.infer(batch, fold(self.seed, "evaluation"))
        self._log(tag, self.objective(inference, self.step), inference)
        return inference

    def infer(self, batch: Batch, key: int) -> Inference:
        """The model's word on a batch, with the noise of `key`."""
        return self.model(batch.x, normal(key, batch.row, (self.model.latent_dim,)))

    @property
    def step(self) -> Tensor:
        """The trainer's step, `()`, filled in on the device without waiting for it."""
        return torch.full((), self.global_step, device=self.device)

    def _log(self, tag: str, loss: Tensor, inference: Inference) -> None:
        bound = inference.bound
        terms = {"loss": loss, "elbo": bound.elbo.mean(), "distortion": bound.distortion.mean(), "rate": bound.rate.mean()}
        if tag == "train":
            terms |= {name: schedule(self.step) for name, schedule in self.objective.schedules.items()}
        self.log_dict(
            {f"{tag}/{name}": term.detach() for name, term in terms.items()}, batch_size=len(bound.rate), sync_dist=True
        )

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer(self.parameters())

    def on_fit_start(self) -> None:
        """Refuses what could only fail, or mislead, later."""
        trainer = self.trainer
        self.last_step = steps = trainer.estimated_stepping_batches
        for name, schedule in self.objective.schedules.items():
            if schedule.end_step > steps:
                raise InputError(
                    f"objective.{name} changes until step {schedule.end_step} but training ends at step {steps}:"
                    f" lower objective.{name}.steps or raise trainer.max_steps"
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
            self.trainer.should_stop = True  # so that Lightning validates, and keeps, the last step wherever the interval falls
