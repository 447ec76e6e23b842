"""Raising the bound by gradient: the thin LightningModule of every model that has a loss.

A step whose loss is NaN or infinite ends the run, or is left out (`non_finite`). What it was is in `non_finite.json` in the
run's folder. The same command again comes to the same step, and with `trainer.max_steps` at that step it ends just before
it; then its batch can be looked at:

    facts = json.loads(Path(run, "non_finite.json").read_text())
    algorithm, step = jensen.run.load.restored(run)
    data = instantiate(jensen.run.load.configuration(run).data)
    inference = algorithm.infer(data.batch(facts["rows"], facts["step"]), facts["step"])

A held-out loss that is not finite ends the run too; then `held_out_rows` in the file are rows of the held-out set.
"""

import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from jensen.algorithm.checks import check_objective, check_precision, check_shapes, check_stated
from jensen.algorithm.finite import FirstSteps, first_module, not_finite, record
from jensen.base.batch import Batch
from jensen.base.errors import InputError, check_choice, check_count, check_seed
from jensen.base.random import fold, normal
from jensen.base.ranks import gather_rows
from jensen.base.schedule import Schedule, as_schedule
from jensen.base.tree import tree_map
from jensen.bound.bound import Bound, Inference
from jensen.bound.divergence import latent_rates
from jensen.diagnostics.snapshot import Snapshot
from jensen.family.draw import draw as draws_of
from jensen.model.vae import VAE
from jensen.objective.objective import Objective

