"""Losses, gradients and parameters that are NaN or infinite: how they are found, what is done, and
what is said.

A step whose loss is NaN or infinite ends the run (`Stop`), or is left out (`Skip`). What it was is
in `non_finite.json` in the run's folder. The same command again comes to the same step, and with
`trainer.max_steps` at that step it ends just before it; then its batch can be looked at:

    facts = json.loads(Path(run, "non_finite.json").read_text())
    algorithm, step = jensen.run.load.restored(run)
    data = instantiate(jensen.run.reading.configuration(run).data)
    inference = algorithm.infer(data.batch(facts["rows"], facts["step"]), facts["step"])

A held-out loss that is not finite ends the run too; then `held_out_rows` in the file are rows of
the held-out set. Rows are those of jensen's `DataModule`; of a user's own loaders they are not
known.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from jensen.algorithm import fault
from jensen.base.batch import Batch
from jensen.base.errors import InputError
from jensen.bound.bound import Inference

if TYPE_CHECKING:
    from jensen.algorithm.gradient import Gradient

NEVER = 1 << 62
CHOICES = ("stop", "skip")


class FirstSteps:
    """The first step at which each of some values was not finite, kept on their device: nothing
    waits for it until `take`.
    """

    def __init__(self) -> None:
        self._steps: Tensor | None = None

    def watch(self, values: Tensor, step: int | Tensor) -> None:
        """Look at the `(T,)` values of a step. In place, so that a captured graph may do it."""
        here = torch.where(values.detach().isfinite(), NEVER, step)
        if self._steps is None:
            self._steps = torch.full_like(here, NEVER)
        torch.minimum(self._steps, here, out=self._steps)

    def keep_in(self, place: Tensor) -> None:
        """From now on remember in `place` `(T,)`, a part of a larger tensor say."""
        place.fill_(NEVER) if self._steps is None else place.copy_(self._steps)
        self._steps = place

    @property
    def memory(self) -> list[Tensor]:
        """The memory, in place."""
        return [] if self._steps is None else [self._steps]

    def take(
        self, least: Callable[[Tensor], Tensor], copy: Tensor | None = None
    ) -> tuple[int, list[int]] | None:
        """The first of these steps and which values it was; None if all were finite. Begins anew,
        but not where it reads a `copy` of what was remembered some steps ago.

        least: over the ranks, elementwise.
        """
        steps = self._steps if copy is None else copy
        firsts = [] if steps is None else least(steps).tolist()
        first = min(firsts, default=NEVER)
        if steps is not None and copy is None:
            steps.fill_(NEVER)
        return (
            None
            if first == NEVER
            else (first, [place for place, step in enumerate(firsts) if step == first])
        )


class Stop:
    """The run ends at a loss that is not finite, and keeps the checkpoint from before.

    On one CPU at that step; elsewhere at the next that is logged, or saved, since to ask is to wait
    for the device. A held-out loss ends it too, but for a model that is only evaluated.
    """

    def __init__(self, algorithm: "Gradient") -> None:
        self.algorithm = algorithm
        self._first = FirstSteps()

    def before(self) -> None:
        """Called before each batch's loss."""

    def watch(self, loss: Tensor, inference: Inference, batch: Batch, step: int) -> None:
        """Look at the loss of a batch where that is free, or is waited for anyway."""
        free = self._asking_is_free
        if free and math.isfinite(loss.item()):
            return
        self.remember(loss, inference, step)
        if free or step % self.algorithm.trainer.log_every_n_steps == 0:
            self._end(step, batch=batch, inference=inference)

    def remember(self, loss: Tensor, inference: Inference, step: int | Tensor) -> None:
        """Look at the loss of a batch, and wait for nothing."""
        values = torch.stack([loss, *(part.mean() for part in inference.bound)])
        self._first.watch(values, step)

    def remember_in(self, place: Tensor) -> None:
        """From now on `remember` in a place `(3,)` of others', who may do it."""
        self._first.keep_in(place)

    def ask(self, now: int, copy: Tensor | None = None) -> None:
        """End the run, `now` steps old, if a loss was not finite; this waits for the device, unless
        there is a `copy` of `memory` on the host.
        """
        self._end(now, copy=copy)

    def guarded(self, closure: Callable[[], Any]) -> Callable[[], Any] | None:
        """The closure that the optimiser is to step by; None: not at all."""
        return closure

    def terms(self) -> dict[str, Tensor]:
        """Counts that are logged with a step, `()` each."""
        return {}

    def before_saving(self) -> None:
        """Refuse to save parameters that are not finite; the checkpoints that are there are
        kept.
        """
        self.ask(self.algorithm.global_step)
        fault.check_parameters(self.algorithm)

    def check_held_out(self, values: Tensor) -> None:
        """End training at `values`, the same on all ranks, of a validation that are not finite."""
        if self._fitting and not bool(values.isfinite().all()):
            fault.end_at_held_out(self.algorithm)

    @property
    def memory(self) -> list[Tensor]:
        """Tensors that a step changes here, in place."""
        return self._first.memory

    @property
    def _asking_is_free(self) -> bool:
        return self.algorithm.device.type == "cpu" and self.algorithm.trainer.world_size == 1

    @property
    def _fitting(self) -> bool:
        trainer = self.algorithm._trainer  # which is asked for where there is none, too
        return trainer is not None and trainer.state.fn == TrainerFn.FITTING

    def _end(self, now: int, copy: Tensor | None = None, **under_way: Any) -> None:
        """End the run if a loss was not finite; with the batch and the inference under way."""
        if found := self._first.take(partial(fault.least, self.algorithm), copy):
            fault.end_at_step(self.algorithm, found, now, **under_way)


