"""Raising the bound in closed form: expectation-maximisation of a mixture, batch by batch."""

from functools import partial
from numbers import Real
from typing import Any, cast

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from jensen.algorithm.checks import check_precision
from jensen.base.batch import Batch
from jensen.base.errors import InputError, check_count, check_number
from jensen.base.random import fold
from jensen.base.schedule import Schedule, as_schedule
from jensen.base.tree import tree_map
from jensen.bound.bound import Bound, Inference
from jensen.diagnostics.snapshot import Snapshot
from jensen.em import local
from jensen.em.missing import expect
from jensen.em.reseed import Reseed, lost, reseed
from jensen.em.steps import log_prior, m_step
from jensen.em.stream import Statistics, Stream, coefficients, expected_log_joint, moments
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture, shift
from jensen.model.fate import logger
from jensen.model.gmm import GMM
from jensen.model.points import Points

_STARTED_ON = 1 << 16
"""Examples that the start is chosen from, and whose mean and variances are the origin and the units."""

_LOOK = 8
"""M-steps between two looks for components that are empty or collapsed."""


class Maximise(Optimizer):
    """M-steps as an optimiser's: counted, continued and saved like any other's. Its state is what they are made of."""

    def __init__(self, parameters: list[Tensor]) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any) -> None:
        closure()


