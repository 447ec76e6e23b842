"""The computation of one model, traced by `torch.func.vmap` for all of a stack."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor
from torch.func import vmap

from jensen.algorithm.capture import Numbers
from jensen.algorithm.stacked_layers import rewrite
from jensen.algorithm.stacked_values import places
from jensen.algorithm.step import learn, loss_of
from jensen.bound.bound import Inference
from jensen.model.conditional_normal import ConditionalNormal
from jensen.model.prior import StandardNormal
from jensen.model.vae import VAE
from jensen.model.vamp import VampPrior
from jensen.objective.objective import Objective

_LEARN_NOTHING = (ConditionalNormal, StandardNormal, VampPrior)


class StackedProgram:
    """A model and its objective, called with the values of M such models.

    Args:
        tensors: those of `model` and `objective`, in the order in which the values will come.
    """

    def __init__(self, model: VAE, objective: Objective, tensors: Sequence[Tensor]) -> None:
        memo = {id(each): each for each in tensors}  # replaced at each call: not copied
        self._model, self._objective = deepcopy((model, objective), memo)
        rewrite(self._model, self._objective)
        self._places = places(tensors, self._model, self._objective)
        self._infer = vmap(self._loss)
        self._learn = vmap(self._learned)
        self.learns = type(model.prior) not in _LEARN_NOTHING

    def numbers(self) -> Numbers:
        """Plain values of the modules that are called, which no model has of its own."""
        return Numbers(model=self._model, objective=self._objective)

    def infer(
        self, values: Sequence[Tensor], x: Tensor, noise: Tensor, step: Tensor
    ) -> tuple[Tensor, Inference]:
        """Loss `(M,)` and inference `(M, B, ...)`, with their graph."""
        found: tuple[Tensor, Inference] = self._infer(values, x, noise, step)
        return found

    def learn(self, values: Sequence[Tensor], posterior: Any, step: Tensor) -> None:
        """Have the priors learn what they learn without a gradient, in place."""
        self._learn(values, posterior, step)

    def _loss(
        self, values: Sequence[Tensor], x: Tensor, noise: Tensor, step: Tensor
    ) -> tuple[Tensor, Inference]:
        self._put(values)
        inference = self._model(x, noise)
        loss = loss_of(self._objective, inference, step)
        self._check_kept(values)
        return loss, inference

    def _learned(self, values: Sequence[Tensor], posterior: Any, step: Tensor) -> Tensor:
        self._put(values)
        examples = len(posterior.mean) // self._objective.samples
        learn(self._model, Inference(None, posterior, None, None), examples, step)  # type: ignore[arg-type]
        self._check_kept(values)
        return step

    def _put(self, values: Sequence[Tensor]) -> None:
        for held_at, value in zip(self._places, values, strict=True):
            for held, name in held_at:
                held[name] = value

    def _check_kept(self, values: Sequence[Tensor]) -> None:
        """Refuse a module that puts another tensor in the place of its own, which `vmap` would
        lose.
        """
        for held_at, value in zip(self._places, values, strict=True):
            for held, name in held_at:
                if held[name] is not value:
                    raise RuntimeError(f"{name} is replaced, not changed in place")
