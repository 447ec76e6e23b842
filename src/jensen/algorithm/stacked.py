"""K steps of M models as one program.

The parameters, buffers and optimiser state of the models are stacked, `(M, ...)`, and each model's
own are views of its part (`stacked_values`): whoever looks at a model, saves it or validates it sees
what was trained, and nothing is copied. One model is traced by `torch.func.vmap` for all of them
(`stacked_program`); its products are made for all at once (`stacked_layers`). Nothing that one model
computes enters another's numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jensen.algorithm.capture import fixed
from jensen.algorithm.chunk import Chunk, next_lr
from jensen.algorithm.drive import Taken
from jensen.algorithm.stacked_optimiser import StackedOptimiser
from jensen.algorithm.stacked_program import StackedProgram
from jensen.algorithm.stacked_trace import Slopes, Traced, Values
from jensen.algorithm.stacked_values import StackedValues
from jensen.algorithm.stacked_watch import Fault, StackedWatch, Steps, Words, find
from jensen.algorithm.step import Outcome, learn, loss_of
from jensen.algorithm.streams import Streams
from jensen.base.tree import tree_map
from jensen.bound.bound import Inference

if TYPE_CHECKING:
    from jensen.algorithm.gradient import Gradient

Look = Callable[[Words], Sequence[int]]


class Stack:
    """M algorithms of one `alike.structure`, whose models are trained together: `differing` finds
    nothing of them.

    The algorithms have a trainer each, whose optimiser is there.

    Args:
        branched: whether each model is computed by itself, beside the others, in the place of one
            program for all.
        kernels: whether `torch.compile` makes them of that program.
    """

    def __init__(
        self, members: Sequence["Gradient"], branched: bool = False, kernels: bool = False
    ) -> None:
        self.members = tuple(members)
        self.branched = branched
        self._values = StackedValues([(each.model, each.objective) for each in members])
        self.values = self._values.stacked
        first = members[0]
        owned = self._values.owned[0]
        self._program = StackedProgram(first.model, first.objective, owned)
        self._slopes = Traced(self._slopes_as_written, first, kernels)
        self._streams = [torch.cuda.Stream() for _ in members] if self.values[0].is_cuda else []
        position = {id(own): at for at, own in enumerate(owned)}
        groups = first.trainer.optimizers[0].param_groups
        self._order = [position[id(each)] for group in groups for each in group["params"]]
        self.trained = [self.values[index] for index in self._order]
        optimisers = [member.trainer.optimizers[0] for member in members]
        self.optimiser = StackedOptimiser(optimisers, self.trained)
        self.watch = StackedWatch(self.members, self.values[0].device)
        self._x: Tensor | None = None
        self._fixed = self._now()

    def holds(self) -> bool:
        """Tell whether the models' tensors still are the parts of the stack's, and learn as they did
        when it was made.
        """
        return self._values.bound() and self.optimiser.bound() and self._fixed == self._now()

    def _now(self) -> list[list[object]]:
        """Settings that somebody may change amid a training; learning rates are looked at in each step."""
        return [fixed(each, scheduled=True) for each in self.members]

    def refusal(self, chunks: Sequence[Chunk]) -> str:
        """The reason why a module of the models cannot be traced for all of them; empty if it can.
        Nothing is left of the trial.
        """
        if self.branched:
            return ""
        everybody = range(len(self.members))
        kept = self._values.of(everybody)
        numbers = self._program.numbers()
        streams = Streams(self.values[0].device)
        x, noise, step = next(minibatches(chunks))
        try:
            with torch.no_grad():
                _, inference = self._forward(self.values, x, noise, step)
                self._program.learn(self.values, inference.posterior, step)
        except Exception as error:  # whatever a module of somebody's own may raise
            return str(error).strip().partition("\n")[0] or type(error).__name__
        finally:
            self._values.put_back(everybody, kept)
            moved = streams.moved()
            streams.put_back()
        return f"a step draws numbers of its own, of {moved}" if moved else numbers.changed()

    def take(self, chunks: Sequence[Chunk], logged: Sequence[bool]) -> list[Steps]:
        """Take the steps of a chunk for each member, in place; K and all shapes are equal."""
        taken: list[Taken] = []
        faults: list[Fault | None] = [None] * len(self.members)
        asking_is_free = not self.values[0].is_cuda
        for place, (x, noise, step) in enumerate(minibatches(chunks, self._x)):
            if place:
                self.next_lr(chunks, place)
            self._x = x

            def look(words: Words, step: Tensor = step, place: int = place) -> Sequence[int]:
                if not place:
                    taken.extend(self.watch.word(words, step, logged))
                if asking_is_free:
                    faults[:] = find(faults, words, chunks, place)
                else:
                    self.watch.remember(words, step)
                return [at for at, fault in enumerate(faults) if fault is not None]

            self.step(x, noise, step, look)
        self.optimiser.share()
        asked = any(logged) and not asking_is_free
        firsts = [*self.watch.firsts.cpu()] if asked else [None] * len(self.members)
        return [Steps(*each) for each in zip(taken, faults, firsts, strict=True)]

    def step(self, x: Tensor, noise: Tensor, step: Tensor, look: Look) -> None:
        """One whole step on tensors `(M, ...)`, in place. `look` is given the losses and inferences
        before anything changes, and says who is to be left as it is.
        """
        if self.branched:
            self._step_by_branches(x, noise, step, look)
            return
        loss, inference, gradients = self._slopes(self.values, x, noise, step)

        def means() -> list[Tensor]:
            return [part.mean(1) for part in inference.bound]

        stopped = look(Words(loss, means, lambda at: _part(inference, at)))
        kept = self._values.of(stopped)
        if self._program.learns:
            with torch.no_grad():
                self._program.learn(self.values, inference.posterior, step)
        self._move(gradients, stopped)
        self._values.put_back(stopped, kept)

    def next_lr(self, chunks: Sequence[Chunk], place: int) -> None:
        """Move the learning rates on, before the step at a place in the chunks."""
        for member, chunk in zip(self.members, chunks, strict=True):
            next_lr(member.trainer, chunk.first + place)

    def _slopes_as_written(self, values: Values, x: Tensor, noise: Tensor, step: Tensor) -> Slopes:
        loss, inference = self._forward(values, x, noise, step)
        trained = [values[index] for index in self._order]
        gradients = _gradients(loss.sum(), trained)
        return Slopes(loss.detach(), tree_map(Tensor.detach, inference), gradients)

    def _forward(
        self, values: Values, x: Tensor, noise: Tensor, step: Tensor
    ) -> tuple[Tensor, Inference]:
        """Loss `(M,)` and inference `(M, B, ...)`, with their graph."""
        with self.members[0].trainer.precision_plugin.forward_context():
            return self._program.infer(values, x, noise, step)

    def _step_by_branches(self, x: Tensor, noise: Tensor, step: Tensor, look: Look) -> None:
        """The same, each model by itself and on a GPU beside the others, on a stream of its own."""
        outcomes: list[Outcome] = []
        gradients: list[Sequence[Tensor | None]] = []
        for at, member in self._beside():
            with member.trainer.precision_plugin.forward_context():
                inference = member.model(x[at], noise[at])
                loss = loss_of(member.objective, inference, step[at])
            outcomes.append(Outcome(loss.detach(), tree_map(Tensor.detach, inference)))
            own = [self._values.owned[at][index] for index in self._order]
            gradients.append(_gradients(loss, own))
        losses = torch.stack([outcome.loss for outcome in outcomes])

        def means() -> list[Tensor]:
            bounds = zip(*(outcome.inference.bound for outcome in outcomes), strict=True)
            return [torch.stack([part.mean() for part in parts]) for parts in bounds]

        stopped = look(Words(losses, means, lambda at: outcomes[at].inference))
        kept = self._values.of(stopped)
        for at, member in enumerate(self.members):
            learn(member.model, outcomes[at].inference, x.shape[1], step[at])
        joined = [
            None if each[0] is None else torch.stack(each)  # type: ignore[arg-type]
            for each in map(list, zip(*gradients, strict=True))
        ]
        self._move(joined, stopped)
        self._values.put_back(stopped, kept)

    def _beside(self) -> Iterator[tuple[int, "Gradient"]]:
        """The members, each on a stream that begins here and has ended where this ends."""
        if not self.values[0].is_cuda:
            yield from enumerate(self.members)
            return
        here = torch.cuda.current_stream()
        for at, member in enumerate(self.members):
            stream = self._streams[at]
            stream.wait_stream(here)
            with torch.cuda.stream(stream):
                yield at, member
        for stream in self._streams:
            here.wait_stream(stream)

    def _move(self, gradients: Sequence[Tensor | None], stopped: Sequence[int]) -> None:
        """Clip, and step."""
        trainer = self.members[0].trainer
        clipped = clip(gradients, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
        self.optimiser.step(clipped, stopped)


def minibatches(
    chunks: Sequence[Chunk], out: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """x `(M, B, *event)`, all in the same memory, noise and step `(M, ...)`, place after place."""
    noises = torch.stack([chunk.noise for chunk in chunks], 1)
    steps = torch.stack([chunk.step for chunk in chunks], 1)
    places = zip(*(chunk.x for chunk in chunks), strict=True)
    if out is not None and out.shape[1:] != chunks[0].x.shape[1:]:
        out = None
    for parts, noise, step in zip(places, noises, steps, strict=True):
        out = torch.stack(parts, out=out)
        yield out, noise, step


def _gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of a loss `()`; None for those that it does not depend on, or that do not learn."""
    learning = [each for each in parameters if each.requires_grad]
    found = iter(torch.autograd.grad(loss, learning, allow_unused=True))
    return [next(found) if each.requires_grad else None for each in parameters]


def clip(
    gradients: Sequence[Tensor | None], most: float | None, by: str | None
) -> list[Tensor | None]:
    """Shorten the gradients `(M, ...)` of each model as Lightning does those of one, and lay them
    out as optimisers want them.
    """
    found = [None if each is None else each.contiguous() for each in gradients]
    if not most:
        return found
    if str(getattr(by, "value", by)) == "value":
        return [None if each is None else each.clamp(-most, most) for each in found]
    norms = [each.reshape(len(each), -1).norm(dim=1) for each in found if each is not None]
    share = (most / (torch.stack(norms).norm(dim=0) + 1e-6)).clamp(max=1.0)
    return [
        None if each is None else each * share.view(-1, *[1] * (each.dim() - 1)) for each in found
    ]


def _part(inference: Inference, at: int) -> Inference:
    """The inference of one of the models, without its graph."""
    return tree_map(lambda part: part[at].detach(), inference)
