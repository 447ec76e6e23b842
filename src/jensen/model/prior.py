"""p(z): what the latents are coded against."""

from typing import Protocol

from torch import Tensor, nn

from jensen.core import gaussian
from jensen.core.gaussian import Gaussian
from jensen.core.mixture import Mixture
from jensen.core.random import normal


class Prior(Protocol):
    """A distribution over latents, `(D,)` each.

    A prior that needs the encoder also has `bind(encode)`, which the VAE calls once with its own.
    """

    rate_is_bound: bool
    """Whether `rate` may exceed the KL; the value of the sample, log q(z|x) - log p(z), is then logged beside it."""

    warmup: int
    """Steps for which the prior stays N(0, I) before it is learned; 0 if there are none."""

    def rate(self, posterior: Gaussian, z: Tensor, log_prior: Tensor | None = None) -> Tensor:
        """KL(posterior || p), `(B, D)`, `(B, D)` to `(B,)`, nats: in closed form, or by an upper bound or the sample `z`.

        `log_prior` is log p(z), `(B,)`, where the caller has it already.
        """
        ...

    def latent_rate(self, posterior: Gaussian) -> Tensor:
        """KL of each latent's posterior to its marginal of p, `(B, D)`, nats."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), `(B, D)` to `(B,)`, nats."""
        ...

    def sample(self, key: int, index: Tensor, dim: int) -> Tensor:
        """Draws `(B, dim)` for examples `index` `(B,)`; see `core.random`."""
        ...

    def update(self, posterior: Gaussian, step: Tensor) -> None:
        """Learn from a training step's posteriors, detached, `(B, D)`: this rank's equal share of the minibatch.

        Called after the loss of each step, on every rank, with the `()` integer step; afterwards all ranks hold one state.
        """
        ...

    def mixture(self) -> Mixture | None:
        """p, where it is a mixture of few enough components; else None."""
        ...

    def factors(self) -> tuple[Mixture, ...] | None:
        """D mixtures of one dimension, where p is their product and no `mixture`; else None. N(0, I) is neither."""
        ...


class StandardNormal(nn.Module):
    """N(0, I); its rate is closed form (Kingma & Welling 2014, appendix B)."""

    rate_is_bound = False
    warmup = 0

    def rate(self, posterior: Gaussian, z: Tensor, log_prior: Tensor | None = None) -> Tensor:
        return self.latent_rate(posterior).sum(-1)

    def latent_rate(self, posterior: Gaussian) -> Tensor:
        return gaussian.kl(posterior, gaussian.standard(posterior.mean))

    def log_prob(self, z: Tensor) -> Tensor:
        return gaussian.log_density(z, gaussian.standard(z)).sum(-1)

    def sample(self, key: int, index: Tensor, dim: int) -> Tensor:
        return normal(key, index, (dim,))

    def update(self, posterior: Gaussian, step: Tensor) -> None:
        pass

    def mixture(self) -> None:
        return None

    def factors(self) -> None:
        return None
