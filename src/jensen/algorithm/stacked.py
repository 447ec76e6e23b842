"""K steps of M models as one program.

The parameters, buffers and optimiser state of the models are stacked, `(M, ...)`, and each model's
own are views of its part: whoever looks at a model, saves it or validates it sees what was trained,
and nothing is copied. One model is traced by `torch.func.vmap` for all of them; its products are
made for all at once (`stacked_layers`). Nothing that one model computes enters another's numbers.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap

from jensen.algorithm.chunk import Chunk, next_lr
from jensen.algorithm.drive import Taken, terms_of
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
    """Word on the steps of one model: on the first, and on the one that went wrong, if any did."""

    taken: Taken
    fault: Fault | None


class Stack:
    """M algorithms of one `alike.structure`, whose models are trained together.

    The algorithms have a trainer each, whose optimiser is there.
    """

    def __init__(self, members: Sequence["Gradient"]) -> None:
        self.members = tuple(members)
        self._owners = [_tensors(each.model, each.objective) for each in members]
        self._values = self._bind()
        self._trained = [each for each in self._values if each.requires_grad]
        first = members[0]
        memo = {id(each): each for each in self._owners[0]}  # replaced at each call: not copied
        self._model, self._objective = deepcopy((first.model, first.objective), memo)
        rewrite(self._model, self._objective)
        self._places = _places(self._model, self._objective, self._owners[0])
        self._infer = vmap(self._loss)
        self._learn = vmap(self._learned)
        learns = type(first.model.prior) not in _LEARN_NOTHING
        self._update_prior = self._learn if learns else None
        self._optimiser = self._stacked_optimiser()
        self._x: Tensor | None = None

    def holds(self) -> bool:
        """Tell whether the models' tensors still are the parts of the stack's."""
        return all(
            own.data_ptr() == whole.data_ptr() + place * whole.stride(0) * whole.element_size()
            for place, owned in enumerate(self._owners)
            for own, whole in zip(owned, self._values, strict=True)
        )

    def refusal(self, chunks: Sequence[Chunk]) -> str:
        """The reason why a module of the models cannot be traced for all of them; empty if it can.
        Nothing is left of the trial.
        """
        kept = [each.detach().clone() for each in self._values]
        step = torch.stack([chunk.step[0] for chunk in chunks])
        noise = torch.stack([chunk.noise[0] for chunk in chunks])
        try:
            with torch.no_grad():
                _, inference = self._forward(chunks, 0, noise, step)
                self._learn(self._values, inference.posterior, step)
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
                for member in self.members:
                    next_lr(member.trainer)
            step = torch.stack([chunk.step[place] for chunk in chunks])
            noise = torch.stack([chunk.noise[place] for chunk in chunks])
            loss, inference = self._forward(chunks, place, noise, step)
            if not place:
                taken = self._word(loss, inference, step, logged)
            self._find(faults, loss, inference, chunks, place)
            stopped = [at for at, fault in enumerate(faults) if fault is not None]
            kept = [[each[at].clone() for each in self._values] for at in stopped]
            self._advance(loss, inference, step, stopped)
            self._put_back(stopped, kept)
        self._optimiser.share()
        return [Steps(*each) for each in zip(taken, faults, strict=True)]

    def _forward(
        self, chunks: Sequence[Chunk], place: int, noise: Tensor, step: Tensor
    ) -> tuple[Tensor, Inference]:
        """Loss `(M,)` and inference `(M, B, ...)`, with their graph."""
        self._x = torch.stack([chunk.x[place] for chunk in chunks], out=self._x)
        with self.members[0].trainer.precision_plugin.forward_context():
            found: tuple[Tensor, Inference] = self._infer(self._values, self._x, noise, step)
        return found

    def _advance(
        self, loss: Tensor, inference: Inference, step: Tensor, stopped: Sequence[int]
    ) -> None:
        """The second half of a step: prior, gradient, clipping, optimiser."""
        if self._update_prior is not None:
            posterior = tree_map(Tensor.detach, inference.posterior)
            with torch.no_grad():
                self._update_prior(self._values, posterior, step)
        gradients = torch.autograd.grad(loss.sum(), self._trained, allow_unused=True)
        trainer = self.members[0].trainer
        clipped = clip(gradients, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
        self._optimiser.step(clipped, stopped)

    def _loss(
        self, values: Sequence[Tensor], x: Tensor, noise: Tensor, step: Tensor
    ) -> tuple[Tensor, Inference]:
        """Of one model, inside `vmap`."""
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

    def _word(
        self, loss: Tensor, inference: Inference, step: Tensor, logged: Sequence[bool]
    ) -> list[Taken]:
        found = []
        for at, member in enumerate(self.members):
            terms = {}
            if logged[at]:
                outcome = Outcome(loss[at].detach(), _part(inference, at))
                terms = terms_of(member, outcome, step[at])
            found.append(Taken(loss[at].detach(), terms))
        return found

    def _find(
        self,
        faults: list[Fault | None],
        loss: Tensor,
        inference: Inference,
        chunks: Sequence[Chunk],
        place: int,
    ) -> None:
        """Note the members whose loss is the first that is not finite."""
        finite = loss.detach().isfinite()
        if bool(finite.all()):
            return
        for at, chunk in enumerate(chunks):
            if faults[at] is None and not bool(finite[at]):
                row = chunk.row[place]
                batch = Batch(chunk.x[place], row.new_empty(len(row), 0), row)
                outcome = Outcome(loss[at].detach(), _part(inference, at))
                faults[at] = Fault(outcome, batch, chunk.first + place)

    @torch.no_grad()
    def _put_back(self, stopped: Sequence[int], kept: Sequence[Sequence[Tensor]]) -> None:
        for at, values in zip(stopped, kept, strict=True):
            for whole, value in zip(self._values, values, strict=True):
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

    def _stacked_optimiser(self) -> StackedOptimiser:
        first = self.members[0]
        order = {id(own): at for at, own in enumerate(self._owners[0])}
        optimisers = [member.trainer.optimizers[0] for member in self.members]
        parameters = [
            self._values[order[id(each)]]
            for group in first.trainer.optimizers[0].param_groups
            for each in group["params"]
        ]
        self._trained = parameters
        return StackedOptimiser(optimisers, parameters)


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
