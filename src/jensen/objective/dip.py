"""A covariance of the latents near the identity: DIP-VAE."""

import torch
from torch import Tensor

from jensen.base.errors import check_choice
from jensen.base.schedule import Schedule, as_schedule
from jensen.base.tree import tree_map
from jensen.bound.bound import Inference
from jensen.bound.minibatch import gather_minibatch
from jensen.family.family import diagonal
from jensen.objective.objective import Objective

VARIANTS = ("I", "II")


class DIP(Objective):
    """distortion + rate + off_diagonal * sum_{i != j} C_ij^2 + diagonal * sum_i (C_ii - 1)^2, nats
    per example.

    Kumar, Sattigeri & Balakrishnan 2018 (arXiv 1711.00848), eq. 6-7:

        I    C = Cov_x[mean(x)]
        II   C = Cov_x[mean(x)] + E_x[diag var(x)], the covariance of q(z)

    over the whole minibatch, of all ranks, with divisor M. A match of moments that stands for TC +
    DWKL: where q(z) is Gaussian both are 0 together (for II).

    Where it is not, a covariance does not see all: z2 = z1^2 + N(0, 1/4) of z1 ~ N(0, 1) has
    covariance 0 and a total correlation of .8027 nats (`jensen.doctor` measures it).

    Args:
        variant: `I` or `II`.
        off_diagonal: a number or a schedule of the optimiser's step, at least 0.
        diagonal: likewise.
    """

    of_minibatch = True

    def __init__(
        self,
        variant: str = "I",
        off_diagonal: float | Schedule = 10.0,
        diagonal: float | Schedule = 100.0,
    ) -> None:
        super().__init__()
        check_choice("variant", variant, VARIANTS)
        self.variant = variant
        self.off_diagonal = as_schedule("off_diagonal", off_diagonal, low=0)
        self.diagonal = as_schedule("diagonal", diagonal, low=0)

    def forward(self, inference: Inference, step: Tensor) -> Tensor:
        distortion, rate = inference.bound
        off_diagonal, diagonal = self._departures(inference)
        return (
            (distortion + rate).mean()
            + self.off_diagonal(step) * off_diagonal
            + self.diagonal(step) * diagonal
        )

    def terms(self, inference: Inference, step: Tensor) -> dict[str, Tensor]:
        off_diagonal, diagonal = self._departures(inference)
        return {"covariance_off_diagonal": off_diagonal, "covariance_diagonal": diagonal}

    def _departures(self, inference: Inference) -> tuple[Tensor, Tensor]:
        """sum_{i != j} C_ij^2 and sum_i (C_ii - 1)^2, `()` each."""
        mean, log_var = tree_map(gather_minibatch, diagonal(inference.posterior, "objective=dip"))
        centred = mean - mean.mean(0)
        covariance = centred.T @ centred / len(mean)
        if self.variant == "II":
            covariance = covariance + torch.diag(log_var.exp().mean(0))
        variance = covariance.diagonal()
        return (covariance - torch.diag(variance)).square().sum(), (variance - 1).square().sum()
