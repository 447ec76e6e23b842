"""Total correlation by a discriminator: FactorVAE."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from jensen.base.errors import (
    InputError,
    check_count,
    check_counts,
    check_float32,
    check_list,
    check_number,
    check_seed,
)
from jensen.base.random import bits, fold
from jensen.base.ranks import world
from jensen.base.schedule import Schedule, as_schedule
from jensen.bound.bound import Inference
from jensen.bound.minibatch import gather_minibatch, minibatch_row
from jensen.objective.objective import Objective


class Factor(Objective):
    """distortion + rate + gamma * E_q(z) log [D(z) / (1 - D(z))], mean over the batch, nats per
    example.

    Kim & Mnih 2018 (arXiv 1802.05983), eq. 2-3. D tells draws of q(z) from draws of prod_d q(z_d);
    the logarithm is its logit, and where D is optimal its mean is the total correlation. D is
    trained by its cross-entropy,

        -1/2 E_q(z) log D(z) - 1/2 E_prod log (1 - D(z)),

    on the same rows and on a copy in which each latent is permuted over the minibatch of all ranks
    (algorithm 1; the paper permutes a second minibatch). The permutations are a function of the
    seed, the step and the rows.

    One backward pass trains both: the VAE's term sees D with its parameters detached, D's term sees
    z detached. The value of D's term is taken out of the loss again, so that the loss is the VAE's.

    Args:
        latent_dim: D's inputs.
        gamma: a number or a schedule of the optimiser's step, at least 0.
        hidden: widths of D's layers.
        lr, betas: of D's optimiser (Adam), whatever the model's are.
        seed: of the permutations.
    """

    of_minibatch = True  # of which the permutations are
    told_by_buffers = ("optimizer_options",)  # which no step reads
    key: Tensor

    def __init__(
        self,
        latent_dim: int,
        gamma: float | Schedule = 35.0,
        hidden: Sequence[int] = (1000,) * 6,
        lr: float = 1e-4,
        betas: Sequence[float] = (0.5, 0.9),
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_count("latent_dim", latent_dim)
        check_counts("hidden", hidden)
        check_float32("lr", lr, low=0)
        check_list("betas", betas)
        if len(betas) != 2:
            raise InputError(f"betas is {[*betas]}: expected two numbers, such as betas=[0.5,0.9]")
        for beta in betas:
            check_number("betas", beta, low=0, high=1)
        check_seed("seed", seed)
        self.latent_dim = latent_dim
        self.gamma = as_schedule("gamma", gamma, low=0)
        layers: list[nn.Module] = []
        for before, after in pairwise([latent_dim, *hidden]):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        self.discriminator = nn.Sequential(*layers, nn.Linear([latent_dim, *hidden][-1], 1))
        self.optimizer_options = {"lr": lr, "betas": tuple(betas)}
        self.register_buffer("key", torch.tensor(fold(seed, "factor")), persistent=False)

    def forward(self, inference: Inference, step: Tensor) -> Tensor:
        distortion, rate = inference.bound
        frozen = {
            name: parameter.detach() for name, parameter in self.discriminator.named_parameters()
        }
        total_correlation = functional_call(self.discriminator, frozen, (inference.z,)).mean()
        own = self._cross_entropy(*self._logits(inference.z.detach(), step))
        return (
            (distortion + rate).mean() + self.gamma(step) * total_correlation + (own - own.detach())
        )

    def terms(self, inference: Inference, step: Tensor) -> dict[str, Tensor]:
        joint, product = self._logits(inference.z, step)
        right = torch.cat([joint > 0, product < 0]).to(joint.dtype)
        return {
            "total_correlation": joint.mean(),
            "discriminator_accuracy": right.mean(),
            "discriminator_loss": self._cross_entropy(joint, product),
        }

    def _logits(self, z: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """D's word on draws of q(z) and on draws of the product of its marginals, `(b, 1)` each."""
        return self.discriminator(z), self.discriminator(self._permuted(z, step))

    @staticmethod
    def _cross_entropy(joint: Tensor, product: Tensor) -> Tensor:
        return 0.5 * (softplus(-joint).mean() + softplus(product).mean())

    def _permuted(self, z: Tensor, step: Tensor) -> Tensor:
        """This rank's share of the minibatch with each latent in an order of its own, `(b, D)`."""
        rank, ranks = world()
        everyone = gather_minibatch(z)
        row = minibatch_row(len(everyone), ranks, z.device)
        # Sorted by words that belong to the row and the step: the same on one rank as on several.
        order = bits(self.key, step * len(row) + row, (z.shape[1],)).argsort(0)
        return everyone.gather(0, order)[rank::ranks]
