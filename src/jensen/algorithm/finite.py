"""Losses, gradients and parameters that are NaN or infinite: how they are found, what is done, and
what is said.

A step whose loss is NaN or infinite ends the run (`Stop`), or is left out (`Skip`). What it was is
in `non_finite.json` in the run's folder. The same command again comes to the same step, and with
`trainer.max_steps` at that step it ends just before it; then its batch can be looked at:

    facts = json.loads(Path(run, "non_finite.json").read_text())
    algorithm, step = jensen.run.load.restored(run)
    data = instantiate(jensen.run.load.configuration(run).data)
    inference = algorithm.infer(data.batch(facts["rows"], facts["step"]), facts["step"])

A held-out loss that is not finite ends the run too; then `held_out_rows` in the file are rows of
the held-out set. Rows are those of jensen's `DataModule`; of a user's own loaders they are not
known.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn

from jensen.algorithm.batches import own_data
from jensen.base.batch import Batch
from jensen.base.errors import InputError
from jensen.base.ranks import gather_rows
from jensen.bound.bound import Bound, Inference

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
        """What is remembered, in place."""
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


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Name those that hold NaN or infinity."""
    return [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]


@torch.no_grad()
def first_module(root: nn.Module, compute: Callable[[], object]) -> str | None:
    """The first module inside `root`, by name, of which `compute` gets an output that is not
    finite; None if there is none.
    """
    found: list[str] = []

    def look_at(name: str) -> Callable[[nn.Module, object, object], None]:
        def look(module: nn.Module, inputs: object, output: object) -> None:
            if not all(bool(tensor.isfinite().all()) for tensor in _tensors(output)):
                found.append(name)

        return look

    hooks = [
        module.register_forward_hook(look_at(name)) for name, module in root.named_modules() if name
    ]
    try:
        compute()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list)):
        for part in output:
            yield from _tensors(part)


