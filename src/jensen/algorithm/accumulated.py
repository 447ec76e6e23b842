"""The second half of a step whose gradients are accumulated: the prior learns of all of its batches."""

import torch
from torch import Tensor

from jensen.algorithm.step import learns, posterior_of
from jensen.base.tree import tree_map
from jensen.bound.bound import Inference
from jensen.family.family import Posterior
from jensen.model.vae import VAE


class Accumulated:
    """The posteriors of the batches of a step so far: the prior learns of all of them at once, as of one
    large minibatch.
    """

    def __init__(self) -> None:
        self._posteriors: list[Posterior] = []

    def begin(self) -> None:
        """Forget what a training left that ended amid a step."""
        self._posteriors = []

    def learn(
        self, model: VAE, inference: Inference, examples: int, step: Tensor, last: bool
    ) -> None:
        """`step.learn`, but of all batches of a step, at the `last` of them."""
        if not learns(model):
            return
        self._posteriors.append(posterior_of(inference, examples))
        if last:
            first, *others = self._posteriors
            self._posteriors = []
            whole = tree_map(lambda *parts: torch.cat(parts), first, *others) if others else first
            model.prior.update(whole, step)
