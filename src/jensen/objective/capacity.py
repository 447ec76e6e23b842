"""A rate held at a capacity that grows during training."""

from torch import Tensor

from jensen.base.errors import check_choice
from jensen.base.schedule import Schedule, as_schedule
from jensen.bound.bound import Inference
from jensen.bound.minibatch import gather_minibatch
from jensen.objective.objective import Objective

CONVENTIONS = ("batch", "example")


class Capacity(Objective):
    """distortion + gamma * |rate - C|, nats per example.

    Burgess et al. 2018 (arXiv 1804.03599), eq. 8, with C the `capacity`. Two readings of its rate
    are in use:

        batch     mean distortion + gamma * |mean rate - C|: disentanglement_lib, disentangling-vae,
        PyTorch-VAE. The mean is
                  over the whole minibatch, of all ranks.
        example   mean over examples of [distortion + gamma * |rate_n - C|]: pythae. Never smaller
        than `batch` (Jensen's
                  inequality); it also holds every example to the same rate.

    Args:
        capacity: nats, a number or a schedule of the optimiser's step, at least 0.
        gamma: likewise.
        convention: `batch` or `example`.
    """

    def __init__(
        self,
        capacity: float | Schedule,
        gamma: float | Schedule = 1000.0,
        convention: str = "batch",
    ) -> None:
        super().__init__()
        self.capacity = as_schedule("capacity", capacity, low=0)
        self.gamma = as_schedule("gamma", gamma, low=0)
        check_choice("convention", convention, CONVENTIONS)
        self.convention = convention

    @property
    def of_minibatch(self) -> bool:  # type: ignore[override]
        return self.convention == "batch"

    def forward(self, inference: Inference, step: Tensor) -> Tensor:
        distortion, rate = inference.bound
        if self.convention == "batch":
            rate = gather_minibatch(rate).mean()
        return distortion.mean() + self.gamma(step) * (rate - self.capacity(step)).abs().mean()
