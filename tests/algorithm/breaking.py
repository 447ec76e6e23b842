"""Parts of a run that break on purpose, for configurations to name."""

from typing import ClassVar

import torch
from torch import Tensor, distributed, nn

from jensen.bound.bound import Inference
from jensen.family.gaussian import Gaussian
from jensen.model.mlp import MLPEncoder
from jensen.objective.beta import Beta


class Breaks(nn.Module):
    """The identity, but in training, or always, not a number for the observation `poison`."""

    poison: ClassVar[Tensor | None] = None
    always: ClassVar[bool] = False

    def forward(self, x: Tensor) -> Tensor:
        if self.poison is None or not (self.training or self.always):
            return x
        found = (x == self.poison).flatten(1).all(1)
        return torch.where(found.view(-1, *[1] * (x.dim() - 1)), torch.nan, x)


class BreakingEncoder(nn.Module):
    def __init__(self, x_shape: list[int], latent_dim: int) -> None:
        super().__init__()
        self.breaks = Breaks()
        self.body = MLPEncoder(x_shape, latent_dim, [16])

    def forward(self, x: Tensor) -> Gaussian:
        return self.body(self.breaks(x))


class BreakingBeta(Beta):
    """beta = 4, but at step `at`, or always from there, the loss of one rank is infinite."""

    def __init__(self, at: int, rank: int, always: bool = False) -> None:
        super().__init__(4.0)
        self.at = at
        self.rank = rank
        self.always = always

    def forward(self, inference: Inference, step: Tensor) -> Tensor:
        here = (distributed.get_rank() if distributed.is_initialized() else 0) == self.rank
        now = int(step) >= self.at if self.always else int(step) == self.at
        loss = super().forward(inference, step)
        return loss * torch.inf if here and self.training and now else loss


class BreakingHeldOut(Beta):
    """beta = 4, but from step `at` the held-out loss of one rank is infinite."""

    def __init__(self, at: int, rank: int) -> None:
        super().__init__(4.0)
        self.at = at
        self.rank = rank

    def forward(self, inference: Inference, step: Tensor) -> Tensor:
        loss = super().forward(inference, step)
        here = distributed.is_initialized() and distributed.get_rank() == self.rank
        return loss * torch.inf if here and not self.training and int(step) >= self.at else loss
