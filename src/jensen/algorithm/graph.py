"""A whole step as a CUDA graph: captured once, replayed for each step of a chunk.

A small model's step is a hundred kernels of a few microseconds, and the host needs longer to ask for
them than the device to run them. A replay asks once. All that differs between steps lies in buffers
that keep their place: the chunk's minibatches, noise and step numbers, a counter that says which is
next, and the learning rate where it is scheduled.

What cannot be captured runs eagerly, and a line says what and why: a module that draws by itself
(dropout), one that asks the device for a value, an optimiser that counts on the host, or a graph
that at another step does not do what the step does. Capturing leaves nothing behind: it works on
the first chunk, and all state is put back.
"""

import gc
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jensen.algorithm.capture import (
    State,
    aside,
    capturable,
    count_on_device,
    drawing,
    entered,
    generator_state,
    on_host,
    part,
    said,
)
from jensen.algorithm.chunk import Chunk, next_lr
from jensen.algorithm.drive import Eager, Taken, Terms, terms_of
from jensen.algorithm.step import Outcome

if TYPE_CHECKING:
    from jensen.algorithm.gradient import Gradient

Run = Callable[[], None]
Capture = Callable[[Run], Run]
"""Takes a program on tensors that keep their place; gives one that repeats it."""

LEAP = 100_003
"""Steps from the one that was captured to the one that the graph is tried at."""

_DEVICE = "CUDA error"

logger = logging.getLogger(__name__)


def captured(run: Run) -> Run:
    """The replay of `run`, a CUDA graph. What other threads ask of the device meanwhile, a loader's
    pinned memory say, does not matter.
    """
    program = torch.cuda.CUDAGraph()
    with torch.cuda.graph(program, capture_error_mode="thread_local"):
        run()
    replay: Run = program.replay
    return replay


class Inputs:
    """The chunk that a graph reads: buffers for `steps` minibatches, and the place of the next."""

    def __init__(self, chunk: Chunk, steps: int) -> None:
        self.x = chunk.x.new_empty(steps, *chunk.x.shape[1:])
        self.noise = chunk.noise.new_empty(steps, *chunk.noise.shape[1:])
        self.step = chunk.step.new_empty(steps)
        self.place = chunk.step.new_zeros(1)

    def fill(self, chunk: Chunk) -> None:
        """Copy a chunk in; its first minibatch is next."""
        count = len(chunk.step)
        self.x[:count].copy_(chunk.x)
        self.noise[:count].copy_(chunk.noise)
        self.step[:count].copy_(chunk.step)
        self.place.zero_()

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        """x, noise and step of the next minibatch."""
        x, noise, step = (
            each.index_select(0, self.place)[0] for each in (self.x, self.noise, self.step)
        )
        self.place.add_(1)
        return x, noise, step


