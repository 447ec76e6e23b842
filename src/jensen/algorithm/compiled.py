"""Inference and loss of a step by kernels that `torch.compile` makes of them, forward and backward.

Kernels are made at the first step, which takes seconds to minutes, and then tried against the step as it
is written: where loss or slopes are others, or none can be made, the steps go on as they are written
and a line says why. What draws by itself, as dropout does, draws what it would have drawn.

A hook of a module is not looked for by torch's kernels, and a plain number that a forward pass changes stays
as it is in them from the second step on, so with either there are none. What else is changed amid a
training makes new ones (torch's guards).
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jensen.algorithm import hooks
from jensen.algorithm.capture import State
from jensen.algorithm.step import Outcome, learn, outcome
from jensen.base.replay import first_said
from jensen.model.vae import VAE
from jensen.objective.objective import Objective

if TYPE_CHECKING:
    from jensen.algorithm.gradient import Gradient

logger = logging.getLogger(__name__)
Given = tuple[VAE, Objective, Tensor, Tensor, Tensor]
MakeOutcome = Callable[[VAE, Objective, Tensor, Tensor, Tensor], Outcome]

_OPTIONS: dict[str, str | int | bool | Callable[..., object]] = {"fallback_random": True}
"""Draws are torch's own, of the generator that is seeded at each step."""

_ROUGH = {"32-true": 1e-3, "64-true": 1e-9}
"""How far a loss may be from the step's own, as a part of its size, by the precision, and slopes ten times as
far; of others 1e-2.
"""


class Compiled:
    """`step.outcome` by kernels of the model of an algorithm; `why` is the reason if there are none."""

    make: Callable[..., MakeOutcome] = staticmethod(torch.compile)
    """What makes the kernels; a test puts another in its place."""

    def __init__(self, algorithm: "Gradient") -> None:
        self.algorithm = algorithm
        self.why = ""
        self._call: MakeOutcome | None = None
        self._hooks: list[object] = []

    def now(self) -> MakeOutcome:
        """Itself, after a look for hooks: to be asked for before a step or a chunk of them."""
        found = hooks.in_forward(self.algorithm)
        if found != self._hooks:
            self._call = None
        self._hooks = found
        return self

    def __call__(
        self, model: VAE, objective: Objective, x: Tensor, noise: Tensor, step: Tensor
    ) -> Outcome:
        given = (model, objective, x, noise, step)
        if self._call is None and (hooked := hooks.called_in_forward(self.algorithm)):
            self._refuse(hooked)
        call = self._call or self._tried(given)
        return call(*given)

    def _refuse(self, why: str) -> None:
        self.why = why
        self._call = outcome
        logger.warning("algorithm.compile: steps are computed as written (%s)", why)

    def _tried(self, given: Given) -> MakeOutcome:
        """Kernels, if they give the loss and the slopes of a step, of which nothing is left; else what
        computes as written, from now on if that is known.
        """
        # Kernels are kept by the function they are made of, and only so many: those of a run before,
        # of other numbers, would leave this one none.
        torch.compiler.reset()
        made = self.make(outcome, options=_OPTIONS)
        state = State(self.algorithm, self.algorithm.trainer.optimizers[0])
        learns = not self.algorithm.calls.driven
        try:
            loss, slopes = _slopes(outcome, learns, given)
            # torch's kernels go on from a number that was changed by a step once, and then no more.
            changed = state.numbers.changed()
        except Exception:  # of the step itself: it will do so again, and be heard
            return outcome
        finally:
            state.put_back()
        if not bool(torch.isfinite(loss)):
            return outcome
        why = changed or self._unlike(made, learns, given, loss, slopes)
        state.put_back()
        if why:
            self._refuse(why)
            return outcome
        self.why = ""
        self._call = made
        return made

    def _unlike(
        self, made: MakeOutcome, learns: bool, given: Given, loss: Tensor, slopes: Tensor
    ) -> str:
        """The reason to leave the kernels of a step with such a loss and slopes; empty if they have
        them too.
        """
        try:
            of_kernels, others = _slopes(made, learns, given)
        except Exception as error:  # whatever a compiler may raise
            return first_said(error)
        rough = _ROUGH.get(str(self.algorithm.trainer.precision), 1e-2)
        apart = float((of_kernels - loss).abs() / loss.abs().clamp(min=1))
        turned = float((others - slopes).norm() / slopes.norm().clamp(min=1e-30))
        if apart <= rough and turned <= 10 * rough:
            return ""
        return f"their loss is {apart:.1g} from the step's, and their slopes {turned:.1g}"


def _slopes(call: MakeOutcome, learns: bool, given: Given) -> tuple[Tensor, Tensor]:
    """The loss `()`, and its slope by all parameters that learn, in one.

    learns: whether the prior learns between the two, as where Lightning asks for the slopes.
    """
    model, objective, x, noise, step = given
    parameters = [*model.parameters(), *objective.parameters()]
    learning = [each for each in parameters if each.requires_grad]
    loss, inference = call(model, objective, x, noise, step)
    if learns:
        learn(model, inference, len(x), step)
    found = torch.autograd.grad(loss, learning, allow_unused=True, materialize_grads=True)
    return loss.detach().double(), torch.cat([each.detach().double().flatten() for each in found])
