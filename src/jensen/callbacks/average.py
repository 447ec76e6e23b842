"""The mean of a model's weights over the steps, in the place of the last ones."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import Parameter

from jensen.base.errors import InputError, check_count, check_number

Weights = dict[str, Tensor]


class Average(Callback):
    """Validates, tests and keeps a mean of the weights; training goes on with the weights
    themselves.

        mean  <-  mean + max(1 - decay, 9 / (9 + n)) (weights - mean)     at the n-th step of it: EMA
        mean  <-  mean + 1 / n (weights - mean)                           decay None: the plain mean, SWA

    The first is exponential, short of memory at the beginning, where the weights are far off; the
    second is that of Izmailov et al. 2018, here at whatever learning rate `algorithm.lr_scale`
    gives.

    A checkpoint's model is the mean, so that evaluate, encode and `jensen.load` read what was
    validated; the weights that training goes on with are the state of this callback. Of the model
    all that the optimiser trains is averaged. What a prior learns in closed form, running statistics
    and the objective are those of the last step.

    Args:
        decay: in [0, 1], of the exponential mean; None for the plain one.
        start: steps that are left out at the beginning.
        every: steps from one that counts to the next.

    Raises:
        InputError: as training begins, that this is no training by gradient.
    """

    every_step = True  # is counted, so that training must come back to the callbacks after each

    def __init__(self, decay: float | None = 0.999, start: int = 0, every: int = 1) -> None:
        if decay is not None:
            check_number("decay", decay, low=0, high=1)
        check_count("start", start, least=0)
        check_count("every", every)
        self.decay = decay
        self.start = start
        self.every = every
        self.mean: Weights = {}
        self._count = 0
        self._step = 0
        self._weights: dict[str, Parameter] = {}
        self._kept: Weights = {}
        """Weights of the training, while the model has the mean or a checkpoint's."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not pl_module.automatic_optimization:
            raise InputError(
                f"callbacks has an Average but {type(pl_module).__name__} takes no steps by"
                " gradient: expected algorithm=gradient; leave it out"
            )
        self._weights = {
            name: weight
            for name, weight in pl_module.named_parameters()
            if name.startswith("model.") and weight.requires_grad
        }

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the model of a checkpoint for the mean, and goes on with the weights beside it."""
        if self._kept:
            self.mean = self._copied() if self._count else {}
            self._take_back()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        counted = trainer.global_step - self.start
        if trainer.global_step == self._step or counted <= 0 or counted % self.every:
            return
        self._count += 1
        if self._count == 1:
            self.mean = self._copied()
            return
        share = 1 / self._count
        if self.decay is not None:
            share = max(1 - self.decay, 9 / (9 + self._count))
        weights = [weight.detach() for weight in self._weights.values()]
        torch._foreach_lerp_([*self.mean.values()], weights, share)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._take_back()

    on_test_start = on_validation_start
    on_test_end = on_validation_end

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["state_dict"] |= self.mean

    def state_dict(self) -> dict[str, Any]:
        return {"count": self._count, "weights": self._kept or self._copied()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._count = state_dict["count"]
        self._kept = state_dict["weights"]

    def _put(self) -> None:
        """Puts the mean, where there is one by now, in the place of the weights."""
        if self.mean and not self._kept:
            self._kept = self._copied()
            self._set(self.mean)

    def _take_back(self) -> None:
        if self._kept:
            self._set(self._kept)
            self._kept = {}

    def _copied(self) -> Weights:
        return {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def _set(self, values: Weights) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])
