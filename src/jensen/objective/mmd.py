"""The divergence of q(z) from the prior by a kernel: InfoVAE, and the Wasserstein autoencoder."""

from collections.abc import Sequence

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_number
from jensen.base.schedule import Schedule, as_schedule
from jensen.bound.bound import Inference
from jensen.bound.minibatch import gather_minibatch
from jensen.objective.objective import Objective


class MMD(Objective):
    """distortion + (1 - alpha) * rate + (alpha + marginal - 1) * MMD(q(z), N(0, I)), nats per
    example.

    InfoVAE: Zhao, Song & Ermon 2017 (arXiv 1706.02262), eq. 6 and section 3.2, with their lambda as
        `marginal`. The weights
    are 1 - alpha on the mutual information and `marginal` on KL(q(z) || p(z)), with MMD in that
    divergence's place. alpha = 1 is the Wasserstein autoencoder (Tolstikhin et al. 2018, arXiv
    1711.01558, eq. 4); alpha = 0, marginal = 1 is the elbo.

        MMD = E_pp k(u, u') - 2 E_qp k(z, u) + E_qq k(z, z'),    k(z, z') = exp(-|z - z'|^2 / (2 s))

    (Gretton et al. 2012, lemma 6: the square, as both papers write it.) The expectations over p =
    N(0, I) are Gaussian integrals, (s / (s + 2))^(D/2) and (s / (s + 1))^(D/2) exp(-|z|^2 / (2 (s +
    1))), so no z is drawn from the prior. The last term is over pairs of different rows of the
    whole minibatch, of all ranks, so the estimate is unbiased: it is 0 on average for q = p, and
    may be negative.

    Args:
        alpha: a number or a schedule of the optimiser's step, at most 1.
        marginal: likewise, at least 0, and at least 1 - alpha.
        bandwidths: sqrt(s) of each kernel in units of sqrt(D), the root-mean-square length of a
            draw of N(0, I); MMD is averaged over the kernels.
    """

    for_standard_normal = True
    of_minibatch = True
    scales: Tensor

    def __init__(
        self,
        alpha: float | Schedule = 0.0,
        marginal: float | Schedule = 1000.0,
        bandwidths: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        self.alpha = as_schedule("alpha", alpha)
        self.marginal = as_schedule("marginal", marginal, low=0)
        most = self.alpha.bounds[1]
        if most > 1:
            raise InputError(
                f"alpha is {most:g}: expected at most 1, above which the rate is rewarded"
            )
        least = self.alpha.bounds[0] + self.marginal.bounds[0]
        if least < 1:
            raise InputError(
                f"marginal is too small: alpha + marginal is {least:g}, expected at least 1"
            )
        if not bandwidths:
            raise InputError("bandwidths is empty: expected at least one number above 0")
        for bandwidth in bandwidths:
            check_number("bandwidths", bandwidth, low=1e-6)
        scales = torch.tensor([float(width) ** 2 for width in bandwidths], dtype=torch.float64)
        self.register_buffer("scales", scales, persistent=False)

    def forward(self, inference: Inference, step: Tensor) -> Tensor:
        distortion, rate = inference.bound
        alpha = self.alpha(step)
        marginal = self.marginal(step)
        return (distortion + (1 - alpha) * rate).mean() + (alpha + marginal - 1) * self._mmd(
            inference.z
        )

    def terms(self, inference: Inference, step: Tensor) -> dict[str, Tensor]:
        return {"mmd": self._mmd(inference.z)}

    def _mmd(self, z: Tensor) -> Tensor:
        """The estimate of this rank's rows `(b, D)`, `()`."""
        everyone = gather_minibatch(z)
        half = z.shape[1] / 2  # (H,)
        scale = (self.scales * z.shape[1]).to(z.dtype)
        distance = (z[:, None] - everyone).square().sum(-1)  # (b, M)
        kernel = (-0.5 * distance[..., None] / scale).exp()  # (b, M, H)
        # A row's kernel with itself is 1, with no gradient.
        pairs = (kernel.sum((0, 1)) - len(z)) / (len(z) * max(len(everyone) - 1, 1))
        cross = (-0.5 * z.square().sum(-1, keepdim=True) / (scale + 1)).exp().mean(0)
        prior = (scale / (scale + 2)) ** half
        return (prior - 2 * (scale / (scale + 1)) ** half * cross + pairs).mean()