def record(path: Path, facts: Mapping[str, object]) -> None:
    """Write facts as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.partial")
    unfinished.write_text(json.dumps(facts) + "\n")
    unfinished.replace(path)


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
        if free and bool(loss.isfinite()):
            return
        self.remember(loss, inference, step)
        if free or step % self.algorithm.trainer.log_every_n_steps == 0:
            self._end(step, batch, inference)

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
        self._check_parameters()

    def check_held_out(self, values: Tensor) -> None:
        """End training at `values`, the same on all ranks, of a validation that are not finite."""
        if self._fitting and not bool(values.isfinite().all()):
            self._end_at_held_out()

    @property
    def memory(self) -> list[Tensor]:
        """Tensors that a step changes here, in place."""
        return self._first.memory

    @property
    def report(self) -> Path:
        """The file of facts."""
        return Path(self.algorithm.trainer.default_root_dir) / "non_finite.json"

    @property
    def _asking_is_free(self) -> bool:
        return self.algorithm.device.type == "cpu" and self.algorithm.trainer.world_size == 1

    @property
    def _fitting(self) -> bool:
        trainer = self.algorithm._trainer  # which is asked for where there is none, too
        return trainer is not None and trainer.state.fn == TrainerFn.FITTING

    def _end(
        self,
        now: int,
        batch: Batch | None = None,
        inference: Inference | None = None,
        copy: Tensor | None = None,
    ) -> None:
        """End the run, on all ranks, if a loss was not finite. `batch` and `inference` are those of
        the step under way.
        """
        found = self._first.take(partial(_least, self.algorithm), copy)
        if found is None:
            return
        step, places = found
        terms = [("loss", *Bound._fields)[place] for place in places]
        module = None
        parameters = not_finite(dict(self.algorithm.named_parameters()))
        if step == now and batch is not None and inference is not None:
            count = torch.tensor(step, device=self.algorithm.device)
            terms += not_finite(self.algorithm.objective.terms(inference, count))
            infer = partial(self.algorithm.infer, batch, step)
            module = _of_any_rank(
                self.algorithm, None if parameters else first_module(self.algorithm, infer)
            )
        rows = self._record_step(step, terms=terms, module=module, parameters=parameters)
        where = _where(step, now, module, parameters)
        raise InputError(
            f"training stopped at step {step}, where {' and '.join(terms)} became NaN or"
            f" infinite,{where}: {self.report} names {rows}, and the last checkpoint, which is"
            " from before, is kept; lower optimizer.lr, set trainer.gradient_clip_val or"
            " algorithm.non_finite=skip"
        )

    def _record_step(self, step: int, **facts: Any) -> str:
        """Write down the facts of a step, and its rows where they are known; the word for what the
        file names.
        """
        data = own_data(self.algorithm.trainer)
        _record(
            self.algorithm,
            self.report,
            {"step": step, **facts, "rows": None if data is None else data.rows(step)},
        )
        return "its step" if data is None else "its batch"

    def _end_at_held_out(self) -> NoReturn:
        module, rows = _held_out_fault(self.algorithm)
        parameters = not_finite(dict(self.algorithm.named_parameters()))
        step = self.algorithm.global_step
        facts = {
            "step": step,
            "module": module,
            "parameters": parameters,
            "held_out_rows": rows.tolist(),
        }
        _record(self.algorithm, self.report, facts)
        where = (
            f", because {parameters[0]} is"
            if parameters
            else f", first in the output of {module}"
            if module
            else ""
        )
        named = "the examples" if len(rows) else "the step"
        raise InputError(
            f"the held-out loss is NaN or infinite after step {step}{where}: {self.report} names"
            f" {named}, and the last"
            " checkpoint is kept; mend them, lower optimizer.lr or set trainer.gradient_clip_val"
        )

    def _check_parameters(self) -> None:
        if names := not_finite(dict(self.algorithm.named_parameters())):
            raise InputError(
                f"{names[0]} is NaN or infinite after step {self.algorithm.global_step}: expected"
                " finite parameters to save, so the last checkpoint is kept; lower optimizer.lr"
                " or set trainer.gradient_clip_val"
            )


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
        self._check_parameters()

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
        finite = self._first.take(partial(_least, self.algorithm)) is None
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
        rows = self._record_step(step)
        raise InputError(
            f"training stopped at step {step}, the last of {self.limit} in a row whose loss or"
            f" gradient is NaN or infinite (algorithm.skip_limit): {self.report} names {rows};"
            " lower optimizer.lr or set trainer.gradient_clip_val"
        )


def _where(step: int, now: int, module: str | None, parameters: list[str]) -> str:
    """The end of a sentence about a step that was found `now`."""
    if module:
        return f" first in the output of {module}"
    if step < now:
        return f" as was found at step {now}; trainer.log_every_n_steps=1 finds the module"
    if parameters:
        return f" because {parameters[0]} is, after the update before"
    return " though the output of every module is finite"


def _least(algorithm: "Gradient", values: Tensor) -> Tensor:
    """The least of each value over the ranks."""
    least: Tensor = algorithm.trainer.strategy.reduce(values, reduce_op="min")
    return least


def _of_any_rank(algorithm: "Gradient", module: str | None) -> str | None:
    """The module that a rank has named; None if none has."""
    names: list[str | None] = [*(name for name, _ in algorithm.named_modules()), None]
    return names[int(_least(algorithm, torch.tensor(names.index(module), device=algorithm.device)))]


def _held_out_fault(algorithm: "Gradient") -> tuple[str | None, Tensor]:
    """The first module whose output is not finite in a validation, and the rows it is of, over all
    ranks.
    """
    module = None
    rows = torch.empty(0, dtype=torch.long, device=algorithm.device)
    finite = torch.stack(algorithm.held_out.batches).isfinite().all(1).tolist()
    data = own_data(algorithm.trainer)
    if data is not None and not all(finite):
        loader = islice(data.val_dataloader(), finite.index(False), None)
        batch = algorithm.trainer.strategy.batch_to_device(next(loader))
        infer = partial(algorithm.infer, batch)
        with torch.no_grad():
            bound = infer().bound
        rows = batch.row[~(bound.distortion + bound.rate).isfinite()[: len(batch.row)]]
        module = first_module(algorithm, infer)
    return _of_any_rank(algorithm, module), gather_rows(rows)


def _record(algorithm: "Gradient", path: Path, facts: Mapping[str, object]) -> None:
    if algorithm.trainer.is_global_zero:
        record(path, {**facts, "seed": algorithm.seed})
