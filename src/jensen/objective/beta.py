"""The beta-VAE's loss."""

from torch import Tensor

from jensen.base.schedule import Schedule, as_schedule
from jensen.bound.bound import Inference
from jensen.objective.objective import Objective


class Beta(Objective):
    """distortion + beta * rate, mean over the batch, nats per example.

    Higgins et al. 2017 (openreview Sy2fzU9gl), eq. 4; beta = 1 is the negative elbo of Kingma &
    Welling 2014. `beta` is a number or a schedule of the optimiser's step, at least 0.
    """

    def __init__(self, beta: float | Schedule = 1.0) -> None:
        super().__init__()
        self.beta = as_schedule("beta", beta, low=0)

    def forward(self, inference: Inference, step: Tensor) -> Tensor:
        distortion, rate = inference.bound
        return (distortion + self.beta(step) * rate).mean()
