"""The beta-VAE's loss."""

from torch import Tensor

from jensen.base.errors import check_count
from jensen.base.schedule import Schedule, as_schedule
from jensen.bound.bound import Inference
from jensen.objective.objective import Objective


class Beta(Objective):
    """distortion + beta * rate, mean over the batch, nats per example.

    Higgins et al. 2017 (openreview Sy2fzU9gl), eq. 4; beta = 1 is the negative elbo of Kingma &
    Welling 2014.

    Args:
        beta: a number or a schedule of the optimiser's step, at least 0.
        samples: draws of z for each example; of several modalities, each from another subset.
    """

    def __init__(self, beta: float | Schedule = 1.0, samples: int = 1) -> None:
        super().__init__()
        check_count("samples", samples)
        self.samples = samples
        self.beta = as_schedule("beta", beta, low=0)

    def forward(self, inference: Inference, step: Tensor) -> Tensor:
        distortion, rate = inference.bound
        return (distortion + self.beta(step) * rate).mean()
