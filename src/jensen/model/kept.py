"""The parts of a model that training leaves as they are, where its prior learns afterwards."""

from collections.abc import Iterator
from typing import Any, Self

from torch import nn


class Kept(nn.Module):
    """A model whose prior may say `trained = "after"`: all other parts then stay as they are, without
    gradients and in evaluation mode.
    """

    prior: Any

    @property
    def is_kept(self) -> bool:
        """Tell whether all but the prior stays as it is in training."""
        return getattr(self.prior, "trained", "joint") == "after"

    def kept(self) -> Iterator[nn.Module]:
        """The parts that are not the prior."""
        return (part for name, part in self.named_children() if name != "prior")

    def keep(self) -> None:
        """Take these parts out of training, if they are kept."""
        if self.is_kept:
            for part in self.kept():
                part.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set training mode; parts that are kept stay in evaluation mode."""
        super().train(mode)
        if self.is_kept:
            for part in self.kept():
                part.eval()
        return self
