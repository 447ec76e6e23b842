"""The gradients of weights beside the chain of the gradients of what layers are given.

Backward goes from layer to layer: what a layer was given has a gradient, which the layer before it
waits for, and its weights have one, for which nothing waits before the optimiser. Each keeps a small
part of a GPU busy, so the two run at once: the chain on the stream of the step, weights on others. In
a CUDA graph these are branches, which cost the host nothing.

The kernels are torch's own, and so are the digits. No part of jensen: as a graph by hand a step is 1.3 (conv) and 1.1
(MLP) times as fast with it (H200), but runs that tried it in `algorithm.graph`'s graphs ended with those
without, and the reason was not seen. `tried` has them so; sections `conv` and `mlp` say why.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import alone  # noqa: F401
import torch
from torch import Tensor, autograd, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_STREAMS = 3
"""Streams that take turns: a weight's gradient takes up to three times as long as a layer of the chain."""


class Layer(NamedTuple):
    """A convolution as `aten::convolution` has it, or a product (no stride)."""

    stride: Sequence[int] = ()
    padding: Sequence[int] = ()
    dilation: Sequence[int] = ()
    transposed: bool = False
    output_padding: Sequence[int] = ()
    groups: int = 1

    def value(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self.stride:
            return functional.linear(x, weight, bias)
        return torch.convolution(x, weight, bias, *self)

    def slopes(
        self, slope: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of x, of the weight, and of the bias, as far as they are wanted."""
        if self.stride:
            found: tuple[Tensor | None, Tensor | None, Tensor | None]
            out = slope.shape[1:2]
            found = torch.ops.aten.convolution_backward(slope, x, weight, out, *self, wanted)
            return found
        flat = slope.reshape(-1, slope.shape[-1])
        return (
            (flat @ weight).reshape(x.shape) if wanted[0] else None,
            flat.t() @ x.reshape(-1, x.shape[-1]) if wanted[1] else None,
            flat.sum(0) if wanted[2] else None,
        )


class Beside(TorchFunctionMode):
    """Within it layers leave their weights' gradients to other streams; `backward` puts them where
    they belong.

    Args:
        device: of the model. On a CPU there are no streams, and all else is as on a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        on_gpu = device.type == "cuda"
        self._streams = [torch.cuda.Stream(device) for _ in range(_STREAMS)] if on_gpu else []  # type: ignore[no-untyped-call]
        self._found: list[tuple[nn.Parameter, Tensor]] = []
        self._held: list[Any] = []
        self._turn = 0
        self.open = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        read = _LAYERS.get(func)
        call = None if read is None else read(*args, **(kwargs or {}))
        if call is None or not torch.is_grad_enabled():
            return func(*args, **(kwargs or {}))
        x, weight, bias, layer = call
        if not (_is_plain(weight) and (bias is None or _is_plain(bias))):
            return func(*args, **(kwargs or {}))
        half = _half(x)
        return _Beside.apply(x.to(half), weight, bias, layer, self, half)  # type: ignore[no-untyped-call]

    def backward(self, loss: Tensor) -> None:
        """`loss.backward()`, after which all gradients are there."""
        self.open = True
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        finally:
            self.open = False
        for stream in self._streams:
            torch.cuda.current_stream().wait_stream(stream)
        found = self._found
        self._found, self._held = [], []
        for parameter, gradient in found:
            if parameter.grad is None:
                parameter.grad = gradient
            else:
                parameter.grad = parameter.grad + gradient

    def leave(
        self, weights: Callable[[], Sequence[tuple[nn.Parameter, Tensor]]], *held: Tensor
    ) -> None:
        """Compute gradients on the stream whose turn it is; their inputs stay until all are there."""
        self._held.append(held)
        if not self._streams:
            self._found += weights()
            return
        stream = self._streams[self._turn % len(self._streams)]
        self._turn += 1
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._found += weights()


@contextmanager
def tried() -> Iterator[None]:
    """jensen's graphs, made of steps with weights beside."""
    from jensen.algorithm import drive, graph
    from jensen.algorithm.step import Outcome, hold, learn, loss_of

    class Update(drive.Update):
        def __call__(
            self,
            x: Tensor,
            noise: Tensor,
            step: Tensor,
            look: Callable[[Outcome], None],
            still: Sequence[nn.Parameter] = (),
        ) -> None:
            beside = Beside(x.device)
            with self.precision():
                with beside:
                    inference = self.model(x, noise)
                loss = loss_of(self.objective, inference, step)
                look(Outcome(loss, inference))
                learn(self.model, inference, len(x), step)
            hold(self.parameters)
            beside.backward(loss)
            hold(still)
            self.clip()
            drive.advance(self.optimiser)

    before = graph.Graphed.__init__

    def made(self: graph.Graphed, *args: Any, **settings: Any) -> None:
        before(self, *args, **settings)
        self.update = Update(*self.update)

    graph.Graphed.__init__ = made  # type: ignore[method-assign]
    try:
        yield
    finally:
        graph.Graphed.__init__ = before  # type: ignore[method-assign]


class _Beside(autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: nn.Parameter,
        bias: nn.Parameter | None,
        layer: Layer,
        beside: Beside,
        half: torch.dtype,
    ) -> Tensor:
        ctx.layer, ctx.beside, ctx.own = layer, beside, (weight, bias)
        narrow = weight.to(half)
        ctx.save_for_backward(x, narrow)
        with torch.autocast(x.device.type, enabled=False):
            return layer.value(x, narrow, None if bias is None else bias.to(half))

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:  # type: ignore[override]
        x, narrow = ctx.saved_tensors
        weight, bias = ctx.own
        layer = ctx.layer
        if not ctx.beside.open or torch.is_grad_enabled():
            raise RuntimeError("a gradient is asked for amid a step")

        def weights() -> list[tuple[nn.Parameter, Tensor]]:
            _, of_weight, of_bias = layer.slopes(slope, x, narrow, (False, True, bias is not None))
            found = [(weight, of_weight.to(weight.dtype))]
            if bias is not None:
                found.append((bias, of_bias.to(bias.dtype)))
            return found

        ctx.beside.leave(weights, slope, x)
        if not ctx.needs_input_grad[0]:
            return (None,) * 6
        return (layer.slopes(slope, x, narrow, (True, False, False))[0], *(None,) * 5)


def _is_plain(weight: object) -> bool:
    """Tell whether a gradient is put where a parameter keeps it, and nobody looks on."""
    if not isinstance(weight, nn.Parameter) or not weight.requires_grad:
        return False
    return not weight._backward_hooks and not getattr(weight, "_post_accumulate_grad_hooks", None)


def _half(x: Tensor) -> torch.dtype:
    """The dtype of a layer for such an input."""
    kind = x.device.type
    if x.dtype is torch.float64 or not torch.is_autocast_enabled(kind):
        return x.dtype
    return torch.get_autocast_dtype(kind)


Call = tuple[Tensor, Tensor, Tensor | None, Layer] | None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Call:
    return x, weight, bias, Layer()


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Call:
    dims = weight.dim() - 2
    if isinstance(padding, str) or x.dim() != weight.dim():
        return None
    layer = Layer(_each(stride, dims), _each(padding, dims), _each(dilation, dims), False)
    return x, weight, bias, layer._replace(output_padding=[0] * dims, groups=groups)


def _transposed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Call:
    dims = weight.dim() - 2
    if x.dim() != weight.dim() or groups != 1:
        return None
    layer = Layer(_each(stride, dims), _each(padding, dims), _each(dilation, dims), True)
    return (
        x,
        weight,
        bias,
        layer._replace(output_padding=_each(output_padding, dims), groups=groups),
    )


def _each(value: Any, dims: int) -> list[int]:
    return [value] * dims if isinstance(value, int) else list(value)


_LAYERS: dict[Any, Callable[..., Call]] = {
    functional.linear: _linear,
    functional.conv1d: _convolution,
    functional.conv2d: _convolution,
    functional.conv3d: _convolution,
    functional.conv_transpose1d: _transposed,
    functional.conv_transpose2d: _transposed,
    functional.conv_transpose3d: _transposed,
}
