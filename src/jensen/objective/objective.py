"""What an objective is."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from jensen.core.bound import Inference
from jensen.core.schedule import Schedule


class Objective(nn.Module, ABC):
    """A loss: a function of what the model says and of the step, without a count of its own. Abstract.

    Its numbers are schedules (`core.schedule.as_schedule`) and its attributes: each is logged under its name, and refused if
    it changes after training ends.
    """

    @abstractmethod
    def forward(self, inference: Inference, step: Tensor) -> Tensor:
        """The `()` loss of a minibatch at the `()` integer step of the optimiser."""

    @property
    def schedules(self) -> dict[str, Schedule]:
        return {name: child for name, child in self.named_children() if isinstance(child, Schedule)}
