"""Inference and loss of a step by kernels that `torch.compile` makes of them, forward and backward.

Kernels are made at the first step, which takes seconds to minutes, and then tried against the step as it
is written: where loss or slopes are others, or no one graph can be made of the step, the steps go on as
they are written and a line says why. What draws by itself, as dropout does, draws what it would have drawn.

A hook of a module is not looked for by torch's kernels, and a plain number that a forward pass changes stays
as it is in them from the second step on, so with either there are none. What else is changed amid a
training makes new ones (torch's guards).
"""

import logging
import weakref
from collections.abc import Callable
from functools import cache, partial
from itertools import count
from types import FunctionType
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch._dynamo.eval_frame import remove_from_cache
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.utils._python_dispatch import _get_current_dispatch_mode

from jensen.algorithm import hooks, kernels
from jensen.algorithm.capture import State
from jensen.algorithm.step import Outcome, learn, outcome
from jensen.base.ranks import said_by_any_rank, world
from jensen.model.vae import VAE
from jensen.objective.objective import Objective

if TYPE_CHECKING:
    from jensen.algorithm.gradient import Gradient

logger = logging.getLogger(__name__)
Given = tuple[VAE, Objective, Tensor, Tensor, Tensor]
MakeOutcome = Callable[[VAE, Objective, Tensor, Tensor, Tensor], Outcome]

_copies = count()
"""Numbers for the names of copies of a step."""


class Compiled:
    """`step.outcome` by kernels of the model of an algorithm; `why` is the reason if there are none."""

    make: Callable[[MakeOutcome], MakeOutcome] = staticmethod(kernels.made)
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
        if _get_current_dispatch_mode() is not None:
            # A counter of FLOPs, say: torch would take the step without kernels, and then refuse it.
            return outcome(*given)
        if self._call is None and (hooked := hooks.called_in_forward(self.algorithm)):
            self._refuse(hooked)
        call = self._call or self._tried(given)
        try:
            return call(*given)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            # Of those that something changed amid the training asks for: none has run.
            self._refuse(kernels.said(error), shared=False)
            return outcome(*given)

    def _refuse(self, why: str, shared: bool = True) -> None:
        """shared: whether all ranks do, so that the first says it."""
        self.why = why
        self._call = outcome
        if world()[0] == 0 or not shared:
            logger.warning("algorithm.compile: steps are computed as written (%s)", why)

    def _tried(self, given: Given) -> MakeOutcome:
        """Kernels, if they give the loss and the slopes of a step, of which nothing is left; else what
        computes as written, from now on if that is known.
        """
        own = _copied(outcome)
        weakref.finalize(self, remove_from_cache, own)
        made = cache(partial(self.make, own))
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
        if said_by_any_rank("" if bool(torch.isfinite(loss)) else "not finite"):
            return outcome
        why = said_by_any_rank(changed or self._unlike(made, learns, given, loss, slopes))
        state.put_back()
        if why:
            self._refuse(why)
            return outcome
        self.why = ""
        self._call = made()
        return self._call

    def _unlike(
        self,
        made: Callable[[], MakeOutcome],
        learns: bool,
        given: Given,
        loss: Tensor,
        slopes: Tensor,
    ) -> str:
        """The reason to leave the kernels of a step with such a loss and slopes; empty if they have
        them too.
        """
        try:
            with kernels.unheard():
                of_kernels, others = _slopes(made(), learns, given)
        except Exception as error:  # whatever a compiler may raise
            if world()[1] > 1:  # others wait for what a step gathers
                _slopes(outcome, learns, given)
            return kernels.said(error)
        rough = kernels.ROUGH.get(str(self.algorithm.trainer.precision), 1e-2)
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


def _copied(function: Callable[..., Outcome]) -> MakeOutcome:
    """The same with code of its own.

    torch keeps kernels with the code that they are made of, and only so many: those of a run before would
    leave this one none. By its name torch remembers sizes, and those of another run are not this one's.
    """
    code = function.__code__.replace(co_name=f"outcome_{next(_copies)}")
    return FunctionType(code, function.__globals__)
