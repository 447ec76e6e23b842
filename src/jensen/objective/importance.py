"""The importance-weighted autoencoder's loss."""

import math

from torch import Tensor

from jensen.base.errors import check_count
from jensen.bound.bound import Inference
from jensen.objective.objective import Objective


class Importance(Objective):
    """-[logsumexp_k log w_k - log K], mean over the batch, nats per example; log w = log p(x|z) +
    log p(z) - log q(z|x).

    Burda et al. 2016 (arXiv 1509.00519), eq. 8, for K = `samples` draws of z. -loss is a lower
    bound on log p(x) that is above the elbo and rises with K (theorem 1); with K = 1 it is the elbo
    with a sampled rate.

    Args:
        samples: K.
    """

    needs_density = True

    def __init__(self, samples: int = 5) -> None:
        super().__init__()
        check_count("samples", samples)
        self.samples = samples

    def forward(self, inference: Inference, step: Tensor) -> Tensor:
        return math.log(self.samples) - self._log_ratio(inference).logsumexp(0).mean()

    def terms(self, inference: Inference, step: Tensor) -> dict[str, Tensor]:
        """1 / sum_k w_k^2 of the normalised weights, out of K: how many of the samples count."""
        share = self._log_ratio(inference).softmax(0)
        return {"effective_samples": share.square().sum(0).reciprocal().mean()}

    def _log_ratio(self, inference: Inference) -> Tensor:
        """log w, `(K, B)`."""
        log_ratio = inference.log_prior - inference.log_posterior - inference.bound.distortion
        return log_ratio.unflatten(0, (self.samples, -1))