class EM(LightningModule):
    """Fits a mixture by EM: an E-step a batch, summed over all ranks, and in closed form

        all data    s = sum over the epoch of E[statistics | x], one M-step an epoch (Dempster, Laird & Rubin 1977)
        stepwise    s <- s + gamma_t (N / B sum over the batch - s), gamma_t = (t + 2)^-decay, one M-step a batch
                    (Cappe & Moulines 2009, eq. 14-15)

    where N is the number of training examples, B of those in a batch. Sums are float64, so ranks and batch sizes change
    nothing but rounding. Those are about one origin, unlike those of `model.fit`: of components whose means lie more than
    200,000 of their deviations from it, or whose covariances are as narrow, covariances lose digits, and no variance is less
    than 16 D eps times the square of that distance; training says so. It starts where `model.fit` on up to 65,536 of the
    examples ends: with `max_iter=0`, at its start.

    Args:
        model: the mixture, with its start, prior, seed.
        decay: None for all data, or of the step size of stepwise EM, in (0.5, 1]: 1 averages all there was, less forgets.
        tolerance: all data: training ends when an M-step gains less than this many nats per example. 0: at `max_steps`.
        beta: temperature of deterministic annealing, or a schedule of it.
        weights_first: M-steps at the beginning that change only the weights.
    """

    automatic_optimization = False
    ended_by = ""
    """What ended the training (`callbacks.end`), once it has converged."""
    origin: Tensor
    variance: Tensor

    def __init__(
        self,
        model: GMM,
        decay: float | None = None,
        tolerance: float = 1e-6,
        beta: float | Schedule = 1.0,
        weights_first: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(model, GMM):
            raise InputError(f"model is a {type(model).__name__}: expected a GMM, model=gmm; algorithm=gradient takes a VAE")
        if decay is not None and (isinstance(decay, bool) or not isinstance(decay, Real) or not 0.5 < decay <= 1):
            raise InputError(f"decay is {decay!r}: expected a number above 0.5 and at most 1, or null for EM on all data")
        check_number("tolerance", tolerance, low=0)
        check_count("weights_first", weights_first, least=0)
        self.model, self.decay, self.tolerance, self.weights_first = model, decay, tolerance, weights_first
        self.beta = as_schedule("beta", beta, low=1e-6).double()  # as the mixture and its statistics
        self.unused = nn.Parameter(torch.zeros(()))  # DDP refuses a module without parameters that require a gradient
        self.reseeded: list[Reseed] = []
        self._seen: Statistics | None = None  # of the batches since the last M-step
        self._batches = 0
        self._sums: list[Tensor] = []
        self._told_of_rounding = False

    # ---- the start ------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        x = self.trainer.datamodule.sample(_STARTED_ON).flatten(1)
        survey = Points(x).survey(torch.Generator().manual_seed(self.model.recipe.seed), self.model.recipe.missing)
        self.model.fit(x)
        self.register_buffer("origin", survey.mean.to(survey.dtype), persistent=False)
        self.register_buffer("variance", survey.var, persistent=False)

    def configure_model(self) -> None:
        """Lightning would convert it after it has loaded a checkpoint, and so load float64 into float32."""
        self.trainer.precision_plugin.convert_module(self)

    def configure_optimizers(self) -> Optimizer:
        p = self.model.mixture
        return Maximise([p.log_weight, *p.components])

    def on_fit_start(self) -> None:
        data, trainer = self.trainer.datamodule, self.trainer
        check_precision(trainer.precision)
        self.size = data.train_size
        data.check_values(self._check)
        if self.decay is None:
            self._check_epochs()
        if self.beta.end_step > trainer.max_steps > 0:
            raise InputError(
                f"algorithm.beta changes until step {self.beta.end_step} but training ends at step {trainer.max_steps}:"
                " lower algorithm.beta.steps or raise trainer.max_steps"
            )

    def _check_epochs(self) -> None:
        """Refuse what cuts an epoch, or looks at an example twice in one, by EM on all data."""
        data, trainer = self.trainer.datamodule, self.trainer
        interval, epochs = trainer.val_check_interval, trainer.check_val_every_n_epoch
        settings = {
            "data.shuffle": (data.shuffle, False, not data.shuffle),
            "trainer.check_val_every_n_epoch": (epochs, "a number", epochs is not None),
            "trainer.val_check_interval": (interval, 1.0, interval == 1.0),
        }
        for key, (found, expected, fits) in settings.items():
            if not fits:
                raise InputError(
                    f"{key} is {found}: expected {expected}, since EM on all data counts every example once an epoch and is"
                    " validated between epochs; set trainer.check_val_every_n_epoch, of M-steps, to validate more often or less"
                )

    def _check(self, x: Tensor) -> None:
        """Refuse what no mixture is a density of, of held-out examples too."""
        bad = x.isinf() if self.model.recipe.missing else ~x.isfinite()
        if bool(bad.any()):
            raise InputError(
                f"the data hold {x[bad][0]:g}: expected finite numbers; remove those examples, or set model.missing=true to"
                " marginalise NaN"
            )

    def on_train_start(self) -> None:
        if self.decay is not None and not self._state:
            x = self.trainer.datamodule.sample(_STARTED_ON).to(self.device)
            self._remember(_times(self.size / len(x), self._expect(x)))

    # ---- training -------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        self._seen, self._batches = None, 0  # a run that is continued may begin with a part of an epoch

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        own = self._expect(batch.x)
        self._seen = own if self._seen is None else Statistics(*map(torch.add, self._seen, own))
        self._batches += 1
        if self.decay is None and self._batches < self.trainer.num_training_batches:
            return
        seen = Statistics(*(self.trainer.strategy.reduce(sums.contiguous(), reduce_op="sum") for sums in self._seen))
        self._seen, self._batches = None, 0
        if self.decay is not None:
            seen = _times(self.size / seen.sums[..., 0].sum().item(), seen)
        self._log(seen)
        cast(LightningOptimizer, self.optimizers()).step(partial(self._maximise, seen))

    @property
    def amid_step(self) -> bool:
        """Whether E-steps have been made that no M-step has used yet: a checkpoint does not hold them."""
        return self._batches > 0

    def _maximise(self, seen: Statistics) -> None:
        """The M-step, in place; nothing but `seen`, the parameters and the step goes into it."""
        step, p = self.global_step, shift(self.model.mixture, -self.origin.double())
        if step % _LOOK == 0:
            self._tell_of_rounding(p)
        prior = self.model.recipe.pseudo_counts(self.variance, self.origin, shared=True)
        objective = seen.log_likelihood + log_prior(p, prior)
        done = (  # rounding loses nats too, which is no end where no tolerance is set
            self.decay is None
            and self.tolerance > 0
            and bool(self._state)
            and (objective - self._state["objective"]).item() < self.tolerance * self.size
        )
        done = done and step > max(self.beta.end_step, self.weights_first)
        if self.decay is not None:
            gamma = (step + 2) ** -self.decay
            before = Statistics(*(self._state[name] for name in Statistics._fields))
            seen = Statistics(*(old + gamma * (new - old) for old, new in zip(before, seen, strict=True)))
        following = m_step(p, moments(p, seen), prior)
        if done or step % _LOOK == _LOOK - 1:
            following, anew = self._reseed(following, seen, step)
            done = done and not anew
        self._remember(seen, objective)
        if step < self.weights_first:
            following = following._replace(components=p.components)
        self.model.assign(shift(following, self.origin.double()))
        if done:
            self.ended_by = "algorithm.tolerance"
            self.trainer.should_stop = True

    def _tell_of_rounding(self, p: Mixture) -> None:
        """Warn, once, of components so narrow or so far from the origin that sums about it lose their covariances."""
        if self._told_of_rounding or not local.needed(p, coefficients(p)):
            return
        self._told_of_rounding = True
        variance = p.components.marginals().log_var.exp()
        farthest = (p.components.mean.square() / variance).amax().sqrt().item()
        logger.warning(
            "components lie up to %.2g of their deviations from the origin, or their covariances are nearly singular:"
            " algorithm=em has sums about one origin, so those covariances lose digits, or end at the floor of rounding;"
            " jensen.GMM.fit, which takes deviations from each mean, keeps them",
            farthest,
        )

    def _reseed(self, p: Mixture, seen: Statistics, step: int) -> tuple[Mixture, bool]:
        """Starts components without points, or on the covariance floor, anew; not more often than three times each."""
        recipe = self.model.recipe
        one = tree_map(lambda part: part[None], p)
        prior = recipe.pseudo_counts(self.variance, self.origin, shared=True)
        found = lost(one, tree_map(lambda part: part[None], seen), 0.5, prior)
        gone = found[: 3 * recipe.components - len(self.reseeded)]
        if not gone:
            return p, False
        for row, component, reason in gone:
            self.reseeded.append(Reseed(step + 1, row, component, reason))
            logger.warning("component %d was %s after step %d and was seeded anew", component, reason, step)
        generator = torch.Generator().manual_seed(fold(recipe.seed, "reseed", step) % (1 << 63))
        return tree_map(lambda part: part[0], reseed(one, gone, generator)), True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["reseeded"] = [tuple(event) for event in self.reseeded]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.reseeded = [Reseed(*event) for event in checkpoint.get("reseeded", [])]

    def _expect(self, x: Tensor) -> Statistics:
        """The E-step of some examples, about the origin."""
        x, p, beta = x.flatten(1), shift(self.model.mixture, -self.origin.double()), self._beta
        if not self.model.recipe.missing and not bool(x.isfinite().all()):
            raise InputError(
                "a batch of x holds NaN or inf: expected finite numbers; set model.missing=true to marginalise NaN"
            )
        with torch.autocast(self.device.type, enabled=False):
            if self.model.recipe.missing:
                return expect(lambda size: ((part, None) for part in x.split(size)), self.origin, p, beta)
            return Stream(lambda size: ((part, None) for part in x.split(size)), 0, self.origin)(p, beta=beta)

    @property
    def _beta(self) -> float:
        return self.beta(torch.tensor(self.global_step)).item()

    @property
    def _state(self) -> dict[str, Tensor]:
        """What the last M-step was made of: the fields of its `Statistics`, their entropy, and the objective before it."""
        optimizer = cast(LightningOptimizer, self.optimizers())
        return optimizer.state[optimizer.param_groups[0]["params"][0]]

    def _remember(self, seen: Statistics, objective: Tensor | None = None) -> None:
        p = shift(self.model.mixture, -self.origin.double())
        own = expected_log_joint(p, coefficients(p, self._beta), seen, self._beta)
        objective = seen.log_likelihood if objective is None else objective
        self._state.update(seen._asdict(), entropy=(seen.log_likelihood - own) / self._beta, objective=objective)

    def _log(self, seen: Statistics) -> None:
        """Writes what the E-step says of the parameters; on all data also how the last M-step raised the bound to them.

        The log-likelihood of a batch in stepwise EM is that of its examples, as if they were all there are.
        """
        every = 1 if self.decay is None else self.trainer.log_every_n_steps
        if self.global_step % every:
            return
        terms = {"log_likelihood": seen.log_likelihood}
        if self.decay is None and self._state:
            p, beta, state = shift(self.model.mixture, -self.origin.double()), self._beta, self._state
            before = Statistics(*(state[name] for name in Statistics._fields))
            q = expected_log_joint(p, coefficients(p, beta), before, beta)
            bound = q + beta * state["entropy"]
            terms |= {"q": q, "entropy": state["entropy"], "bound": bound, "gap": seen.log_likelihood - bound}
        values = {f"train/{name}": value.item() / self.size for name, value in terms.items()}
        if self.beta.end_step:
            values["train/beta"] = self._beta
        for each in self.loggers:
            each.log_metrics(values, self.global_step)

    # ---- held-out -------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> Inference:
        x = batch.x.flatten(1)
        with torch.autocast(self.device.type, enabled=False):
            bound = self.model.bound(x)
        self._sums.append(torch.stack([*(part.double().sum() for part in bound), torch.tensor(len(x)).to(bound.rate.double())]))
        x = x.double()
        return Inference(bound, Gaussian(x, torch.full_like(x, torch.nan)), x, bound.elbo)

    def test_step(self, batch: Batch, batch_idx: int) -> Inference:
        return self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        self._log_epoch("test")

    def _log_epoch(self, tag: str) -> None:
        """Means over all held-out examples; the bound is tight there, so the elbo is the log-likelihood."""
        distortion, rate, count = self.trainer.strategy.reduce(torch.stack(self._sums).sum(0), reduce_op="sum")
        self._sums.clear()
        bound = Bound(distortion / count, rate / count)
        values = {"elbo": bound.elbo, "distortion": bound.distortion, "rate": bound.rate}
        self.log_dict({f"{tag}/{name}": value for name, value in values.items()}, logger=False)
        for each in self.loggers:
            each.log_metrics({f"{tag}/{name}": value.item() for name, value in values.items()}, self.global_step)

    def snapshot(self, inference: Inference, factors: Tensor, names: tuple[str, ...], images: Tensor) -> Snapshot:
        """The points are their own codes, without uncertainty; the mixture is what a VAE's prior would be."""
        return Snapshot(
            bound=inference.bound,
            posterior=inference.posterior,
            z=inference.z,
            log_prior=inference.log_prior,
            latent_rate=(inference.z - inference.z.mean(0)).square(),  # points have no rate: pictures go by variance
            factors=factors,
            names=names,
            images=images,
            draw=self.model.sample,
            **self.known(images),
        )

    def known(self, images: Tensor) -> dict[str, Any]:
        """The part of a snapshot that is there before any example is encoded."""
        event = images.shape[1:]

        def encode(x: Tensor) -> Gaussian:
            return Gaussian(x.flatten(1), torch.full_like(x.flatten(1), torch.nan))

        def infer(x: Tensor, noise: Tensor) -> Inference:
            bound = self.model.bound(x.flatten(1))
            return Inference(bound, encode(x), x.flatten(1), bound.elbo)

        return {"encode": encode, "decode": lambda z: z.unflatten(1, event), "infer": infer, "prior": self.model.mixture}


def _times(factor: float, s: Statistics) -> Statistics:
    return Statistics(*(factor * field for field in s))
