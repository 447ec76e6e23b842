"""Raising the bound by gradient: the thin LightningModule of every model that has a loss."""

from typing import Any

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from jensen.algorithm import batches, checks, finite, fits, logs, optimiser
from jensen.algorithm.accumulated import Accumulated
from jensen.algorithm.calls import Calls
from jensen.algorithm.compiled import Compiled, MakeOutcome
from jensen.algorithm.drive import terms_of
from jensen.algorithm.driven import Driven
from jensen.algorithm.step import (
    Outcome,
    first_draws,
    hold,
    infer,
    loss_of,
    noise_of,
    outcome,
    seed_networks,
)
from jensen.base.batch import Batch
from jensen.base.errors import check_count, check_flag
from jensen.base.random import fold, key
from jensen.base.schedule import Schedule, as_schedule
from jensen.bound.bound import Inference
from jensen.model.vae import VAE
from jensen.objective.objective import Objective


class Gradient(Driven):
    """Minimises an objective of a model's inference.

    Training, validation and test sample z, by noise that is a function of the seed, the step and
    the example, so that ranks, batches and resumed runs draw the same. In a `Trainer` of your own,
    batches are a tensor x, a pair (x, factors) or a dict (`batches.observed`); each is checked.

    Args:
        model, objective: the VAE, and its loss.
        optimizer: parameters to optimiser.
        seed: of the noise.
        lr_scale: times the optimiser's lr; a schedule of it is a warm-up or a decay.
        non_finite: of a loss that is NaN or infinite, `stop` or `skip` (`finite.Stop`, `Skip`).
        skip_limit: so many steps in a row that are left out end the run too.
        steps_per_call: steps that Lightning's loop is asked for at a time, `auto` or a number
            (`chunk`).
        engine: `graph` replays a step on a GPU, `eager` asks for each part of it; `auto` is `graph`
            where it can be (`graph`).
        compile: whether `torch.compile` makes kernels for the step (`compiled`): seconds to minutes at the
            start, for quicker steps of small models.
        encoder_steps: steps of the encoder for one of the decoder, likelihood and prior: variational EM,
            for a posterior that lags behind (He et al. 2019, arXiv 1901.05534). The objective's own
            parameters, and a prior that learns in closed form, go on at every step.
    """

    model: VAE

    def __init__(
        self,
        model: VAE,
        objective: Objective,
        optimizer: optimiser.MakeOptimizer = torch.optim.Adam,
        seed: int = 0,
        lr_scale: float | Schedule = 1.0,
        non_finite: str = "stop",
        skip_limit: int = 100,
        steps_per_call: str | int = "auto",
        engine: str = "auto",
        encoder_steps: int = 1,
        compile: bool = False,  # noqa: A002  # torch's word for it
    ) -> None:
        super().__init__()
        checks.check_arguments(model, objective, optimizer, seed, non_finite, skip_limit)
        check_count("encoder_steps", encoder_steps)
        check_flag("compile", compile)
        self.model = model
        self.objective = objective
        self.optimizer = optimizer
        self.seed = seed
        self.lr_scale = as_schedule("lr_scale", lr_scale, low=0)
        self.finite = finite.Stop(self) if non_finite == "stop" else finite.Skip(self, skip_limit)
        self.posterior_family: type | None = None
        self.encoder_steps = encoder_steps
        self.calls = Calls(self, steps_per_call, engine)
        self.compiled = Compiled(self) if compile else None
        self._terms = logs.StepTerms()
        self._checked_gradients = False
        self._accumulated = Accumulated()

    def setup(self, stage: str) -> None:
        if size := batches.train_size(self.trainer):
            self.objective.dataset_size = size
        if stage == "fit":
            self.calls.plan()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        own = self.observe(batch, batch_idx << 32)
        if self.calls.driven:
            return self.calls.take(own)
        count = self.global_step
        step = self.step
        self.finite.before()
        seed_networks(fold(self.seed, "network", count, batch_idx, self.global_rank), self.device)
        own_key = key(self.seed, "noise", count, device=self.device)
        noise = noise_of(self.model, own.row, own_key, self.objective.samples)
        x = own.x.to(self.dtype)
        loss, inference = self.outcome()(self.model, self.objective, x, noise, step)
        self.finite.watch(loss, inference, own, count)
        if count % self.trainer.log_every_n_steps == 0:
            self.log_terms(terms_of(self, Outcome(loss, inference), step))
        last = not self.trainer.fit_loop._should_accumulate()
        self._accumulated.learn(self.model, inference, len(own.row), step, last)
        return loss

    def outcome(self) -> MakeOutcome:
        """The one that computes the first half of a step, from now until somebody else has had a say."""
        return outcome if self.compiled is None else self.compiled.now()

    def log_terms(self, terms: dict[str, Tensor]) -> None:
        """Keep the terms of a batch for the loggers."""
        self._terms.log(self.trainer, terms, self.x_shape)

    def look(self, batch: Batch) -> tuple[Inference, dict[str, Tensor]]:
        inference = self.infer(batch)
        terms = logs.bound_terms(loss_of(self.objective, inference, self.step), inference.bound)
        count = len(batch.row)
        first = first_draws(inference, count)
        sums = {name: mean * count for name, mean in terms.items()}
        noise = noise_of(self.model, batch.row, key(self.seed, "evaluation", device=self.device))
        more = self.model.held_out_terms(batch.x.to(self.dtype), first, noise)
        return first, sums | {name: each.sum() for name, each in more.items()}

    def infer(self, batch: Batch, step: int | None = None) -> Inference:
        """The model's word on a training batch at a step; without one, on a held-out batch."""
        words = ("evaluation",) if step is None else ("noise", step)
        noise = key(self.seed, *words, device=self.device)
        return infer(self.model, batch.x.to(self.dtype), batch.row, noise, self.objective.samples)

    def still(self, step: int) -> list[nn.Parameter]:
        """The parameters that stay as they are in a step, with so many before it."""
        if (step + 1) % self.encoder_steps == 0:
            return []
        parts = ("decoder", "likelihood", "prior")  # what is shared has the name of the encoder's
        named = self.model.named_parameters()
        return [each for name, each in named if name.partition(".")[0] in parts]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if not self._checked_gradients:
            checks.check_gradients(self)
            self._checked_gradients = True
        hold(self.still(self.global_step))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        made = optimiser.make(self.optimizer, self.model, self.objective)
        return optimiser.scaled(made, self.lr_scale)

    def on_fit_start(self) -> None:
        self._checked_gradients = False
        self._accumulated.begin()
        checks.check_training(self)

    def check_batch(self, batch: Batch) -> None:
        x = batch.x.to(self.dtype)
        if self.posterior_family is None:
            self.posterior_family = fits.check_fit(self.model, self.objective, x[:2])
        self.model.likelihood.check(x)

    def on_train_start(self) -> None:
        batches.validate_by_steps(self.trainer)

    def check_held_out(self, totals: Tensor) -> None:
        self.finite.check_held_out(totals)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.finite.before_saving()