class Seen:
    """Copies on the host of tensors as they are now, in the order of the device's work: reading
    them waits for that, not for what was asked of the device since.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        on_gpu = tensors[0].is_cuda
        self.copies = [
            torch.empty(each.shape, dtype=each.dtype, pin_memory=on_gpu).copy_(
                each, non_blocking=True
            )
            for each in tensors
        ]
        self._done = torch.cuda.Event() if on_gpu else None
        if self._done is not None:
            self._done.record()

    def read(self) -> list[Tensor]:
        if self._done is not None:
            self._done.synchronize()
        return self.copies


class Graphed:
    """Steps by replay; `why` is the reason if they are taken eagerly after all.

    Args:
        capture: what makes the replay; on a CPU a test puts another in its place.
    """

    def __init__(self, algorithm: "Gradient", capture: Capture = captured) -> None:
        self.algorithm = algorithm
        self.eager = Eager(algorithm)
        self.update = self.eager.update
        self.capture = capture
        self.why = ""
        self._scheduled = bool(algorithm.trainer.lr_scheduler_configs)
        self._lr = [
            torch.tensor(float(group["lr"]), device=algorithm.device)
            for group in self.update.optimiser.param_groups
        ]
        self._inputs: Inputs | None = None
        self._plain: Run | None = None
        self._logged: Run | None = None
        self._loss = torch.zeros((), device=algorithm.device)
        self._names: list[str] = []
        self._values = self._loss.new_empty(0)
        self._gradients: list[Any] = []

    def __call__(self, chunk: Chunk, logged: bool) -> Taken:
        if self._plain is None and not self.why:
            if not self.update.optimiser.state:  # which it makes at its first step, in its own way
                return self._begin(chunk, logged)
            self._prepare(chunk)
        if self.why:
            return self.eager(chunk, logged)
        assert self._inputs is not None
        assert self._plain is not None
        assert self._logged is not None
        self._inputs.fill(chunk)
        seen: Seen | None = None
        for place in range(len(chunk.step)):
            if place:
                next_lr(self.algorithm.trainer)
            self._set_lr()
            if place == 0 and logged:
                self._logged()
                seen = Seen([self._values, *self.algorithm.finite.memory])
            else:
                self._plain()
        if seen is None:
            return Taken(self._loss, {})
        values, *firsts = seen.read()
        self.algorithm.finite.ask(chunk.first + 1, *firsts)
        return Taken(self._loss, dict(zip(self._names, values.unbind(), strict=True)))

    def _begin(self, chunk: Chunk, logged: bool) -> Taken:
        """Take the first step eagerly, and the others as ever.

        On a stream of its own: torch remembers, for as long as a gradient's graph is there, on
        which one a parameter was first used, and no capture may meet the default one.
        """
        gc.collect()
        with aside(self.algorithm.device):
            taken = self.eager(part(chunk, 0, 1), logged)
        if len(chunk.step) > 1:
            next_lr(self.algorithm.trainer)
            self(part(chunk, 1, len(chunk.step)), False)
        return taken

    def _prepare(self, chunk: Chunk) -> None:
        """Capture the step, or find out why not."""
        optimiser = self.update.optimiser
        self._inputs = Inputs(chunk, max(self.algorithm.calls.steps, len(chunk.step)))
        self._inputs.fill(chunk)
        count_on_device(optimiser)
        state = State(self.algorithm, optimiser)
        self.why = self._captured(state) or ""
        if self.why.startswith(_DEVICE):  # what a library sets up at its first capture in a process
            self.why = self._captured(state)
        if not self.why:
            self.why = self._tried(chunk, state)
        if self.why:
            self._plain = self._logged = self._inputs = None
            logger.warning("algorithm.engine: steps are taken eagerly (%s)", self.why)

    def _captured(self, state: "State") -> str:
        """Capture the step; the reason why not."""
        optimiser = self.update.optimiser
        inside: list[str] = []
        gc.collect()
        with entered(self.algorithm.model, inside), capturable(optimiser, self._rates()):
            try:
                why = self._warm_up(state)
                if not why:
                    self._plain = self._kept(logged=False)
                    self._logged = self._kept(logged=True)
            except Exception as error:  # whatever a module of somebody's own may raise
                why = said(error, inside)
        state.put_back()
        return why

    def _kept(self, logged: bool) -> Run:
        """The replay of a step, whose gradients keep their place as long as it is there."""
        replay = self.capture(lambda: self._step(logged))
        self._gradients.append([parameter.grad for parameter in self.update.parameters])
        return replay

    def _warm_up(self, state: "State") -> str:
        """Take some steps, as capturing wants it; the reason why they could not be captured."""
        assert self._inputs is not None
        host = on_host(self.update.optimiser)
        drawn = generator_state(self.algorithm.device)
        with aside(self.algorithm.device):
            for logged in (True, False, True):
                self._inputs.place.zero_()
                self._step(logged)
        counted = host != on_host(self.update.optimiser)
        state.put_back()
        if not torch.equal(drawn, generator_state(self.algorithm.device)):
            self._inputs.place.zero_()
            x, noise, _ = self._inputs.take()
            return f"{drawing(self.update.model, x, noise)} draws numbers of its own"
        if counted:
            return f"{type(self.update.optimiser).__name__} counts its steps on the host"
        return ""

    def _step(self, logged: bool) -> None:
        """One step on the buffers."""
        assert self._inputs is not None
        x, noise, step = self._inputs.take()

        def look(outcome: Outcome) -> None:
            self.algorithm.finite.remember(*outcome, step)
            if logged:
                self._loss.copy_(outcome.loss.detach())
                self._write(terms_of(self.algorithm, outcome, step))

        self.update(x, noise, step, look)

    def _write(self, terms: Terms) -> None:
        """Put what is logged where a replay leaves it, too."""
        self._names = [*terms]
        values = torch.stack([*terms.values()])
        if self._values.shape != values.shape:
            self._values = torch.empty_like(values)
        self._values.copy_(values)

    def _tried(self, chunk: Chunk, state: "State") -> str:
        """The reason to distrust the graph: at a step far from where it was captured, and half the
        learning rate where it is scheduled, it is to do what the step does.
        """
        assert self._inputs is not None
        assert self._logged is not None
        far = part(chunk, 0, 1)._replace(step=chunk.step[:1] + LEAP)
        groups = self.update.optimiser.param_groups
        rates = [group["lr"] for group in groups]
        for group in groups if self._scheduled else ():
            group["lr"] = group["lr"] / 2
        found = []
        before = [parameter.detach().clone() for parameter in self.update.parameters]
        for again in (False, True):
            self._inputs.fill(far)
            self._set_lr()
            if again:
                self._logged()
            else:
                with capturable(self.update.optimiser, []):
                    self._step(logged=True)
            changes = [
                (after - old).flatten()
                for after, old in zip(self.update.parameters, before, strict=True)
            ]
            found.append((self._loss.clone(), torch.cat(changes).detach()))
            state.put_back()
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        (loss, moved), (repeated, moved_again) = found
        rough = 1e-2 if self.algorithm.trainer.precision != "32-true" else 1e-4
        if not bool((loss - repeated).abs() <= rough * loss.abs() + 1e-6):
            return (
                f"a replay gives a loss of {repeated.item():g} where a step gives {loss.item():g}"
            )
        apart = (moved - moved_again).norm()
        if not bool(apart <= 0.1 * moved.norm() + 1e-12):
            return f"a replay moves the parameters {apart.item():.2g} from where a step moves them"
        return ""

    def _rates(self) -> list[Tensor]:
        return self._lr if self._scheduled else []

    def _set_lr(self) -> None:
        for lr, group in zip(self._rates(), self.update.optimiser.param_groups, strict=False):
            lr.fill_(float(group["lr"]))
