"""Differences that keep models from being one stack, of all that somebody may have changed since they were made."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jensen.algorithm import hooks
from jensen.algorithm.advance import reads_gradients_alone
from jensen.algorithm.alike import structure
from jensen.algorithm.capture import steps_differ

if TYPE_CHECKING:
    from jensen.algorithm.gradient import Gradient


def differing(members: Sequence["Gradient"]) -> str:
    """The reason why what is read of one model does not hold for the others, or is called for one at
    a time; empty if there is none.
    """
    for read, why in _READ_OF_ONE:
        first, *others = map(read, members)
        if any(each != first for each in others):
            return why
    return next(filter(None, map(_called_alone, members)), "")


def _learning(member: "Gradient") -> object:
    parameters = (*member.model.parameters(), *member.objective.parameters())
    return [each.requires_grad for each in parameters]


def _clipping(member: "Gradient") -> object:
    trainer = member.trainer
    return trainer.gradient_clip_val, str(trainer.gradient_clip_algorithm)


_READ_OF_ONE: tuple[tuple[Callable[["Gradient"], object], str], ...] = (
    (_learning, "of one of the models other parameters learn"),
    (
        lambda member: (structure(member.model), structure(member.objective)),
        "one of the models or objectives is built in another way",
    ),
    (_clipping, "their gradients are clipped in different ways"),
)


def _called_alone(member: "Gradient") -> str:
    if why := steps_differ(member) or hooks.called(member):
        return why
    optimiser = member.trainer.optimizers[0]
    if reads_gradients_alone(optimiser):
        return ""
    return f"{type(optimiser).__name__} has a step of its own"
