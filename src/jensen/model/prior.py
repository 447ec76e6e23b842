"""p(z): what the latents are coded against."""

from typing import Protocol

from torch import Tensor, nn

from jensen.base.random import normal
from jensen.family import gaussian
from jensen.family.family import Family, Posterior, kl, marginals
from jensen.family.gaussian import Gaussian


class Prior(Protocol):
    """A distribution over latents, `(D,)` each.

    A prior that needs the encoder also has `bind(encode)`, which the VAE calls once with its own.
    """

    rate_is_bound: bool
    """Whether `rate` may exceed the KL; the value of the sample, log q(z|x) - log p(z), is then logged beside it."""

    warmup: int
    """Steps for which the prior stays N(0, I) before it is learned; 0 if there are none."""

    def rate(self, posterior: Posterior, z: Tensor, log_prior: Tensor | None = None) -> Tensor:
        """KL(posterior || p), `(B, D)`, `(B, D)` to `(B,)`, nats: in closed form, or by an upper bound or the sample `z`.

        `log_prior` is log p(z), `(B,)`, where the caller has it already.
        """
        ...

    def latent_rate(self, posterior: Posterior) -> Tensor | None:
        """KL of each latent's posterior to its marginal of p, `(B, D)`, nats; None where it is unknown."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), `(B, D)` to `(B,)`, nats."""
        ...

    def sample(self, key: int, index: Tensor, dim: int) -> Tensor:
        """Draws `(B, dim)` for examples `index` `(B,)`; see `base.random`."""
        ...

    def update(self, posterior: Posterior, step: Tensor) -> None:
        """Learn from a training step's posteriors, detached, `(B, D)`: this rank's equal share of the minibatch.

        Called after the loss of each step, on every rank, with the `()` integer step; afterwards all ranks hold one state.
        """
        ...

    def distribution(self) -> Family:
        """p as a value: a `Gaussian`, `Mixture` or `Product`, whose parts are exact, or anything that has a density."""
        ...


class StandardNormal(nn.Module):
    """N(0, I); its rate is closed form (Kingma & Welling 2014, appendix B)."""

    rate_is_bound = False
    warmup = 0

    def rate(self, posterior: Posterior, z: Tensor, log_prior: Tensor | None = None) -> Tensor:
        exact = kl(posterior, gaussian.standard(z))
        return posterior.log_prob(z) - self.log_prob(z) if exact is None else exact

    def latent_rate(self, posterior: Posterior) -> Tensor:
        return gaussian.kl(marginals(posterior, "the rate of each latent"), gaussian.standard(posterior.mean))

    def log_prob(self, z: Tensor) -> Tensor:
        return gaussian.log_density(z, gaussian.standard(z)).sum(-1)

    def sample(self, key: int, index: Tensor, dim: int) -> Tensor:
        return normal(key, index, (dim,))

    def update(self, posterior: Posterior, step: Tensor) -> None:
        pass

    def distribution(self) -> Gaussian:
        return gaussian.STANDARD
