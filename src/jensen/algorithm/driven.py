"""Lightning's part of a step, left out where a `Drive` takes the steps."""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from jensen.algorithm.algorithm import Algorithm
from jensen.algorithm.calls import Calls
from jensen.algorithm.finite import Stop


class Driven(Algorithm):
    """An algorithm with a loss: `calls` takes a batch's steps, or Lightning takes its step.

    calls: what takes them. finite: what is done about a loss that is NaN or infinite.
    """

    calls: Calls
    finite: Stop

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        if not self.calls.driven:
            super().backward(loss, *args, **kwargs)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        if not self.calls.driven:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Optimizer, optimizer_closure: Any = None
    ) -> None:
        if self.calls.driven:
            optimizer_closure()
            self.calls.count()
        elif (closure := self.finite.guarded(optimizer_closure)) is not None:
            super().optimizer_step(epoch, batch_idx, optimizer, closure)
