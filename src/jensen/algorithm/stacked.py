"""K steps of M models as one program.

The parameters, buffers and optimiser state of the models are stacked, `(M, ...)`, and each model's
own are views of its part: whoever looks at a model, saves it or validates it sees what was trained,
and nothing is copied. One model is traced by `torch.func.vmap` for all of them; its products are
made for all at once (`stacked_layers`). Nothing that one model computes enters another's numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap

from jensen.algorithm.chunk import Chunk, next_lr
from jensen.algorithm.drive import Taken, terms_of
from jensen.algorithm.finite import NEVER
from jensen.algorithm.stacked_layers import rewrite
from jensen.algorithm.stacked_optimiser import StackedOptimiser
from jensen.algorithm.step import Outcome, learn, loss_of
from jensen.base.batch import Batch
from jensen.base.tree import tree_map
from jensen.bound.bound import Inference
from jensen.model.prior import StandardNormal
from jensen.model.vamp import VampPrior

if TYPE_CHECKING:
    from jensen.algorithm.gradient import Gradient

_LEARN_NOTHING = (StandardNormal, VampPrior)
Place = tuple[dict[str, Any], str]


class Fault(NamedTuple):
    """A loss that is not finite, with what it is of: a run ends by it (`finite.Stop.watch`)."""

    outcome: Outcome
    batch: Batch
    step: int


class Steps(NamedTuple):
    """Word on the steps of one model: on the first, and on the one that went wrong, if any did.

    firsts: on a GPU, what `finite.Stop` remembers, for it to be asked.
    """

    taken: Taken
    fault: Fault | None
    firsts: Tensor | None = None


class Words(NamedTuple):
    """Word on a step of all models: losses `(M,)`; mean distortions and rates `(M,)` each; and the
    inference of each model. All without their graph.
    """

    loss: Tensor
    means: Callable[[], Sequence[Tensor]]
    inference: Callable[[int], Inference]


Look = Callable[[Words], Sequence[int]]


class Stack:
    """M algorithms of one `alike.structure`, whose models are trained together.

    The algorithms have a trainer each, whose optimiser is there.

    Args:
        branched: whether each model is computed by itself, beside the others, in the place of one
            program for all.
    """

    def __init__(self, members: Sequence["Gradient"], branched: bool = False) -> None:
        self.members = tuple(members)
        self.branched = branched
        self._owners = [_tensors(each.model, each.objective) for each in members]
        self.values = self._bind()
        first = members[0]
        memo = {id(each): each for each in self._owners[0]}  # replaced at each call: not copied
        self._model, self._objective = deepcopy((first.model, first.objective), memo)
        rewrite(self._model, self._objective)
        self._places = _places(self._model, self._objective, self._owners[0])
        self._infer = vmap(self._loss)
        self._learn = vmap(self._learned)
        self._learns = type(first.model.prior) not in _LEARN_NOTHING
        self._streams = [torch.cuda.Stream() for _ in members] if self.values[0].is_cuda else []
        position = {id(own): at for at, own in enumerate(self._owners[0])}
        groups = first.trainer.optimizers[0].param_groups
        self._order = [position[id(each)] for group in groups for each in group["params"]]
        self.trained = [self.values[index] for index in self._order]
        optimisers = [member.trainer.optimizers[0] for member in members]
        self.optimiser = StackedOptimiser(optimisers, self.trained)
        self._x: Tensor | None = None
        device = self.values[0].device
        self.firsts = torch.full((len(members), 3), NEVER, dtype=torch.int64, device=device)
        for member, own in zip(members, self.firsts, strict=True):
            member.finite.remember_in(own)

    def holds(self) -> bool:
        """Tell whether the models' tensors still are the parts of the stack's."""
        return all(
            own.data_ptr() == whole.data_ptr() + place * whole.stride(0) * whole.element_size()
            for place, owned in enumerate(self._owners)
            for own, whole in zip(owned, self.values, strict=True)
        )

    def refusal(self, chunks: Sequence[Chunk]) -> str:
        """The reason why a module of the models cannot be traced for all of them; empty if it can.
        Nothing is left of the trial.
        """
        if self.branched:
            return ""
        kept = [each.detach().clone() for each in self.values]
        x, noise, step = minibatch(chunks, 0)
        try:
            with torch.no_grad():
                _, inference = self._forward(x, noise, step)
                self._learn(self.values, inference.posterior, step)
        except Exception as error:  # whatever a module of somebody's own may raise
            return str(error).strip().partition("\n")[0] or type(error).__name__
        finally:
            for at in range(len(self.members)):
                self._put_back([at], [[each[at] for each in kept]])
        return ""

    def take(self, chunks: Sequence[Chunk], logged: Sequence[bool]) -> list[Steps]:
        """Take the steps of a chunk for each member, in place; K and all shapes are equal."""
        taken: list[Taken] = []
        faults: list[Fault | None] = [None] * len(self.members)
        for place in range(len(chunks[0].step)):
            if place:
                self.next_lr()
            x, noise, step = minibatch(chunks, place, self._x)
            self._x = x

            def look(words: Words, step: Tensor = step, place: int = place) -> Sequence[int]:
                if not place:
                    taken.extend(self.word(words, step, logged))
                if self.asking_is_free:
                    self._find(faults, words, chunks, place)
                else:
                    self.remember(words, step)
                return [at for at, fault in enumerate(faults) if fault is not None]

            self.step(x, noise, step, look)
        self.optimiser.share()
        asked = any(logged) and not self.asking_is_free
        firsts = [*self.firsts.cpu()] if asked else [None] * len(self.members)
        return [Steps(*each) for each in zip(taken, faults, firsts, strict=True)]

    def step(self, x: Tensor, noise: Tensor, step: Tensor, look: Look) -> None:
        """One whole step on tensors `(M, ...)`, in place. `look` is given the losses and inferences
        before anything changes, and says who is to be left as it is.
        """
        if self.branched:
            self._step_by_branches(x, noise, step, look)
            return
        loss, inference = self._forward(x, noise, step)
        bound = tree_map(Tensor.detach, inference.bound)

        def means() -> list[Tensor]:
            return [part.mean(1) for part in bound]

        stopped = look(Words(loss.detach(), means, lambda at: _part(inference, at)))
        kept = [[each[at].clone() for each in self.values] for at in stopped]
        if self._learns:
            with torch.no_grad():
                self._learn(self.values, tree_map(Tensor.detach, inference.posterior), step)
        self._move(torch.autograd.grad(loss.sum(), self.trained, allow_unused=True), stopped)
        self._put_back(stopped, kept)

    def next_lr(self) -> None:
        for member in self.members:
            next_lr(member.trainer)

    @property
    def asking_is_free(self) -> bool:
        return not self.values[0].is_cuda

    def _forward(self, x: Tensor, noise: Tensor, step: Tensor) -> tuple[Tensor, Inference]:
        """Loss `(M,)` and inference `(M, B, ...)`, with their graph."""
        with self.members[0].trainer.precision_plugin.forward_context():
            found: tuple[Tensor, Inference] = self._infer(self.values, x, noise, step)
        return found

    def _step_by_branches(self, x: Tensor, noise: Tensor, step: Tensor, look: Look) -> None:
        """The same, each model by itself and on a GPU beside the others, on a stream of its own."""
        outcomes: list[Outcome] = []
        gradients: list[Sequence[Tensor | None]] = []
        for at, member in self._beside():
            with member.trainer.precision_plugin.forward_context():
                inference = member.model(x[at], noise[at])
                loss = loss_of(member.objective, inference, step[at])
            outcomes.append(Outcome(loss.detach(), tree_map(Tensor.detach, inference)))
            own = [self._owners[at][index] for index in self._order]
            gradients.append(torch.autograd.grad(loss, own, allow_unused=True))
        losses = torch.stack([outcome.loss for outcome in outcomes])

        def means() -> list[Tensor]:
            bounds = zip(*(outcome.inference.bound for outcome in outcomes), strict=True)
            return [torch.stack([part.mean() for part in parts]) for parts in bounds]

        stopped = look(Words(losses, means, lambda at: outcomes[at].inference))
        kept = [[each[at].clone() for each in self.values] for at in stopped]
        for at, member in enumerate(self.members):
            learn(member.model, outcomes[at].inference, x.shape[1], step[at])
        joined = [
            None if each[0] is None else torch.stack(each)  # type: ignore[arg-type]
            for each in map(list, zip(*gradients, strict=True))
        ]
        self._move(joined, stopped)
        self._put_back(stopped, kept)

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

    def _loss(
        self, values: Sequence[Tensor], x: Tensor, noise: Tensor, step: Tensor
    ) -> tuple[Tensor, Inference]:
        """Take the step of one model, inside `vmap`."""
        self._put(values)
        inference = self._model(x, noise)
        loss = loss_of(self._objective, inference, step)
        self._check_kept(values)
        return loss, inference

    def _learned(self, values: Sequence[Tensor], posterior: Any, step: Tensor) -> Tensor:
        """The prior of one model learns, inside `vmap`."""
        self._put(values)
        examples = len(posterior.mean) // self._objective.samples
        learn(self._model, Inference(None, posterior, None, None), examples, step)  # type: ignore[arg-type]
        self._check_kept(values)
        return step

    def _put(self, values: Sequence[Tensor]) -> None:
        for places, value in zip(self._places, values, strict=True):
            for held, name in places:
                held[name] = value

    def _check_kept(self, values: Sequence[Tensor]) -> None:
        """Refuse a module that puts another tensor in the place of its own, which `vmap` would
        lose.
        """
        for places, value in zip(self._places, values, strict=True):
            for held, name in places:
                if held[name] is not value:
                    raise RuntimeError(f"{name} is replaced, not changed in place")

    def word(self, words: "Words", step: Tensor, logged: Sequence[bool]) -> list[Taken]:
        """The word on a step, of each member that logs it."""
        found = []
        for at, member in enumerate(self.members):
            terms = {}
            if logged[at]:
                terms = terms_of(member, Outcome(words.loss[at], words.inference(at)), step[at])
            found.append(Taken(words.loss[at], terms))
        return found

    def remember(self, words: "Words", step: Tensor) -> None:
        """Look at the losses of a step, and wait for nothing: each member finds its own."""
        values = torch.stack([words.loss, *words.means()], 1)
        here = torch.where(values.isfinite(), NEVER, step[:, None])
        torch.minimum(self.firsts, here, out=self.firsts)

    def _find(
        self,
        faults: list[Fault | None],
        words: "Words",
        chunks: Sequence[Chunk],
        place: int,
    ) -> None:
        """Note the members whose loss is the first that is not finite."""
        finite = words.loss.isfinite()
        if bool(finite.all()):
            return
        for at, chunk in enumerate(chunks):
            if faults[at] is None and not bool(finite[at]):
                row = chunk.row[place]
                batch = Batch(chunk.x[place], row.new_empty(len(row), 0), row)
                outcome = Outcome(words.loss[at], words.inference(at))
                faults[at] = Fault(outcome, batch, chunk.first + place)

    @torch.no_grad()
    def _put_back(self, stopped: Sequence[int], kept: Sequence[Sequence[Tensor]]) -> None:
        for at, values in zip(stopped, kept, strict=True):
            for whole, value in zip(self.values, values, strict=True):
                whole[at].copy_(value)

    def _bind(self) -> list[Tensor]:
        """Stack the members' tensors, and make them views."""
        values = []
        for owned in zip(*self._owners, strict=True):
            whole = torch.stack([each.detach() for each in owned])
            for own, part in zip(owned, whole, strict=True):
                own.data = part
            values.append(whole.requires_grad_(owned[0].requires_grad))
        return values


