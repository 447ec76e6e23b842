"""Jobs that are trained in turn, a chunk of steps at a time, all of which are taken at once.

Each job is a whole ordinary run, with its own trainer, data, folder and checkpoints, in a coroutine
(greenlet) of its own. Where its algorithm would take the steps of a chunk, it waits; once all wait,
their steps are taken as one program (`algorithm.stacked`), and each goes on by itself: logs,
validates, saves, and comes back with its next chunk. A job that ends leaves the others as they are.
While one waits for a score that other processes compute, the others go on to theirs.

All coroutines live in the main thread, so what is global to a process is set as each wants it
whenever it goes on (`scene`).
"""

import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import Future
from functools import partial
from typing import Any

import torch
from greenlet import getcurrent, greenlet
from hydra.types import TaskFunction

from jensen.algorithm.chunk import Chunk
from jensen.algorithm.differing import differing
from jensen.algorithm.drive import DRIVES, Drive, Taken, seed
from jensen.algorithm.gradient import Gradient
from jensen.algorithm.stacked import Stack
from jensen.algorithm.stacked_graph import StackedGraph
from jensen.algorithm.stacked_layers import has_convolutions
from jensen.algorithm.stacked_watch import Steps
from jensen.base import signals
from jensen.base.signals import Stopped
from jensen.base.waiting import SHARING, Sharing
from jensen.callbacks.progress import Progress
from jensen.callbacks.words import SPEAKER
from jensen.launch import scene, sequential
from jensen.launch.job import Job
from jensen.launch.sweep import Sweep
from jensen.run.words import say

_KERNELS = 4
"""Stacks of a group that kernels are made for, which takes seconds each time: where a member ends early, or
somebody changes a number, another stack begins.
"""


class Member:
    """A job in its coroutine.

    chunk: the steps that it waits for, of its `algorithm`; None where it does not. elsewhere: what
        it waits for of other processes.
    """

    def __init__(self, job: Job, life: greenlet) -> None:
        self.job = job
        self.life = life
        self.scene = scene.now()
        self.algorithm: Gradient | None = None
        self.chunk: Chunk | None = None
        self.logged = False
        self.elsewhere: Future[Any] | None = None


