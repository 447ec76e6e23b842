"""The variational Renyi bound's loss."""

import math

import torch
from torch import Tensor

from jensen.base.errors import check_count
from jensen.base.schedule import Schedule, as_schedule
from jensen.bound.bound import Inference
from jensen.objective.objective import Objective


class Renyi(Objective):
    """-log [mean_k w_k^(1 - alpha)] / (1 - alpha), mean over the batch, nats per example; log w =
    log p(x|z) + log p(z) - log q(z|x).

    Li & Turner 2016 (arXiv 1602.02311), eq. 5-7, for K = `samples` draws of z. It falls with
    alpha: at 0 -loss is the bound of `Importance`, at 1 the elbo, above 1 less than that. With few
    samples it lies between those and the elbo.

    `alpha` times what the sampled rate has more than the closed one is taken away: that is 0 on
    average, and all of the noise of the rate at alpha = 1, where the loss is that of `Beta` at 1.
    Where the rate is itself a bound (a mixture prior's) it is not, and the loss is looser by alpha
    times what that bound gives away.

    Args:
        alpha: the order, a number or a schedule of the optimiser's step, at least 0.
        samples: K, at least 2.
    """

    needs_density = True

    def __init__(self, alpha: float | Schedule = 0.5, samples: int = 5) -> None:
        super().__init__()
        check_count("samples", samples, least=2)
        self.alpha = as_schedule("alpha", alpha, low=0)
        self.samples = samples

    def forward(self, inference: Inference, step: Tensor) -> Tensor:
        alpha = self.alpha(step)
        log_ratio = self._log_ratio(inference)
        sampled = inference.log_posterior - inference.log_prior
        excess = (inference.bound.rate - sampled).mean()
        return alpha * excess - _power_mean(log_ratio, 1 - alpha).mean()

    def terms(self, inference: Inference, step: Tensor) -> dict[str, Tensor]:
        """1 / sum_k s_k^2 of the shares s that the samples have of the gradient, out of K: how many
        of them count.
        """
        share = ((1 - self.alpha(step)) * self._log_ratio(inference)).softmax(0)
        return {"effective_samples": share.square().sum(0).reciprocal().mean()}

    def _log_ratio(self, inference: Inference) -> Tensor:
        """log w, `(K, B)`."""
        log_ratio = inference.log_prior - inference.log_posterior - inference.bound.distortion
        return log_ratio.unflatten(0, (self.samples, -1))


def _power_mean(logs: Tensor, power: Tensor) -> Tensor:
    """log [mean exp(power * logs)] / power over the first axis, exact also where the power nears 0,
    where it is the mean.
    """
    mean = logs.mean(0)
    rest = power * (logs - mean)
    small = rest.abs().amax(0) < 0.5
    near = torch.log1p(torch.expm1(torch.where(small, rest, 0.0)).mean(0))
    far = torch.logsumexp(rest, 0) - math.log(len(logs))
    none = power == 0
    grown = torch.where(small, near, far) / torch.where(none, 1.0, power)
    return mean + torch.where(none, 0.0, grown)
