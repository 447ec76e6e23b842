"""Raising the bound in closed form: expectation-maximisation of a mixture, batch by batch."""

from functools import partial
from typing import Any, cast

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from jensen.algorithm import batches, em_checks, logs
from jensen.algorithm.algorithm import Algorithm
from jensen.algorithm.e_step import e_step
from jensen.algorithm.fate import Fate
from jensen.algorithm.m_step import MStep, Part, Rule, times
from jensen.base.batch import Batch
from jensen.base.schedule import Schedule, as_schedule
from jensen.bound.bound import Inference
from jensen.em.reseed import Reseed
from jensen.em.stream import Statistics
from jensen.family.codes import Codes
from jensen.family.mixture import Mixture, shift
from jensen.model.points import Points
from jensen.model.scored import Scored

_STARTED_ON = 1 << 16  # examples that the start, the origin and the units are chosen from


class EM(Algorithm):
    """Fits a mixture by EM: an E-step a batch, summed over all ranks, and in closed form

        all data    s = sum over the epoch of E[statistics | x], one M-step an epoch
                    (Dempster, Laird & Rubin 1977)
        stepwise    s <- s + gamma_t (N / B sum over the batch - s), gamma_t = (t + 2)^-decay,
                    one M-step a batch (Cappe & Moulines 2009, eq. 14-15)

    where N is the number of training examples, B of those in a batch. It starts where `model.fit`
    on up to 65,536 examples ends: with `max_iter=0`, at its start. Sums are float64, so ranks and
    batch sizes change nothing but rounding, and about one origin, unlike those of `model.fit`: of
    means more than 200,000 deviations from it, or covariances as narrow, digits are lost, variances
    end at 16 D eps times that distance squared, and it says so.

    Args:
        model: the mixture, with its start, prior, seed.
        decay: of stepwise EM, in (0.5, 1]: 1 averages all there was, less forgets. None: all data.
        tolerance: on all data a gain below it, nats per example, is the end. 0: at `max_steps`.
        beta: temperature of deterministic annealing, or a schedule of it.
        weights_first: M-steps at the beginning that change only the weights.
    """

    automatic_optimization = False
    posterior_family = Codes
    model: Any
    origin: Tensor
    average: Tensor
    variance: Tensor

    def __init__(
        self,
        model: Scored,
        decay: float | None = None,
        tolerance: float = 1e-6,
        beta: float | Schedule = 1.0,
        weights_first: int = 0,
    ) -> None:
        super().__init__()
        em_checks.check_em_arguments(model, decay, tolerance, weights_first)
        self.model = model
        self.beta = as_schedule("beta", beta, low=1e-6).double()  # as the mixture's statistics
        self.rule = Rule(decay, tolerance, weights_first, self.beta.end_step)
        self.unused = nn.Parameter(torch.zeros(()))  # DDP wants one that requires a gradient
        self.fate = Fate(model.recipe.seed)
        self._part = Part()  # of the batches since the last M-step

    @property
    def mid_epoch(self) -> bool:
        return self._part.batches > 0

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        data = batches.needed_data(self.trainer, "algorithm=em", "jensen.GMM.fit")
        x = data.sample(_STARTED_ON).flatten(1)
        generator = torch.Generator().manual_seed(self.model.recipe.seed)
        self.model.fit(x)
        survey = Points(self.model.in_order(x)).survey(generator, self.model.recipe.missing)
        self.rule = self.rule._replace(size=data.train_size)
        self.register_buffer("origin", self.model.origin_of(survey), persistent=False)
        self.register_buffer("average", survey.mean, persistent=False)
        self.register_buffer("variance", survey.var, persistent=False)

    def configure_optimizers(self) -> MStep:
        p = self.model.state
        return MStep(tree_leaves(p), self.rule, self.fate)

    def on_fit_start(self) -> None:
        em_checks.check_em_training(self)

    def on_train_start(self) -> None:
        if self.rule.decay is not None and not self._optimiser.memory:
            x = self.trainer.datamodule.sample(_STARTED_ON).to(self.device)
            seen = times(self.rule.size / len(x), self._e_step(x))
            self._optimiser.remember(seen, *self._now)

    def on_train_epoch_start(self) -> None:
        self._part = Part()  # a run that is continued may begin with a part of an epoch

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        stepwise = self.rule.decay is not None
        self._part = self._part.with_batch(self._e_step(batch.x))
        if not stepwise and self._part.batches < self.trainer.num_training_batches:
            return
        seen = self._part.over_ranks(self.trainer.strategy.reduce)
        self._part = Part()
        if stepwise:
            seen = times(self.rule.size / seen.sums[..., 0].sum().item(), seen)
        if not stepwise or self.global_step % self.trainer.log_every_n_steps == 0:
            prior = self.model.belief(self.average, self.variance, self.origin)
            terms = self._optimiser.terms(seen, *self._now, prior)
            if "elbo" in terms:
                self.model.elbo.fill_(terms["elbo"] * self.rule.size)
            self.latest = terms
            logs.write(self.loggers, "train", terms, self.global_step)
        cast(Any, self.optimizers()).step(partial(self._maximise, seen))

    def _maximise(self, seen: Statistics) -> None:
        """The M-step, in place; nothing but `seen`, the parameters and the step goes into it."""
        prior = self.model.belief(self.average, self.variance, self.origin)
        following, done = self._optimiser.maximise(seen, *self._now, prior, self.global_step)
        self.model.assign(shift(following, self.origin.double()))
        if done:
            self.ended_by = "algorithm.tolerance"
            self.trainer.should_stop = True

    def _e_step(self, x: Tensor) -> Statistics:
        points = self.model.in_order(x.flatten(1))
        return e_step(points, self.origin, *self._now, self.model.recipe.missing)

    @property
    def _now(self) -> tuple[Mixture, float]:
        """The mixture about the origin, and the temperature."""
        beta = self.beta(torch.tensor(self.global_step)).item()
        return shift(self.model.state, -self.origin.double()), beta

    @property
    def _optimiser(self) -> MStep:
        return cast(MStep, cast(LightningOptimizer, self.optimizers()).optimizer)

    def look(self, batch: Batch) -> tuple[Inference, dict[str, Tensor]]:
        with torch.autocast(self.device.type, enabled=False):
            bound = self.model.bound(batch.x.flatten(1))
        z = self.model.in_order(batch.x.flatten(1)).double()
        sums = {name: part.double().sum() for name, part in bound._asdict().items()}
        return Inference(bound, Codes(z), z, bound.elbo), sums

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["reseeded"] = [tuple(event) for event in self.fate.reseeded]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.fate.reseeded = [Reseed(*event) for event in checkpoint.get("reseeded", [])]
