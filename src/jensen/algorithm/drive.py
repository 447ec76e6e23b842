"""The optimiser steps of a chunk, taken without Lightning between them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from jensen.algorithm.advance import advance, reads_gradients_alone
from jensen.algorithm.chunk import Chunk, counting, next_lr
from jensen.algorithm.logs import step_terms
from jensen.algorithm.step import Outcome, hold, learn, outcome, seed_networks
from jensen.base.batch import Batch
from jensen.base.random import fold
from jensen.model.vae import VAE
from jensen.objective.objective import Objective

if TYPE_CHECKING:
    from jensen.algorithm.gradient import Gradient

Terms = dict[str, Tensor]


class Taken(NamedTuple):
    """Word on the first step of a chunk: its loss, `()`, and what is logged of it, `()` each;
    empty where nothing is.
    """

    loss: Tensor
    terms: Terms


class Drive(Protocol):
    """Takes the steps of a chunk, in place on parameters, prior and optimiser."""

    def __call__(self, chunk: Chunk, logged: bool) -> Taken: ...


DRIVES: ContextVar["Callable[[Gradient], Drive] | None"] = ContextVar("drives", default=None)
"""The maker of the `Drive` of every training in this context, in the place of the algorithm's own
choice: a stack of models sets it.
"""


class Update(NamedTuple):
    """One whole step on tensors, in place: inference, loss, what the prior learns, gradient,
    optimiser.

    Nothing here waits for the device, or keeps a number of the step on the host.

    precision: the context of a forward pass. clip: shortens the gradients. outcome: `step.outcome`, or
        its kernels.
    """

    model: VAE
    objective: Objective
    optimiser: Optimizer
    precision: Callable[[], AbstractContextManager[None]]
    clip: Callable[[], None]
    outcome: Callable[[VAE, Objective, Tensor, Tensor, Tensor], Outcome] = outcome

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those of the optimiser now: a callback may add to them."""
        return [each for group in self.optimiser.param_groups for each in group["params"]]

    def __call__(
        self,
        x: Tensor,
        noise: Tensor,
        step: Tensor,
        look: Callable[[Outcome], None],
        still: Sequence[nn.Parameter] = (),
    ) -> None:
        """`look` is given the loss and the inference before anything changes; the parameters `still`
        stay as they are.
        """

        def slope() -> Tensor:
            with self.precision():
                found = self.outcome(self.model, self.objective, x, noise, step)
                look(found)
            hold(self.parameters)
            found.loss.backward()  # type: ignore[no-untyped-call]
            # Not before: kernels may have kept, for their slopes, what the prior changes.
            with self.precision():
                learn(self.model, found.inference, len(x), step)
            hold(still)
            self.clip()
            return found.loss.detach()

        if reads_gradients_alone(self.optimiser):
            slope()
            advance(self.optimiser)
        else:
            self.optimiser.step(slope)  # type: ignore[arg-type]  # of which torch says that it gives a float


def update_of(algorithm: "Gradient") -> Update:
    """The step of an algorithm, with the precision and the clipping of its trainer."""
    trainer = algorithm.trainer
    return Update(
        algorithm.model,
        algorithm.objective,
        trainer.optimizers[0],
        trainer.precision_plugin.forward_context,
        partial(_clip, algorithm),
        algorithm.outcome(),
    )


def _clip(algorithm: "Gradient") -> None:
    trainer = algorithm.trainer
    if most := trainer.gradient_clip_val:
        by = trainer.gradient_clip_algorithm
        algorithm.clip_gradients(trainer.optimizers[0], most, by)


class Eager:
    """The steps one after another, each as Lightning would take it."""

    def __init__(self, algorithm: "Gradient") -> None:
        self.algorithm = algorithm

    def __call__(self, chunk: Chunk, logged: bool) -> Taken:
        algorithm = self.algorithm
        update = update_of(algorithm)  # as it is now: a callback may exchange a part
        trainer = algorithm.trainer
        taken: list[Taken] = []
        with counting(trainer) as count_to:
            for place, (x, row, noise, step) in enumerate(chunk.minibatches()):
                now = chunk.first + place
                if place:
                    next_lr(trainer, now)
                count_to(now)
                seed(algorithm, now)

                def look(outcome: Outcome, x=x, row=row, step=step, now=now) -> None:  # type: ignore[no-untyped-def]
                    batch = Batch(x, row.new_empty(len(row), 0), row)
                    algorithm.finite.watch(*outcome, batch, now)
                    if not taken:
                        terms = terms_of(algorithm, outcome, step) if logged else {}
                        taken.append(Taken(outcome.loss.detach(), terms))

                update(x, noise, step, look, algorithm.still(now))
        return taken[0]


def seed(algorithm: "Gradient", step: int) -> None:
    """Set torch's own generators as a step does, whatever of the chunk has been counted. Whoever takes
    steps that draw nothing does so for the last: a callback may draw next.
    """
    trainer = algorithm.trainer
    batch = trainer.fit_loop.epoch_loop.batch_idx + step - trainer.global_step
    key = fold(algorithm.seed, "network", step, batch, algorithm.global_rank)
    seed_networks(key, algorithm.device)


def terms_of(algorithm: "Gradient", outcome: Outcome, step: Tensor) -> Terms:
    """The terms of a step that are logged, as they are now: an objective's state goes on."""
    loss, inference = outcome
    terms = step_terms(loss, inference, algorithm.objective, algorithm.model.prior, step)
    if algorithm.encoder_steps > 1:
        done = torch.div(step, algorithm.encoder_steps, rounding_mode="floor")
        terms["decoder_steps"] = done.to(loss)
    terms |= algorithm.finite.terms()
    return {name: value.detach().clone() for name, value in terms.items()}
