"""The bound that both EM and the VAE raise: `log p(x) >= elbo = -(distortion + rate)`, nats per
example.
"""

from typing import NamedTuple

from torch import Tensor

from jensen.family.family import Posterior


class Bound(NamedTuple):
    """The evidence lower bound of each example, by its two parts (Alemi et al. 2018, arXiv
    1711.00464, eq. 4-6).

    distortion: `(B,)`, -E_q log p(x|z), summed over the observation, constants included.
    rate: `(B,)`, KL(q(z|x) || p(z)), summed over latents.
    """

    distortion: Tensor
    rate: Tensor

    @property
    def elbo(self) -> Tensor:
        """`(B,)`, the bound at beta = 1, whatever is being minimised. Larger is better."""
        return -(self.distortion + self.rate)


class Inference(NamedTuple):
    """A model's word on a minibatch: all that an objective may read.

    bound: the `(B,)` distortion and rate.
    posterior: q(z|x), `(B, D)`, of any family; what needs a certain one says so
        (`family.family.diagonal`).
    z: `(B, D)`, a sample of the posterior.
    log_prior: `(B,)`, log p(z) at that sample.
    log_q: `(B,)`, log q(z|x) at that sample, where the draw came with it; else nothing, and
        `log_posterior` asks the posterior.
    """

    bound: Bound
    posterior: Posterior
    z: Tensor
    log_prior: Tensor
    log_q: Tensor | tuple[()] = ()

    @property
    def log_posterior(self) -> Tensor:
        """`(B,)`, log q(z|x) at that sample."""
        if isinstance(self.log_q, tuple):
            return self.posterior.log_prob(self.z)
        return self.log_q
