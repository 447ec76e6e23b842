"""A stack's losses, inferences and slopes as a list of operations, written down once.

`torch.func.vmap` and autograd come to the same operations in each step, and of small models ask for them
longer than those take. So they are listed (`torch.fx`), for each shape of a minibatch, and the list is
called from then on; with `algorithm.compile=true` torch makes kernels of it, once for all models.

Whatever else a step reads of Python stays in the list as it was. So without `compile` only models of
jensen's and torch's own modules have one, which read nothing; and a list, and its kernels, are tried at
other examples and a far step before they are trusted, and left where they give something else.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import _get_current_dispatch_mode

from jensen.algorithm import kernels
from jensen.algorithm.origin import is_known
from jensen.algorithm.trial import LEAP
from jensen.base.tree import tree_leaves, tree_map
from jensen.bound.bound import Inference

if TYPE_CHECKING:
    from jensen.algorithm.gradient import Gradient

logger = logging.getLogger(__name__)


class Slopes(NamedTuple):
    """Losses `(M,)`, inferences `(M, B, ...)` and gradients `(M, ...)` of a step, without their graph; None
    for the gradient of what does not learn.
    """

    loss: Tensor
    inference: Inference
    gradients: list[Tensor | None]


Values = Sequence[Tensor]
Compute = Callable[[Values, Tensor, Tensor, Tensor], Slopes]
"""Of the values `(M, ...)`, x `(M, B, *event)`, noise and step of all models."""

Given = tuple[Values, Tensor, Tensor, Tensor]

FIRST = 25
"""Steps of a stack that are computed as they are written: to list them takes as long, and a stack that
somebody changes after each chunk would be listed again and again.
"""


class Traced:
    """`compute`, by kernels or by the list of its operations where there can be one; `why` is the reason if
    there is none of what was asked for.

    Args:
        algorithm: of one of the models.
        compiled: whether kernels are wanted.
    """

    make: Callable[..., Callable[..., list[Tensor]]] = staticmethod(kernels.made)
    """What makes the kernels; a test puts another in its place."""

    def __init__(self, compute: Compute, algorithm: "Gradient", compiled: bool) -> None:
        self.compute = compute
        self.why = ""
        self._rough = kernels.ROUGH.get(str(algorithm.trainer.precision), 1e-2)
        self._compiled = compiled
        self._lists = (
            algorithm.device.type == "cpu"  # on a GPU a graph asks for nothing either
            and algorithm.calls.engine != "eager"
            and is_known(algorithm.model, algorithm.objective)
        )
        self._calls: dict[object, Compute] = {}
        self._seen: dict[object, int] = {}

    def __call__(self, values: Values, x: Tensor, noise: Tensor, step: Tensor) -> Slopes:
        given = (values, x, noise, step)
        if not (self._compiled or self._lists) or _is_watched():
            return self.compute(*given)
        shapes = (x.shape, noise.shape)
        self._seen[shapes] = self._seen.get(shapes, 0) + 1
        if shapes not in self._calls:
            if self._seen[shapes] <= FIRST and not self._compiled:
                return self.compute(*given)
            self._calls[shapes] = self._made(given)
        return self._calls[shapes](*given)

    def _made(self, given: Given) -> Compute:
        """The one that computes from now on; nothing is left of its trial."""
        if self._compiled:
            made, self.why = self._tried(self.make, given)
            if not self.why:
                return made
            logger.warning("algorithm.compile: the stack's steps are no kernels (%s)", self.why)
        if self._lists:
            made, why = self._tried(lambda program: program, given)
            if not why:
                return made
            logger.debug("the stack's steps are computed as written (%s)", why)
        return self.compute

    def _tried(self, make: Callable[..., Any], given: Given) -> tuple[Compute, str]:
        """The step that `make` makes of the list, with the reason to leave it, if there is one."""
        before = [each.detach().clone() for each in given[0]]
        try:
            values, x, noise, step = given
            others = (values, x.flip(1), -noise, step + LEAP)
            with kernels.unheard():
                made = _Listed(self.compute, given, make)
                _put_back(values, before)
                found = made(*others)
            _put_back(values, before)
            return made, _unlike(found, self.compute(*others), self._rough)
        except Exception as error:  # whatever a tracer or a compiler may raise
            return self.compute, kernels.said(error)
        finally:
            _put_back(given[0], before)


def _is_watched() -> bool:
    """Tell whether somebody has torch watch each operation, and its slope, as it is asked for."""
    return torch.is_anomaly_enabled() or _get_current_dispatch_mode() is not None


class _Listed:
    """The operations of `compute` on tensors of the shapes that are given, as `make` makes a function of
    them.
    """

    def __init__(self, compute: Compute, given: Given, make: Callable[..., Any]) -> None:
        learns = [each.requires_grad for each in given[0]]
        found: list[Slopes] = []

        def flat(values: Values, x: Tensor, noise: Tensor, step: Tensor) -> list[Tensor]:
            own = [
                each.detach().requires_grad_(learning)
                for each, learning in zip(values, learns, strict=True)
            ]
            found[:] = [compute(own, x, noise, step)]
            loss, inference, gradients = found[0]
            return [
                loss,
                *tree_leaves(inference),
                *(each for each in gradients if each is not None),
            ]

        program = make_fx(flat)(*given)  # type: ignore[no-untyped-call]
        self._inference = tree_map(lambda part: part.new_empty(0), found[0].inference)
        self._learning = [each is not None for each in found[0].gradients]
        self._call = make(program)

    @torch.no_grad()
    def __call__(self, values: Values, x: Tensor, noise: Tensor, step: Tensor) -> Slopes:
        loss, *rest = self._call(values, x, noise, step)
        parts: Iterator[Tensor] = iter(rest)
        inference = tree_map(lambda _: next(parts), self._inference)
        return Slopes(loss, inference, [next(parts) if each else None for each in self._learning])


@torch.no_grad()
def _put_back(values: Values, before: Values) -> None:
    torch._foreach_copy_([*values], [*before])


def _unlike(found: Slopes, expected: Slopes, rough: float) -> str:
    """The reason to leave what has `found` where the step has another; empty if they are near."""
    pairs = zip(tree_leaves(found.inference), tree_leaves(expected.inference), strict=True)
    apart = max(_far(found.loss, expected.loss), *(_far(*pair) for pair in pairs))
    turned = _far(_joined(found.gradients), _joined(expected.gradients), least=1e-30)
    if apart <= rough and turned <= 10 * rough:
        return ""
    return f"their losses are {apart:.1g} from the step's, and their slopes {turned:.1g}"


def _far(found: Tensor, expected: Tensor, least: float = 1.0) -> float:
    """The most that the numbers `(M, ...)` of a model are from what they should be, as a part of their
    size, or of `least` where that is more.
    """
    if not torch.equal(found.isfinite(), expected.isfinite()):
        return float("inf")
    here, there = (each.double().nan_to_num(0.0, 0.0, 0.0) for each in (found, expected))
    rows = len(expected)
    apart = (here - there).reshape(rows, -1).norm(dim=1)
    return float((apart / there.reshape(rows, -1).norm(dim=1).clamp(min=least)).amax())


def _joined(gradients: Sequence[Tensor | None]) -> Tensor:
    return torch.cat([each.reshape(len(each), -1) for each in gradients if each is not None], 1)