TERMS = ("loss", "elbo", "distortion", "rate")
NON_FINITE = ("stop", "skip")
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
        non_finite: what a loss does that is NaN or infinite. `stop` ends the run: at that step on one CPU, elsewhere at the
            next that is logged, since to ask is to wait for the device. `skip` leaves the step out, with all its changes of
            state; so does a gradient that is not finite. It asks after every step. A held-out loss ends the run in any case.
        skip_limit: so many steps in a row that are left out end the run too.
    """

    skipped_steps: Tensor
    skipped_in_a_row: Tensor

    def __init__(
        self,
        model: VAE,
        objective: Objective,
        optimizer: MakeOptimizer,
        seed: int,
        lr_scale: float | Schedule = 1.0,
        non_finite: str = "stop",
        skip_limit: int = 100,
    ) -> None:
        super().__init__()
        check_choice("non_finite", non_finite, NON_FINITE)
        check_count("skip_limit", skip_limit)
        check_seed("seed", seed)
        if not isinstance(model, VAE):
            raise InputError(f"model is a {type(model).__name__}: expected a VAE, such as model=conv; algorithm=em takes a GMM")
        if not isinstance(objective, Objective):
            raise InputError(f"objective is {objective!r}: expected an objective, such as objective=beta")
        if not callable(optimizer):
            raise InputError(f"optimizer is {optimizer!r}: expected what makes one of parameters, such as optimizer=adam")
        self.non_finite, self.skip_limit = non_finite, skip_limit
        if non_finite == "skip":
            self.register_buffer("skipped_steps", torch.tensor(0))
            self.register_buffer("skipped_in_a_row", torch.tensor(0))
        self.model, self.objective = model, objective
        self.optimizer, self.seed = optimizer, seed
        self.lr_scale = as_schedule("lr_scale", lr_scale, low=0)
        self._sums: list[Tensor] = []
        self._terms: list[dict[str, Tensor]] = []
        self.posterior_family: type | None = None
        self._watched = FirstSteps()
        self._before: list[Tensor] = []
        self._fitting = False

    def setup(self, stage: str) -> None:
        self.objective.dataset_size = self.trainer.datamodule.train_size

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        step, last_batch = self.global_step, not self.trainer.fit_loop._should_accumulate()
        self._seed_networks(step, batch_idx)
        if self.non_finite == "skip" and not self._before:
            self._before = [tensor.clone() for tensor in self._changed_by_a_loss()]
        inference = self.infer(batch, step)
        loss = self._loss(inference)
        self._watch(loss, inference, batch)
        if step % self.trainer.log_every_n_steps == 0:
            self._terms.append(self._all_terms(loss, inference))
            if last_batch:
                self._log_step()
        examples = len(batch.row)
        self.model.prior.update(tree_map(lambda part: part[:examples].detach(), inference.posterior), self.step)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Inference:
        inference = self._infer(batch, fold(self.seed, "evaluation"))
        terms = _terms(self._loss(inference), inference.bound)
        self._sums.append(torch.stack([*terms.values(), torch.ones_like(inference.z[0, 0])]) * len(batch.row))
        return first_draws(inference, len(batch.row))

    def test_step(self, batch: Batch, batch_idx: int) -> Inference:
        return self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        self._log_epoch("test")

    def _seed_networks(self, step: int, batch_idx: int) -> None:
        """Sets torch's own generators, that dropout and the like draw from. Not by torch.manual_seed, which takes 90 us."""
        key = fold(self.seed, "network", step, batch_idx, self.global_rank)
        torch.default_generator.manual_seed(key)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(key)

    def infer(self, batch: Batch, step: int) -> Inference:
        """The model's word on a training batch at a step."""
        return self._infer(batch, fold(self.seed, "noise", step))

    def _loss(self, inference: Inference) -> Tensor:
        """`()`, in the precision of the inference: half precision is for networks."""
        with torch.autocast(self.device.type, enabled=False):
            return self.objective(inference, self.step)

    def _infer(self, batch: Batch, key: int) -> Inference:
        """The model's word on a batch, with the noise of `key`."""
        noise = normal(key, batch.row, (self.objective.samples, self.model.latent_dim))
        return self.model(batch.x.to(self.dtype), noise.transpose(0, 1).flatten(0, 1))

    def snapshot(self, inference: Inference, factors: Tensor, names: tuple[str, ...], images: Tensor) -> Snapshot:
        """What the model says of the held-out set, for the diagnostics."""
        model = self.model
        self._check_held_out(torch.stack([*inference.bound]))
        latent_rate = latent_rates(inference.posterior, model.prior.distribution())

        def draw(count: int) -> Tensor:
            index = torch.arange(count, device=self.device)
            z = draws_of(model.prior.distribution(), fold(0, "samples"), index, model.latent_dim)
            return z.to(self.dtype)

        return Snapshot(
            bound=inference.bound,
            posterior=inference.posterior,
            z=inference.z,
            log_prior=inference.log_prior,
            latent_rate=torch.full_like(inference.z, torch.nan) if latent_rate is None else latent_rate,
            factors=factors,
            names=names,
            images=images.to(self.dtype),
            draw=draw,
            **self.known(images),
        )

    def known(self, images: Tensor) -> dict[str, Any]:
        """The part of a snapshot that is there before any example is encoded."""
        model = self.model
        return {"encode": model.encode, "decode": model.decode, "infer": model, "prior": model.prior.distribution()}

    @property
    def step(self) -> Tensor:
        """Optimiser steps so far, `()`, filled in on the device without waiting for it."""
        return torch.full((), self.global_step, device=self.device)

    @torch.no_grad()
    def _all_terms(self, loss: Tensor, inference: Inference) -> dict[str, Tensor]:
        """What a training step logs of a batch, `()` each."""
        with torch.autocast(self.device.type, enabled=False):
            terms = _terms(loss, inference.bound) | self.objective.terms(inference, self.step)
        if self.model.prior.rate_is_bound:
            terms["rate_monte_carlo"] = rate_monte_carlo(inference).mean()
        if self.non_finite == "skip":
            terms["skipped_steps"] = self.skipped_steps.to(loss.dtype)
        return terms | {name: schedule(self.step) for name, schedule in self.objective.schedules.items()}

    def _log_step(self) -> None:
        """Writes the terms of a step, averaged over its batches and the ranks, in one transfer.

        Straight to the loggers: `self.log` costs more than a small model's step, and Lightning's own count of steps, which it
        would write them under, shifts when a run is continued.
        """
        batches, self._terms = self._terms, []
        mean = torch.stack([torch.stack([*terms.values()]) for terms in batches]).mean(0)
        values = self.trainer.strategy.reduce(mean, reduce_op="mean").tolist()
        self._write("train", dict(zip(batches[0], values, strict=True)))

    def _log_epoch(self, tag: str) -> None:
        """Means over all examples of all ranks, to the loggers and to the callbacks that monitor them."""
        *totals, count = sums = self.trainer.strategy.reduce(torch.stack(self._sums).sum(0), reduce_op="sum")
        self._check_held_out(sums)
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

    def configure_model(self) -> None:
        """Lightning would convert it after it has loaded a checkpoint, and so load float64 into float32."""
        self.trainer.precision_plugin.convert_module(self)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups: list[dict[str, Any]] = [{"params": [*self.model.parameters()]}]
        if own := [*self.objective.parameters()]:
            groups.append({"params": own, **self.objective.optimizer_options})
        try:
            optimizer = self.optimizer(groups)
        except (TypeError, ValueError) as error:
            raise InputError(f"optimizer cannot be made ({error}): expected settings that it takes; change that one") from error
        if self.lr_scale.bounds == (1, 1):
            return optimizer
        scale = deepcopy(self.lr_scale).cpu()  # asked for a Python number at every step: not from the device
        scheduler = LambdaLR(optimizer, lambda step: scale(torch.tensor(step)).item())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Refuses what could only fail, or mislead, later."""
        trainer, self._fitting = self.trainer, True
        check_precision(trainer.precision)
        if not trainer.datamodule.shuffle:
            raise InputError("data.shuffle is false: expected true, since training by gradient is continued amid an epoch")
        steps = trainer.estimated_stepping_batches
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
        trainer.datamodule.check_values(lambda x: self.model.likelihood.check(x.to(self.device, self.dtype)))
        x = trainer.datamodule.show(2).to(self.device, self.dtype)
        model = self.model
        parts = {f"model.{name}": part for name, part in model.named_children()} | {"objective": self.objective}
        check_stated(parts, model.latent_dim, tuple(x.shape[1:]))
        self.eval()  # a look leaves no trace in running statistics
        check_shapes(model, x)
        one = Batch(x[:1], torch.empty(1, 0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64, device=self.device))
        with torch.no_grad():
            inference = self.infer(one, 0)
        check_objective(self.objective, model, inference, self.step)
        self.posterior_family = type(inference.posterior)
        self.train()

    def on_fit_end(self) -> None:
        self._fitting = False

    def on_train_start(self) -> None:
        trainer = self.trainer
        self._asks_always = trainer.world_size == 1 and self.device.type == "cpu"
        if trainer.check_val_every_n_epoch is None and trainer.val_check_batch is not None:
            trainer.val_check_batch *= trainer.accumulate_grad_batches  # of batches; val_check_interval is of steps

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Optimizer, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        assert optimizer_closure is not None
        if self.non_finite == "stop":
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
            return
        result, before = optimizer_closure(), self._before
        self._before = []
        if self._finite():
            self.skipped_in_a_row.zero_()
            super().optimizer_step(epoch, batch_idx, optimizer, lambda: result)
            return
        with torch.no_grad():
            for tensor, value in zip(self._changed_by_a_loss(), before, strict=True):
                tensor.copy_(value)
            self.skipped_steps += 1
            self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= self.skip_limit:
            self._record({"step": self.global_step, "rows": self.trainer.datamodule.rows(self.global_step)})
            raise InputError(
                f"training stopped at step {self.global_step}, the last of {self.skip_limit} in a row whose loss or gradient is"
                f" NaN or infinite (algorithm.skip_limit): {self._report} names its batch; lower optimizer.lr or set"
                " trainer.gradient_clip_val"
            )

    # ---- losses that are not finite -----------------------------------------------------------

    def _changed_by_a_loss(self) -> list[Tensor]:
        """What a training step may change before its gradient does: controllers, running means, moments."""
        return [*self.buffers(), *self.model.prior.parameters()]

    def _finite(self) -> bool:
        """Whether the losses of this step, on all ranks, and their gradient are. Half precision's scaler judges its own."""
        finite = self._watched.take(self._least) is None
        if getattr(self.trainer.precision_plugin, "scaler", None) is None:
            gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
            finite = finite and bool(torch.nn.utils.get_total_norm(gradients).isfinite())
        return finite

    def _least(self, steps: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(steps, reduce_op="min")

    def _watch(self, loss: Tensor, inference: Inference, batch: Batch) -> None:
        """Ends the run at a loss that is not finite, where asking is free or is done anyway."""
        stops = self.non_finite == "stop"
        if stops and self._asks_always and bool(loss.isfinite()):
            return
        values = torch.stack([loss, *(part.mean() for part in inference.bound)])
        self._watched.watch(values, self.global_step)
        if stops and (self._asks_always or self.global_step % self.trainer.log_every_n_steps == 0):
            self._end_if_not_finite(batch, inference)

    def _end_if_not_finite(self, batch: Batch | None = None, inference: Inference | None = None) -> None:
        """On all ranks. `batch` and `inference` are those of the step that is under way."""
        found = self._watched.take(self._least)
        if found is None:
            return
        step, places = found
        terms = [("loss", *Bound._fields)[place] for place in places]
        module, now = None, self.global_step
        parameters = not_finite(dict(self.named_parameters()))
        if step == now and batch is not None and inference is not None:
            terms += not_finite(self.objective.terms(inference, self.step))
            module = self._of_any_rank(None if parameters else first_module(self, partial(self.infer, batch, step)))
        facts = {"step": step, "terms": terms, "module": module, "parameters": parameters}
        self._record(facts | {"rows": self.trainer.datamodule.rows(step)})
        if module:
            where = f" first in the output of {module}"
        elif step < now:
            where = f" as was found at step {now}; trainer.log_every_n_steps=1 finds the module"
        elif parameters:
            where = f" because {parameters[0]} is, after the update before"
        else:
            where = " though the output of every module is finite"
        raise InputError(
            f"training stopped at step {step}, where {' and '.join(terms)} became NaN or infinite,{where}: {self._report} names"
            " its batch, and the last checkpoint, which is from before, is kept; lower optimizer.lr, set"
            " trainer.gradient_clip_val or algorithm.non_finite=skip"
        )

    def _check_held_out(self, values: Tensor) -> None:
        """Ends training at `values`, the same on all ranks, of a validation that are not finite."""
        if self._fitting and not bool(values.isfinite().all()):
            self._end_at_held_out()

    def _end_at_held_out(self) -> NoReturn:
        finite = torch.stack(self._sums).isfinite().all(1).tolist()
        rows, module = torch.empty(0, dtype=torch.long, device=self.device), None
        if not all(finite):
            loader = islice(self.trainer.datamodule.val_dataloader(), finite.index(False), None)
            batch = self.trainer.strategy.batch_to_device(next(loader))
            infer = partial(self._infer, batch, fold(self.seed, "evaluation"))
            with torch.no_grad():
                bound = infer().bound
            rows = batch.row[~(bound.distortion + bound.rate).isfinite()[: len(batch.row)]]
            module = first_module(self, infer)
        module, rows = self._of_any_rank(module), gather_rows(rows)
        parameters = not_finite(dict(self.named_parameters()))
        self._record({"step": self.global_step, "module": module, "parameters": parameters, "held_out_rows": rows.tolist()})
        where = f", because {parameters[0]} is" if parameters else f", first in the output of {module}" if module else ""
        raise InputError(
            f"the held-out loss is NaN or infinite after step {self.global_step}{where}: {self._report} names the examples, and"
            " the last checkpoint is kept; mend them, lower optimizer.lr or set trainer.gradient_clip_val"
        )

    @property
    def _report(self) -> Path:
        return Path(self.trainer.default_root_dir) / "non_finite.json"

    def _record(self, facts: dict[str, Any]) -> None:
        if self.trainer.is_global_zero:
            record(self._report, facts | {"seed": self.seed})

    def _of_any_rank(self, module: str | None) -> str | None:
        """The module that a rank has named; None if none has."""
        names: list[str | None] = [*(name for name, _ in self.named_modules()), None]
        return names[int(self._least(torch.tensor(names.index(module), device=self.device)))]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the checkpoints that are there rather than save parameters that are not finite."""
        if self.non_finite == "stop":
            self._end_if_not_finite()
        if names := not_finite(dict(self.named_parameters())):
            raise InputError(
                f"{names[0]} is NaN or infinite after step {self.global_step}: expected finite parameters to save, so the last"
                " checkpoint is kept; lower optimizer.lr or set trainer.gradient_clip_val"
            )


def first_draws(inference: Inference, examples: int) -> Inference:
    """Of an inference with several draws an example, the first of each: `(S B, ...)` to `(B, ...)`."""
    return tree_map(lambda part: part[:examples], inference)


def rate_monte_carlo(inference: Inference) -> Tensor:
    """log q(z|x) - log p(z) at the sample, `(B,)`, nats: on average the KL, which a rate that is a bound may exceed."""
    return inference.log_posterior - inference.log_prior


def _terms(loss: Tensor, bound: Bound) -> dict[str, Tensor]:
    """What is always logged, `()` each, means over the batch in nats per example, in the order of `TERMS`."""
    distortion, rate = bound.distortion.mean(), bound.rate.mean()
    return dict(zip(TERMS, (loss, -(distortion + rate), distortion, rate), strict=True))
