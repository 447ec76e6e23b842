"""A rate that costs nothing up to a floor in each latent."""

from torch import Tensor

from jensen.base.schedule import Schedule, as_schedule
from jensen.bound.bound import Inference
from jensen.bound.minibatch import gather_minibatch
from jensen.family import gaussian
from jensen.family.family import marginals
from jensen.objective.objective import Objective


class FreeBits(Objective):
    """distortion + rate + sum_d relu(free_nats - mean KL_d), nats per example.

    Kingma et al. 2016 (arXiv 1606.04934), eq. 15: distortion + sum_d max(lambda, mean KL_d) with
    lambda = `free_nats`, which this is for the standard normal prior, the only one it takes. KL_d
    is the KL of latent d to N(0, 1), its mean over the whole minibatch, of all ranks.

    Args:
        free_nats: of each latent, a number or a schedule of the optimiser's step, at least 0.
    """

    for_standard_normal = True
    of_minibatch = True

    def __init__(self, free_nats: float | Schedule = 0.25) -> None:
        super().__init__()
        self.free_nats = as_schedule("free_nats", free_nats, low=0)

    def forward(self, inference: Inference, step: Tensor) -> Tensor:
        distortion, rate = inference.bound
        missing = (self.free_nats(step) - _latent_kl(inference)).relu().sum()
        return (distortion + rate).mean() + missing

    def terms(self, inference: Inference, step: Tensor) -> dict[str, Tensor]:
        """Number of latents on the floor, for which the loss asks no less rate."""
        floor = self.free_nats(step)
        return {"latents_at_floor": (_latent_kl(inference) <= floor).to(floor.dtype).sum()}


def _latent_kl(inference: Inference) -> Tensor:
    """Mean KL of each latent to N(0, 1), `(D,)`."""
    posterior = marginals(inference.posterior, "objective=free_bits")
    kl = gaussian.kl(posterior, gaussian.standard(inference.z))
    return gather_minibatch(kl).mean(0)
