"""The steps of a stack of models as a CUDA graph: captured once, replayed for each step of a chunk.

What `algorithm.graph` does for one model. Where the step cannot be captured, it is taken eagerly,
and a line says why.
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor
from torch.optim import Optimizer

from jensen.algorithm.capture import (
    Changes,
    Numbers,
    capturable,
    count_on_device,
    fixed,
    numbers_of,
    on_host,
    part,
    said,
)
from jensen.algorithm.chunk import Chunk
from jensen.algorithm.drive import Taken
from jensen.algorithm.graph import Seen
from jensen.algorithm.stacked import Stack, minibatches
from jensen.algorithm.stacked_watch import Steps, Words
from jensen.algorithm.trial import Trial, distrust, far, tried
from jensen.base.replay import Capture, Run, aside, captured

logger = logging.getLogger(__name__)


class StackedGraph:
    """The steps of a stack by replay; `why` is the reason if they are taken eagerly after all.

    Args:
        capture: what makes the replay; on a CPU a test puts another in its place.
    """

    def __init__(self, stack: Stack, capture: Capture = captured) -> None:
        self.stack = stack
        self.capture = capture
        self.why = ""
        self._inputs: tuple[Tensor, Tensor, Tensor] | None = None
        self._place = torch.zeros(1, dtype=torch.int64, device=stack.values[0].device)
        self._plain: Run | None = None
        self._logged: Run | None = None
        self._losses = stack.values[0].new_zeros(len(stack.members)).detach()
        self._names: list[str] = []
        self._terms = self._losses.new_empty(0)
        self._rates: list[list[Tensor]] = []
        self._fixed: list[object] = []
        self._numbers: list[list[object]] = []
        self._changes = Changes()

    def take(self, chunks: Sequence[Chunk], logged: Sequence[bool]) -> list[Steps]:
        """Do as `Stack.take`."""
        if self._plain is not None and self._fixed != self._now():
            self._plain = self._logged = None  # and a step first, in which all is as it is now
            if not (why := self._changes.changed()):
                return self._begin(chunks, logged)
            self._refuse(why)
        if self._plain is None and not self.why:
            if not all(each.state for each in self._optimisers()):
                return self._begin(chunks, logged)
            self._prepare(chunks)
        if self.why:
            return self.stack.take(chunks, logged)
        assert self._plain is not None
        assert self._logged is not None
        self._changes.used()
        self._fill(chunks)
        seen: Seen | None = None
        losses = self._losses
        for place in range(len(chunks[0].step)):
            if place:
                self.stack.next_lr(chunks, place)
            if self._scheduled and place and self._numbers != _numbers(self.stack):
                self._refuse("a scheduler moves more than the learning rate")
            if self.why or ((self._scheduled or not place) and self.stack.optimiser.is_to_part()):
                rest = [part(chunk, place, len(chunk.step)) for chunk in chunks]
                found = self.stack.take(rest, [False] * len(chunks) if place else logged)
                self._plain = self._logged = None
                if not place:
                    return found
                break
            self._set_rates()
            if place == 0 and any(logged):
                self._logged()
                seen = Seen([self._terms, self.stack.watch.firsts])
            else:
                self._plain()
            if not place:
                losses = self._losses.clone()  # the buffer is the next step's
        self.stack.optimiser.share()
        if seen is None:
            return [Steps(Taken(loss, {}), None) for loss in losses]
        terms, firsts = seen.read()
        named = [dict(zip(self._names, own.unbind(), strict=True)) for own in terms]
        return [
            Steps(Taken(loss, own if each else {}), None, first)
            for loss, own, first, each in zip(losses, named, firsts, logged, strict=True)
        ]

    def holds(self) -> bool:
        return self.stack.holds()

    def _begin(self, chunks: Sequence[Chunk], logged: Sequence[bool]) -> list[Steps]:
        """Take the first step eagerly, in which optimisers make their state, and the others as
        ever.
        """
        found = self.stack.take([part(chunk, 0, 1) for chunk in chunks], logged)
        if len(chunks[0].step) > 1:
            self.stack.next_lr(chunks, 1)
            rest = [part(chunk, 1, len(chunk.step)) for chunk in chunks]
            self.take(rest, [False] * len(chunks))
        return found

    @property
    def _scheduled(self) -> bool:
        return bool(self.stack.members[0].trainer.lr_scheduler_configs)

    def _now(self) -> list[object]:
        return [fixed(each, self._scheduled) for each in self.stack.members]

    def _optimisers(self) -> Sequence[Optimizer]:
        return self.stack.optimiser.acting

    def _prepare(self, chunks: Sequence[Chunk]) -> None:
        """Capture the step, or find out why not."""
        self._numbers = _numbers(self.stack)
        if self.stack.optimiser.is_to_part():
            self.stack.optimiser.part()
        optimisers = self._optimisers()
        for optimiser in optimisers:
            count_on_device(optimiser)
        self._fixed = self._now()
        scheduled = self._scheduled
        self._rates = [
            [self._losses.new_tensor(float(group["lr"])) for group in optimiser.param_groups]
            if scheduled
            else []
            for optimiser in optimisers
        ]
        self._fill(chunks)
        kept = _State(self.stack, optimisers)
        with self._capturable():
            try:
                host = [on_host(optimiser) for optimiser in optimisers]
                with aside(self._place.device):
                    for logged in (True, False, True):
                        self._place.zero_()
                        self._step(logged)
                if host != [on_host(optimiser) for optimiser in optimisers]:
                    self.why = f"{type(optimisers[0]).__name__} counts its steps on the host"
                elif changed := kept.changed():
                    self.why = changed
                else:
                    kept.put_back()
                    self._place.zero_()
                    self._plain = self.capture(lambda: self._step(logged=False))
                    self._logged = self.capture(lambda: self._step(logged=True))
            except Exception as error:  # whatever a module of somebody's own may raise
                self.why = said(error, [])
        kept.put_back()
        self.why = self.why or self._tried(chunks, kept)
        if self.why:
            self._inputs = None
            self._refuse(self.why)

    def _refuse(self, why: str) -> None:
        self.why = why
        self._plain = self._logged = None
        logger.warning("the stack's steps are taken eagerly (%s)", why)

    def _tried(self, chunks: Sequence[Chunk], kept: "_State") -> str:
        """The reason to distrust the replay: far from where it was captured, and at half the
        learning rate where it is scheduled, it is to do what the step does, in every model.
        """
        assert self._logged is not None
        assert self._plain is not None

        def attempt(run: Run) -> Trial:
            self._fill([far(chunk, 1) for chunk in chunks])
            self._set_rates(0.5)
            with self._capturable():
                found = tried(run, lambda: self._losses, self.stack.trained)
            kept.put_back()
            return found

        def step() -> None:
            self._step(logged=True)

        precision = self.stack.members[0].trainer.precision
        reasons = (distrust(attempt, step, run, precision) for run in (self._logged, self._plain))
        return next(filter(None, reasons), "")

    def _capturable(self) -> ExitStack:
        """All optimisers count on the device, and read their learning rates from tensors."""
        with ExitStack() as contexts:
            for optimiser, rates in zip(self._optimisers(), self._rates, strict=True):
                contexts.enter_context(capturable(optimiser, rates))
            return contexts.pop_all()

    def _fill(self, chunks: Sequence[Chunk]) -> None:
        """Copy chunks in; the first minibatch of each is next."""
        steps = len(chunks[0].step)
        if self._inputs is None:
            most = max(steps, self.stack.members[0].calls.steps)
            self._inputs = tuple(  # type: ignore[assignment]
                each.new_empty(most, *each.shape) for each in next(minibatches(chunks))
            )
        assert self._inputs is not None
        for at, chunk in enumerate(chunks):
            for buffer, given in zip(self._inputs, (chunk.x, chunk.noise, chunk.step), strict=True):
                buffer[:steps, at].copy_(given)
        self._place.zero_()

    def _step(self, logged: bool) -> None:
        """One step on the buffers."""
        assert self._inputs is not None
        x, noise, step = (each.index_select(0, self._place)[0] for each in self._inputs)
        self._place.add_(1)

        def look(words: Words) -> Sequence[int]:
            self.stack.watch.remember(words, step)
            self._losses.copy_(words.loss)
            if logged:
                self._write(self.stack.watch.word(words, step, [True] * len(self.stack.members)))
            return []

        self.stack.step(x, noise, step, look)

    def _write(self, found: Sequence[Taken]) -> None:
        """Put what is logged where a replay leaves it, too."""
        self._names = [*found[0].terms]
        terms = torch.stack([torch.stack([*taken.terms.values()]) for taken in found])
        if self._terms.shape != terms.shape:
            self._terms = torch.empty_like(terms)
        self._terms.copy_(terms)

    def _set_rates(self, share: float = 1.0) -> None:
        for optimiser, rates in zip(self.stack.optimiser.optimisers, self._rates, strict=False):
            for rate, group in zip(rates, optimiser.param_groups, strict=False):
                rate.fill_(share * float(group["lr"]))


def _numbers(stack: Stack) -> list[list[object]]:
    return [numbers_of(each, scheduled=True) for each in stack.optimiser.optimisers]


class _State:
    """All that a step of a stack may change, and copies of what it was."""

    def __init__(self, stack: Stack, optimisers: Sequence[Optimizer]) -> None:
        self.tensors = [*stack.values, stack.watch.firsts]
        for optimiser in optimisers:
            for state in optimiser.state.values():
                self.tensors += [each for each in state.values() if isinstance(each, Tensor)]
        self.before = [each.detach().clone() for each in self.tensors]
        self.numbers = [
            Numbers(model=each.model, objective=each.objective) for each in stack.members
        ]

    def changed(self) -> str:
        """Tell as `Numbers.changed`, of any of the models."""
        return next(filter(None, (each.changed() for each in self.numbers)), "")

    @torch.no_grad()
    def put_back(self) -> None:
        for tensor, value in zip(self.tensors, self.before, strict=True):
            tensor.copy_(value)
        for each in self.numbers:
            each.put_back()
