"""The Bernoulli distortion, elementwise the largest part of a step that is no matrix product."""

import math
from functools import cache

import torch
from torch import Tensor, autograd
from torch.autograd import forward_ad
from torch.nn import functional

_TOGETHER = 16
"""Probabilities of 1/2 and more whose product has one logarithm."""


def bernoulli_distortion(logit: Tensor, x: Tensor) -> Tensor:
    """-(x log p + (1 - x) log(1 - p)) with p = sigmoid(logit), `(B, *event)` to `(B,)`, nats.

    In float32 at least. `x` may be any numbers in [0, 1].

    Example:
        >>> import torch
        >>> bernoulli_distortion(torch.tensor([[0.0, 50.0]]), torch.tensor([[1.0, 0.0]]))
        tensor([50.6931])
    """
    wide = logit.to(torch.promote_types(logit.dtype, torch.float32))
    x = x.to(wide.dtype)
    if _log_is_faster(wide):
        if torch._C._are_functorch_transforms_active():
            return LogSigmoid.apply(wide, x)[0]  # type: ignore[no-any-return, no-untyped-call]
        return _OfStep.apply(wide, x)  # type: ignore[no-any-return, no-untyped-call]
    every = functional.binary_cross_entropy_with_logits(wide, x, reduction="none")
    return every.flatten(1).sum(1)


def _log_is_faster(logit: Tensor) -> bool:
    """Tell whether `LogSigmoid` beats torch's own: where torch runs AVX-512, whose log1p costs more
    than sigmoid and log together; not with AVX2, on a GPU or compiled, where torch's is one pass; nor
    in forward mode, of which it knows nothing.
    """
    if forward_ad._current_level >= 0:
        return False
    if torch._C._are_functorch_transforms_active():  # which would take torch's own apart
        return True
    if logit.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return _has_avx512()


@cache
def _has_avx512() -> bool:
    """Tell whether torch runs AVX-512 here; asked once, since that takes as long as a product of a
    small model.
    """
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


class LogSigmoid(autograd.Function):
    """max(l, 0) - x l - log sigmoid|l|, summed over the event, and sigmoid(l), which its slope
    sigmoid(l) - x is made of.

    sigmoid|l| lies in [1/2, 1], so its logarithm errs by no more than the rounding of 1, as log1p
    does once it is added to the rest; and the product of a few of them is far from 0, so that one
    logarithm does for all.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(logit: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return _both(logit, x, in_place=False)

    @staticmethod
    def setup_context(
        ctx: autograd.function.FunctionCtx,
        inputs: tuple[Tensor, Tensor],
        output: tuple[Tensor, Tensor],
    ) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: autograd.function.FunctionCtx, slope: Tensor, _: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        logit, x, p = ctx.saved_tensors  # type: ignore[attr-defined]
        each = slope.reshape(-1, *[1] * (logit.ndim - 1))
        of_x = -logit * each if ctx.needs_input_grad[1] else None  # type: ignore[attr-defined]
        if torch.is_grad_enabled():  # for a second derivative, which asks for p again
            return (logit.sigmoid() - x) * each, of_x
        found = p - x
        return (found * each if _is_many(slope) else found.mul_(each)), of_x


def _is_many(slope: Tensor) -> bool:
    """Tell whether it stands for many slopes of one value, by either of torch's ways."""
    either = torch._C._functorch
    return either.is_batchedtensor(slope) or either.is_legacy_batchedtensor(slope)


class _OfStep(LogSigmoid):
    """The sum alone, without `torch.func`, for which torch would look up the signature of `forward`
    at each call: longer than a small model's products take.
    """

    generate_vmap_rule = False
    setup_context = staticmethod(autograd.Function.setup_context)

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: autograd.function.FunctionCtx, logit: Tensor, x: Tensor
    ) -> Tensor:
        found, p = _both(logit, x, in_place=True)
        ctx.save_for_backward(logit, x, p)
        return found


def _both(logit: Tensor, x: Tensor, in_place: bool) -> tuple[Tensor, Tensor]:
    """The sum and sigmoid(l); `in_place`, which `torch.func` does not know, in two places of memory
    rather than five.
    """
    if logit.shape != x.shape:
        raise ValueError(f"logit is {tuple(logit.shape)} and x {tuple(x.shape)}: expected one")
    p = logit.sigmoid()
    rest = 1 - p
    place = rest if in_place else None
    sure = torch.maximum(p, rest, out=place).flatten(1)  # sigmoid|l|
    together = math.gcd(sure.shape[1], _TOGETHER)
    parts = sure.view(len(sure), together, sure.shape[1] // max(together, 1))
    log_sure = parts.prod(1).log_().sum(1)
    linear = torch.addcmul(torch.clamp(logit, min=0, out=place), logit, x, value=-1, out=place)
    return linear.flatten(1).sum(1).sub_(log_sure), p
