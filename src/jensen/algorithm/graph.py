"""A whole step as a CUDA graph: captured once, replayed for each step of a chunk.

A small model's step is a hundred kernels of a few microseconds, and the host needs longer to ask for
them than the device to run them. A replay asks once. All that differs between steps lies in buffers
that keep their place: the chunk's minibatches, noise and step numbers, a counter that says which is
next, and the learning rates where they are scheduled. What follows the first step of a whole chunk
is one graph, so that the host is ahead of the device. What somebody changes otherwise, a learning
rate or which parameters learn, is found before a chunk, and the step captured again.

What cannot be captured runs eagerly, and a line says what and why: a module that draws by itself
(dropout), asks the device for a value, counts on the host, or has a hook of somebody's own; an
optimiser that does so; or a graph that at another step does not do what the step does. Capturing
leaves nothing behind: it works on the first chunk, and all state is put back.
"""

import gc
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from jensen.algorithm import hooks
from jensen.algorithm.capture import (
    Changes,
    State,
    capturable,
    count_on_device,
    drawing,
    entered,
    fixed,
    numbers_of,
    on_host,
    part,
    said,
    steps_differ,
)
from jensen.algorithm.chunk import Chunk, counting, next_lr
from jensen.algorithm.drive import Eager, Taken, Terms, seed, terms_of, update_of
from jensen.algorithm.step import Outcome
from jensen.algorithm.trial import LEAP, Trial, distrust, far, tried
from jensen.base.device import sent
from jensen.base.replay import DEVICE, Capture, Run, aside, captured

if TYPE_CHECKING:
    from jensen.algorithm.gradient import Gradient

logger = logging.getLogger(__name__)


class Inputs:
    """The chunk that a graph reads: buffers for `steps` minibatches with their learning rates,
    `(steps, G)` of as many groups of parameters, and the place of the next.
    """

    def __init__(self, chunk: Chunk, steps: int, groups: int) -> None:
        self.x = chunk.x.new_empty(steps, *chunk.x.shape[1:])
        self.noise = chunk.noise.new_empty(steps, *chunk.noise.shape[1:])
        self.step = chunk.step.new_empty(steps)
        self.rates = torch.zeros(steps, groups, device=chunk.x.device)
        self.lr = [*self.rates.new_zeros(groups)]
        self.place = chunk.step.new_zeros(1)

    def fill(self, chunk: Chunk, rates: Sequence[Sequence[float]]) -> None:
        """Copy a chunk in, with the learning rates of each step; its first minibatch is next."""
        count = len(chunk.step)
        self.x[:count].copy_(chunk.x)
        self.noise[:count].copy_(chunk.noise)
        self.step[:count].copy_(chunk.step)
        if self.lr:
            self.rates[:count].copy_(sent(rates, self.rates.device))
        self.place.zero_()

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        """x, noise and step of the next minibatch; its learning rates are those in `lr` from
        now on.
        """
        x, noise, step, rates = (
            each.index_select(0, self.place)[0]
            for each in (self.x, self.noise, self.step, self.rates)
        )
        for lr, rate in zip(self.lr, rates.unbind(), strict=True):
            lr.copy_(rate)
        self.place.add_(1)
        return x, noise, step