class Together:
    """The jobs of a group, from their start to their end.

    Args:
        first: the number of the first of them in the sweep.
        convolutions: `branches`, or `grouped`.
    """

    def __init__(
        self,
        sweep: Sweep,
        jobs: Sequence[Job],
        first: int,
        task: TaskFunction,
        convolutions: str = "branches",
    ) -> None:
        self.convolutions = convolutions
        self.sweep = sweep
        self.task = task
        self.first = first
        self.members = [Member(job, greenlet(self._live)) for job in jobs]
        self.stopped: Stopped | None = None
        self._stacks: dict[tuple[int, ...], Stack | StackedGraph] = {}
        self._refused = False
        self._with_kernels = 0

    def run(self) -> None:
        """Raises:
        Stopped: a signal came; every job has saved itself.
        """
        self.scene = scene.now()
        for place, member in enumerate(self.members):
            if self.stopped is None:
                self._go_on(member, member, place)
        while waiting := self._waiting():
            for together in _alike(waiting):
                self._take(together)
        if self.stopped is not None:
            signals.forget()
            raise self.stopped

    def _waiting(self) -> list[Member]:
        """The members that wait for their steps, once all have come that wait for something else."""
        while others := {
            member.elsewhere: member for member in self.members if member.elsewhere is not None
        }:
            for done in futures.wait(others, return_when=futures.FIRST_COMPLETED).done:
                others[done].elsewhere = None
                self._go_on(others[done])
        return [member for member in self.members if member.chunk is not None]

    def _live(self, member: Member, place: int) -> None:
        """The whole of a job, in its coroutine."""
        SHARING.set(Sharing(len(self.members), partial(_elsewhere, member)))
        SPEAKER.set(member.job.folder.name)
        DRIVES.set(lambda algorithm: Waiting(self, member, algorithm, shown=not place))
        try:
            sequential.do(self.sweep, member.job, self.first + place, self.task)
        except Stopped as stopped:
            self.stopped = stopped
        finally:
            scene.close_logs()

    def _go_on(self, member: Member, *given: Any) -> None:
        """Have a member go on until it waits again, or has ended."""
        member.chunk = None
        if self.stopped is not None:
            signals.note(int(self.stopped.code or 128) - 128)
        member.scene.set()
        try:
            member.life.switch(*given)
        finally:
            member.scene = scene.now()
            self.scene.set()
            if member.life.dead:
                member.algorithm = None
                signals.listen()  # Lightning has put back the handlers of before that member

    def _take(self, members: Sequence[Member]) -> None:
        """Take the steps of members that wait for as many, of one shape, and have each go on."""
        chunks = [member.chunk for member in members if member.chunk is not None]
        stack = self._stack(members, chunks)
        found: list[Steps | None] = [None] * len(members)
        if stack is not None:
            found = [*stack.take(chunks, [member.logged for member in members])]
        for member, steps in zip(members, found, strict=True):
            self._go_on(member, steps)

    def _stack(
        self, members: Sequence[Member], chunks: Sequence[Chunk]
    ) -> Stack | StackedGraph | None:
        """The stack of these members; None if they are to take their steps themselves."""
        algorithms = [member.algorithm for member in members if member.algorithm is not None]
        key = tuple(map(id, algorithms))
        if (found := self._stacks.get(key)) is not None and found.holds():
            return found
        self._stacks.clear()
        if len(members) == 1 or self._refused:
            return None
        if not (why := differing(algorithms)):
            branched = self._branched(algorithms[0])
            stack = Stack(algorithms, branched, self._are_kernels_due(algorithms[0]))
            why = stack.refusal(chunks)
        if why:
            self._refused = True
            say(f"one after another after all, since they cannot be stacked ({why})")
            return None
        graphed = algorithms[0].device.type == "cuda" and algorithms[0].calls.engine != "eager"
        self._stacks[key] = StackedGraph(stack) if graphed else stack
        return self._stacks[key]

    def _are_kernels_due(self, algorithm: Gradient) -> bool:
        """Tell whether kernels are wanted, and were not made again and again."""
        if algorithm.compiled is None:
            return False
        self._with_kernels += 1
        if self._with_kernels == _KERNELS + 1:
            say(
                f"algorithm.compile: no more kernels, after those of {_KERNELS} stacks of these jobs"
            )
        return self._with_kernels <= _KERNELS

    def _branched(self, algorithm: Gradient) -> bool:
        """Tell whether convolutions are to be computed by branches of the graph, beside each other."""
        return self.convolutions == "branches" and has_convolutions(algorithm.model)


def _elsewhere(member: Member, function: Callable[[], Any]) -> Any:
    """The value of a function, for which a member waits in its coroutine while the others go on."""
    asked: Future[Any] = Future()

    def call() -> None:
        try:
            asked.set_result(function())
        except BaseException as error:
            asked.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    member.elsewhere = asked
    with scene.torch_at_rest(), torch.inference_mode(False):
        getcurrent().parent.switch()
    return asked.result()


class Waiting:
    """The `Drive` of a member: it waits until all have come, and their steps have been taken."""

    def __init__(
        self, together: Together, member: Member, algorithm: Gradient, shown: bool
    ) -> None:
        self.member = member
        self.algorithm = algorithm
        self.alone: Drive | None = None
        member.algorithm = algorithm
        if not shown:
            for each in algorithm.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(each, Progress):  # one bar for all
                    each.disable()

    def __call__(self, chunk: Chunk, logged: bool) -> Taken:
        self.member.chunk = chunk
        self.member.logged = logged
        with scene.torch_at_rest():
            steps: Steps | None = getcurrent().parent.switch()
        if steps is None:
            self.alone = self.alone or self.algorithm.calls.own()
            return self.alone(chunk, logged)
        seed(self.algorithm, chunk.first + len(chunk.step) - 1)
        if steps.fault is not None:
            outcome, batch, step = steps.fault
            self.algorithm.finite.watch(*outcome, batch, step)
        if steps.firsts is not None:
            self.algorithm.finite.ask(chunk.first + 1, steps.firsts)
        return steps.taken


def _alike(members: Sequence[Member]) -> list[list[Member]]:
    """Members whose chunks are of one shape, together."""
    found: dict[Any, list[Member]] = {}
    for member in members:
        assert member.chunk is not None
        shapes = tuple(tuple(part.shape) for part in member.chunk if hasattr(part, "shape"))
        found.setdefault(shapes, []).append(member)
    return [*found.values()]
