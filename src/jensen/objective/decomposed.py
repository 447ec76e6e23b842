"""The rate by its three parts, each with a weight of its own; the beta-TCVAE is a choice of
weights.
"""

from torch import Tensor

from jensen.base.errors import InputError, check_choice
from jensen.base.ranks import world
from jensen.base.schedule import Constant, Schedule, as_schedule
from jensen.base.tree import tree_map
from jensen.bound.bound import Inference
from jensen.bound.minibatch import ESTIMATORS, gather_minibatch, log_weight, minibatch_log_density
from jensen.family.family import diagonal
from jensen.objective.objective import Objective


class Decomposed(Objective):
    """distortion + mi * MI + tc * TC + dwkl * DWKL, mean over the batch, nats per example.

    Chen et al. 2018 (arXiv 1802.04942), eq. 4, with the rate taken apart as in eq. 2:

        MI = E log [q(z|x) / q(z)],  TC = E log [q(z) / prod_d q(z_d)],  DWKL = E log [prod_d q(z_d)
        / p(z)]

    beta-TCVAE is mi = dwkl = 1, tc = beta. The loss is computed as

        distortion + mi * rate + (tc - mi) * TC + (dwkl - mi) * DWKL

    with the model's own, closed-form rate, so only what departs from equal weights is estimated
    from the minibatch; equal weights that do not change are exactly `Beta`. With a prior that does
    not factorise DWKL holds what is left of the rate: KL(q(z) || p(z)) - TC.

    Args:
        mi, tc, dwkl: numbers or schedules of the optimiser's step, at least 0, not all 0.
        estimator: of log q(z), see `bound.minibatch`; it needs `dataset_size`.

    Raises:
        InputError: negative weights or only zeros, an unknown estimator.
    """

    needs_dataset_size = True

    def __init__(
        self,
        mi: float | Schedule = 1.0,
        tc: float | Schedule = 1.0,
        dwkl: float | Schedule = 1.0,
        estimator: str = "stratified",
    ) -> None:
        super().__init__()
        self.mi, self.tc, self.dwkl = (
            as_schedule(name, weight, low=0)
            for name, weight in (("mi", mi), ("tc", tc), ("dwkl", dwkl))
        )
        check_choice("estimator", estimator, ESTIMATORS)
        self.estimator = estimator
        weights = (self.mi, self.tc, self.dwkl)
        if all(weight.bounds[1] == 0 for weight in weights):
            raise InputError(
                "mi is 0, and so are tc and dwkl: expected at least one weight above 0"
            )
        self.equal_weights = (
            all(isinstance(weight, Constant) for weight in weights)
            and len({weight.bounds for weight in weights}) == 1
        )

    @property
    def of_minibatch(self) -> bool:  # type: ignore[override]
        return not self.equal_weights

    def forward(self, inference: Inference, step: Tensor) -> Tensor:
        distortion, rate = inference.bound
        mi = self.mi(step)
        tc = self.tc(step)
        dwkl = self.dwkl(step)
        loss = (distortion + mi * rate).mean()
        if self.equal_weights:
            return loss
        total_correlation, dimension_wise_kl = self._estimate(inference)
        return loss + (tc - mi) * total_correlation + (dwkl - mi) * dimension_wise_kl

    def terms(self, inference: Inference, step: Tensor) -> dict[str, Tensor]:
        """The minibatch's estimates; they add up to its rate."""
        total_correlation, dimension_wise_kl = self._estimate(inference)
        return {
            "mutual_information": inference.bound.rate.mean()
            - total_correlation
            - dimension_wise_kl,
            "total_correlation": total_correlation,
            "dimension_wise_kl": dimension_wise_kl,
        }

    def _estimate(self, inference: Inference) -> tuple[Tensor, Tensor]:
        """TC and DWKL of this rank's rows, `()` each."""
        posterior = tree_map(
            gather_minibatch, diagonal(inference.posterior, "objective=decomposed")
        )
        rank, ranks = world()
        weight = log_weight(
            self.estimator,
            len(posterior.mean),
            self.dataset_size,
            rank=rank,
            world=ranks,
            like=posterior.mean,
        )
        joint, marginals = minibatch_log_density(inference.z, posterior, weight)
        product = marginals.sum(-1)
        return (joint - product).mean(), (product - inference.log_prior).mean()