class Programs(NamedTuple):
    """The replays of one step, of one that is logged, and of all that follow the first of a whole
    chunk.
    """

    one: Run
    logged: Run
    rest: Run


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
        self.update = update_of(algorithm)
        self.capture = capture
        self.why = ""
        self._groups = self.update.optimiser.param_groups
        self._scheduled = bool(algorithm.trainer.lr_scheduler_configs)
        self._inputs: Inputs | None = None
        self._programs: Programs | None = None
        self._loss = torch.zeros((), device=algorithm.device)
        self._names: list[str] = []
        self._values = self._loss.new_empty(0)
        self._gradients: list[Any] = []
        self._fixed: list[object] = []
        self._changes = Changes()

    def __call__(self, chunk: Chunk, logged: bool) -> Taken:
        if self._programs is not None and self._fixed != self._now():
            self._programs = None  # and a step first, in which a new parameter gets its state
            self.update = update_of(self.algorithm)
            if why := self._changes.changed():
                self._refuse(why)
            else:
                return self._begin(chunk, logged)
        if self._programs is None and not self.why:
            if not self.update.optimiser.state:  # which it makes at its first step, in its own way
                return self._begin(chunk, logged)
            self._prepare(chunk)
        if self._programs is None or self._inputs is None:
            return self.eager(chunk, logged)
        rates = [self._rates()]
        numbers = numbers_of(self.update.optimiser, scheduled=True)
        for place in range(1, len(chunk.step)):
            next_lr(self.algorithm.trainer, chunk.first + place)
            if self._scheduled and numbers != numbers_of(self.update.optimiser, scheduled=True):
                taken = self._replayed(part(chunk, 0, place), rates, logged)
                self._refuse("a scheduler moves more than the learning rate")
                self.eager(part(chunk, place, len(chunk.step)), False)
                return taken
            rates.append(self._rates())
        return self._replayed(chunk, rates, logged)

    def _replayed(self, chunk: Chunk, rates: Sequence[Sequence[float]], logged: bool) -> Taken:
        """Take the steps of a chunk, at the learning rates of each, by replay."""
        assert self._programs is not None
        assert self._inputs is not None
        self._changes.used()
        self._inputs.fill(chunk, rates)
        seen: Seen | None = None
        if logged:
            self._programs.logged()
            seen = Seen([self._values, *self.algorithm.finite.memory])
        else:
            self._programs.one()
        loss = self._loss.clone()  # the buffer is the next step's
        if len(chunk.step) == self.algorithm.calls.steps:
            self._programs.rest()
        else:
            for _ in range(len(chunk.step) - 1):
                self._programs.one()
        seed(self.algorithm, chunk.first + len(chunk.step) - 1)
        if seen is None:
            return Taken(loss, {})
        values, *firsts = seen.read()
        self.algorithm.finite.ask(chunk.first + 1, *firsts)
        return Taken(loss, dict(zip(self._names, values.unbind(), strict=True)))

    def _refuse(self, why: str) -> None:
        self.why = why
        self._programs = self._inputs = None
        logger.warning("algorithm.engine: steps are taken eagerly (%s)", why)

    def _begin(self, chunk: Chunk, logged: bool) -> Taken:
        """Take the first step eagerly, and the others as ever.

        On a stream of its own: torch remembers, for as long as a gradient's graph is there, on
        which one a parameter was first used, and no capture may meet the default one.
        """
        gc.collect()
        with aside(self.algorithm.device):
            taken = self.eager(part(chunk, 0, 1), logged)
        if len(chunk.step) > 1:
            next_lr(self.algorithm.trainer, chunk.first + 1)
            self(part(chunk, 1, len(chunk.step)), False)
        return taken

    def _prepare(self, chunk: Chunk) -> None:
        """Capture the step, or find out why not."""
        optimiser = self.update.optimiser
        self._groups = optimiser.param_groups
        self._gradients = []
        steps = max(self.algorithm.calls.steps, len(chunk.step))
        self._inputs = Inputs(chunk, steps, len(self._groups) if self._scheduled else 0)
        self._inputs.fill(chunk, [self._rates()] * len(chunk.step))
        count_on_device(optimiser)
        state = State(self.algorithm, optimiser)
        self.why = steps_differ(self.algorithm) or hooks.called(self.algorithm, torchs=False)
        if not self.why:
            self.why = self._captured(state)
        if self.why.startswith(DEVICE):  # what a library sets up at its first capture in a process
            self.why = self._captured(state)
        if not self.why:
            self.why = self._tried(chunk, state)
        self._fixed = self._now()
        if self.why:
            self._refuse(self.why)

    def _captured(self, state: "State") -> str:
        """Capture the step; the reason why not."""
        optimiser = self.update.optimiser
        inside: list[str] = []
        gc.collect()
        assert self._inputs is not None
        with entered(self.algorithm.model, inside), capturable(optimiser, self._inputs.lr):
            try:
                why = self._warm_up(state)
                if not why:
                    following = self.algorithm.calls.steps - 1
                    self._programs = Programs(
                        one=self._kept(1, logged=False),
                        logged=self._kept(1, logged=True),
                        rest=self._kept(following, logged=False) if following else lambda: None,
                    )
            except Exception as error:  # whatever a module of somebody's own may raise
                why = said(error, inside)
        state.put_back()
        return why

    def _kept(self, steps: int, logged: bool) -> Run:
        """The replay of some steps, whose gradients keep their place as long as it is there."""
        assert self._inputs is not None
        rates = self._inputs.lr

        def run() -> None:
            with capturable(self.update.optimiser, rates):
                for _ in range(steps):
                    self._step(logged)

        self._inputs.place.zero_()
        replay = self.capture(run)
        self._gradients.append([parameter.grad for parameter in self.update.parameters])
        return replay

    def _warm_up(self, state: "State") -> str:
        """Take some steps, as capturing wants it; the reason why they could not be captured."""
        assert self._inputs is not None
        host = on_host(self.update.optimiser)
        with aside(self.algorithm.device):
            for logged in (True, False, True):
                self._inputs.place.zero_()
                self._step(logged)
        counted = host != on_host(self.update.optimiser)
        changed = state.changed()
        moved = state.streams.moved()
        state.put_back()
        if moved:
            self._inputs.place.zero_()
            x, noise, _ = self._inputs.take()
            who = drawing(self.update.model, x, noise)
            state.put_back()
            return f"{who} draws numbers of its own, of {moved}"
        if counted:
            return f"{type(self.update.optimiser).__name__} counts its steps on the host"
        return changed

    def _step(self, logged: bool) -> None:
        """One step on the buffers."""
        assert self._inputs is not None
        x, noise, step = self._inputs.take()

        def look(outcome: Outcome) -> None:
            self.algorithm.finite.remember(*outcome, step)
            self._loss.copy_(outcome.loss.detach())
            if logged:
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
        """The reason to distrust the graphs: far from where they were captured, and at half the
        learning rate where it is scheduled, one is to do what a step does, and the one of a whole
        chunk what as many of that do.
        """
        assert self._programs is not None
        one, logged, rest = self._programs
        following = self.algorithm.calls.steps - 1
        for replay in (logged, one):
            if why := self._compared(chunk, state, 1, lambda: self._step(logged=True), replay):
                return why
        if not following:
            return ""

        def each() -> None:
            for _ in range(following):
                one()

        return self._compared(chunk, state, following, each, rest)

    def _compared(self, chunk: Chunk, state: "State", count: int, run: Run, replay: Run) -> str:
        """The reason to distrust the `replay` of `run`, both of `count` steps."""
        assert self._inputs is not None
        rates = [[rate / 2 for rate in self._rates()]] * count
        whole = [each[None] for each in self.update.parameters]
        inputs = self._inputs

        trainer = self.algorithm.trainer

        def attempt(program: Run) -> Trial:
            inputs.fill(far(chunk, count), rates)
            with capturable(self.update.optimiser, inputs.lr), counting(trainer) as count_to:
                count_to(trainer.global_step + LEAP)  # in case that a module asks for it
                found = tried(program, lambda: self._loss, whole)
            state.put_back()
            return found

        return distrust(attempt, run, replay, trainer.precision)

    def _now(self) -> list[object]:
        places = [
            (id(value), value.data_ptr() if isinstance(value, Tensor) else value)
            for state in self.algorithm.trainer.optimizers[0].state.values()
            for value in state.values()
        ]
        return [places, fixed(self.algorithm, self._scheduled)]

    def _rates(self) -> list[float]:
        """The learning rates of now, of each group of parameters."""
        return [float(group["lr"]) for group in self._groups]
