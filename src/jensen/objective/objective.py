"""The protocol of an objective."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from jensen.base.schedule import Schedule
from jensen.bound.bound import Inference


class Objective(nn.Module, ABC):
    """A loss: a function of what the model says and of the step, without a count of its own.
    Abstract.

    Its numbers are schedules (`base.schedule.as_schedule`) and its attributes: each is logged under
    its name, and refused if it changes after training ends. Its parameters, if it has any, are
    trained along with the model's, as a group of their own with `optimizer_options`.
    """

    samples: int = 1
    """Draws of z for each example; rows i, i + B, i + 2 B, ... of an inference are those of example
    i.
    """

    for_standard_normal: bool = False
    """The formula holds for p(z) = N(0, I) alone; another prior is refused before
    training.
    """

    needs_density: bool = False
    """log p(z) must be exact, as in a mean of exp log p(z); a prior that bounds it on
    average is refused before training.
    """

    of_minibatch: bool = False
    """The loss is of a minibatch as a whole, and no mean over its examples: where gradients are
    accumulated it is of each batch, and a line says so.
    """

    dataset_size: int = 0
    """Number of training examples; the algorithm sets it before the first step, or who trains on
    loaders of his own.
    """

    needs_dataset_size: bool = False
    """True where it is refused without that number."""

    optimizer_options: dict[str, object] = {}  # noqa: RUF012 (replaced, never changed)
    """Options of the optimiser for the objective's own parameters, such as another lr."""

    @abstractmethod
    def forward(self, inference: Inference, step: Tensor) -> Tensor:
        """The `()` loss of a minibatch at the `()` integer step of the optimiser."""

    def terms(self, inference: Inference, step: Tensor) -> dict[str, Tensor]:
        """Unweighted terms, `()` each, that are logged beside the loss; on logged steps only."""
        return {}

    @property
    def schedules(self) -> dict[str, Schedule]:
        return {name: child for name, child in self.named_children() if isinstance(child, Schedule)}