class Skip(Stop):
    """A step whose loss, or gradient, is not finite is left out, with all its changes of state. It
    asks after every step.

    The counts are buffers of the algorithm, `skipped_steps` and `skipped_in_a_row`: a run that
    continues goes on counting.

    Args:
        limit: so many steps in a row that are left out end the run.
    """

    def __init__(self, algorithm: "Gradient", limit: int) -> None:
        super().__init__(algorithm)
        self.limit = limit
        self._before: list[Tensor] = []
        algorithm.register_buffer("skipped_steps", torch.tensor(0))
        algorithm.register_buffer("skipped_in_a_row", torch.tensor(0))

    def before(self) -> None:
        if not self._before:
            self._before = [tensor.clone() for tensor in self._changed_by_a_loss()]

    def watch(self, loss: Tensor, inference: Inference, batch: Batch, step: int) -> None:
        self.remember(loss, inference, step)

    def guarded(self, closure: Callable[[], Any]) -> Callable[[], Any] | None:
        result = closure()
        before = self._before
        self._before = []
        if self._finite():
            self._in_a_row.zero_()
            return lambda: result
        with torch.no_grad():
            for tensor, value in zip(self._changed_by_a_loss(), before, strict=True):
                tensor.copy_(value)
            self._skipped.add_(1)
            self._in_a_row.add_(1)
        if self._in_a_row >= self.limit:
            self._end_of_patience()
        return None

    def terms(self) -> dict[str, Tensor]:
        return {"skipped_steps": self._skipped.to(self.algorithm.dtype)}

    def before_saving(self) -> None:
        fault.check_parameters(self.algorithm)

    @property
    def _skipped(self) -> Tensor:
        return self.algorithm.get_buffer("skipped_steps")

    @property
    def _in_a_row(self) -> Tensor:
        return self.algorithm.get_buffer("skipped_in_a_row")

    def _changed_by_a_loss(self) -> list[Tensor]:
        """All that a training step may change before its gradient does: controllers, running means,
        moments.
        """
        return [*self.algorithm.buffers(), *self.algorithm.model.prior.parameters()]

    def _finite(self) -> bool:
        """Tell whether the losses of this step, on all ranks, and their gradient are. Half
        precision's scaler judges its own.
        """
        finite = self._first.take(partial(fault.least, self.algorithm)) is None
        if getattr(self.algorithm.trainer.precision_plugin, "scaler", None) is None:
            gradients = [
                parameter.grad
                for parameter in self.algorithm.parameters()
                if parameter.grad is not None
            ]
            finite = finite and bool(torch.nn.utils.get_total_norm(gradients).isfinite())
        return finite

    def _end_of_patience(self) -> NoReturn:
        step = self.algorithm.global_step
        rows = fault.record_step(self.algorithm, step)
        raise InputError(
            f"training stopped at step {step}, the last of {self.limit} in a row whose loss or"
            f" gradient is NaN or infinite (algorithm.skip_limit): {fault.report(self.algorithm)} names {rows};"
            " lower optimizer.lr or set trainer.gradient_clip_val"
        )
