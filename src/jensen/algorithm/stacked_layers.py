"""Layers of many models at once: the products of all in one call.

Inside `torch.func.vmap` a tensor of M models looks like that of one. vmap's own rule for a linear
layer makes the product and then adds the bias, in two passes; and of the Bernoulli distortion it
makes seven. Here the tensors of all are taken out of their wrapping, go through one call outside of
vmap, whose own part of an operation is longer than a small model's, and are wrapped again.
"""

from collections.abc import Callable
from types import MethodType

import torch
from torch import Tensor, autograd, nn
from torch._C import _functorch
from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack

from jensen.model.likelihood import Bernoulli, ContinuousBernoulli, CrossEntropy

CONVOLUTIONS = (nn.modules.conv._ConvNd,)
_OF_ROWS = (Bernoulli, ContinuousBernoulli, CrossEntropy)
"""Likelihoods that have no numbers of their own, so rows of any model are rows."""


def rewrite(*modules: nn.Module) -> None:
    """Have the layers of modules, which are to be called inside `vmap` only, compute for all models
    in one call.
    """
    for module in modules:
        for part in module.modules():
            if type(part) is nn.Linear and "forward" not in vars(part):  # somebody's own
                part.forward = MethodType(_linear, part)  # type: ignore[method-assign]
            elif type(part) in _OF_ROWS:
                part.distortion = _by_rows(part.distortion)  # type: ignore[operator, assignment, arg-type]


def has_convolutions(module: nn.Module) -> bool:
    return any(isinstance(part, CONVOLUTIONS) for part in module.modules())


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """x W' + b, `(B, ..., in)` to `(B, ..., out)` of each model."""
    weight = _all(layer.weight)
    bias = None if layer.bias is None else _all(layer.bias)
    inputs = _all(x)
    if weight is None or inputs is None or weight.dim() != 3 or inputs.dim() < 3:
        return nn.functional.linear(x, layer.weight, layer.bias)
    with temporarily_pop_interpreter_stack():
        rows = inputs.flatten(1, -2)
        half = torch.is_autocast_enabled(rows.device.type)
        output = _affine(rows, weight, bias) if half else _Affine.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
        output = output.unflatten(1, inputs.shape[1:-1])
    return _one(output, x)


def _affine(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`(M, B, in)`, `(M, out, in)` and `(M, out)` to `(M, B, out)`."""
    if bias is None:
        return torch.bmm(rows, weight.mT)
    return torch.baddbmm(bias.unsqueeze(1), rows, weight.mT)


class _Affine(autograd.Function):
    """`_affine`, with the gradient of a weight as that lies in memory: torch's own comes out turned,
    and an optimiser would have it copied.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: autograd.function.FunctionCtx, rows: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _affine(rows, weight, bias)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: autograd.function.FunctionCtx, slope: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        of_rows, of_weight, of_bias = ctx.needs_input_grad  # type: ignore[attr-defined]
        return (
            torch.bmm(slope, weight) if of_rows else None,
            torch.bmm(slope.mT, rows) if of_weight else None,
            slope.sum(1) if of_bias else None,
        )


def _by_rows(distortion: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """`(B, *event)`, `(B, *event)` to `(B,)` of each model, by one call on the rows of all."""

    def of_all(output: Tensor, x: Tensor) -> Tensor:
        outputs = _all(output)
        targets = _all(x)
        if outputs is None or targets is None or outputs.shape != targets.shape:
            return distortion(output, x)
        with temporarily_pop_interpreter_stack():
            rows = distortion(outputs.flatten(0, 1), targets.flatten(0, 1))
        return _one(rows.unflatten(0, outputs.shape[:2]), output)

    return of_all


def _all(tensor: Tensor) -> Tensor | None:
    """The tensors of all models, `(M, ...)`, of one inside `vmap`; None of one that they share."""
    if not _functorch.is_batchedtensor(tensor):
        return None
    whole: Tensor = _functorch.get_unwrapped(tensor)
    return whole.movedim(_functorch.maybe_get_bdim(tensor), 0)


def _one(tensors: Tensor, like: Tensor) -> Tensor:
    """`(M, ...)` as the tensor of one model inside the `vmap` that `like` is inside of."""
    wrapped: Tensor = _functorch._add_batch_dim(tensors, 0, _functorch.maybe_get_level(like))
    return wrapped