def minibatch(
    chunks: Sequence[Chunk], place: int, out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """x `(M, B, *event)`, in `out` if it is given, noise and step of one place in all chunks."""
    return (
        torch.stack([chunk.x[place] for chunk in chunks], out=out),
        torch.stack([chunk.noise[place] for chunk in chunks]),
        torch.stack([chunk.step[place] for chunk in chunks]),
    )


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
    norms = [each.flatten(1).norm(dim=1) for each in found if each is not None]
    share = (most / (torch.stack(norms).norm(dim=0) + 1e-6)).clamp(max=1.0)
    return [
        None if each is None else each * share.view(-1, *[1] * (each.dim() - 1)) for each in found
    ]


def _part(inference: Inference, at: int) -> Inference:
    """The inference of one of the models, without its graph."""
    return tree_map(lambda part: part[at].detach(), inference)


def _tensors(*modules: nn.Module) -> list[Tensor]:
    """Parameters and buffers, each once."""
    found = {id(held[name]): held[name] for held, name in _held(*modules)}
    return [*found.values()]


def _places(model: nn.Module, objective: nn.Module, tensors: Sequence[Tensor]) -> list[list[Place]]:
    """The places of each tensor in modules; of one that two share, both."""
    found: dict[int, list[Place]] = {id(each): [] for each in tensors}
    for held, name in _held(model, objective):
        found[id(held[name])].append((held, name))
    return [*found.values()]


def _held(*modules: nn.Module) -> Iterator[Place]:
    for module in modules:
        for part in module.modules():
            for held in (part._parameters, part._buffers):
                for name, value in held.items():
                    if value is not None:
                        yield held, name
