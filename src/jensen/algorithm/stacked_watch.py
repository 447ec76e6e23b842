"""Word on the steps of a stack: what each model logs, and its first loss that is not finite."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from jensen.algorithm.chunk import Chunk
from jensen.algorithm.drive import Taken, terms_of
from jensen.algorithm.finite import NEVER
from jensen.algorithm.step import Outcome
from jensen.base.batch import Batch
from jensen.bound.bound import Inference

if TYPE_CHECKING:
    from jensen.algorithm.gradient import Gradient


class Words(NamedTuple):
    """Word on a step of all models: losses `(M,)`; mean distortions and rates `(M,)` each; and the
    inference of each model. All without their graph.
    """

    loss: Tensor
    means: Callable[[], Sequence[Tensor]]
    inference: Callable[[int], Inference]


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


class StackedWatch:
    """The losses of a stack's models, as the steps are taken.

    firsts: `(M, 3)`, the first step at which the loss, distortion and rate of each were not finite.
    """

    def __init__(self, members: Sequence["Gradient"], device: torch.device) -> None:
        self.members = members
        self.firsts = torch.full((len(members), 3), NEVER, dtype=torch.int64, device=device)
        for member, own in zip(members, self.firsts, strict=True):
            member.finite.remember_in(own)

    def word(self, words: Words, step: Tensor, logged: Sequence[bool]) -> list[Taken]:
        """The word on a step, of each member that logs it."""
        found = []
        for at, member in enumerate(self.members):
            terms = {}
            if logged[at]:
                terms = terms_of(member, Outcome(words.loss[at], words.inference(at)), step[at])
            found.append(Taken(words.loss[at], terms))
        return found

    def remember(self, words: Words, step: Tensor) -> None:
        """Look at the losses of a step, and wait for nothing: each member finds its own."""
        values = torch.stack([words.loss, *words.means()], 1)
        here = torch.where(values.isfinite(), NEVER, step[:, None])
        torch.minimum(self.firsts, here, out=self.firsts)


def find(
    faults: list[Fault | None], words: Words, chunks: Sequence[Chunk], place: int
) -> list[Fault | None]:
    """The faults so far, and those of the members whose loss is the first that is not finite."""
    finite = words.loss.isfinite()
    if bool(finite.all()):
        return faults
    found = [*faults]
    for at, chunk in enumerate(chunks):
        if found[at] is None and not bool(finite[at]):
            row = chunk.row[place]
            batch = Batch(chunk.x[place], row.new_empty(len(row), 0), row)
            outcome = Outcome(words.loss[at], words.inference(at))
            found[at] = Fault(outcome, batch, chunk.first + place)
    return found
