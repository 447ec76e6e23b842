"""p(z): what the latents are coded against."""

from typing import Protocol

from torch import Tensor, nn

from jensen.core import gaussian
from jensen.core.gaussian import Gaussian
from jensen.core.random import normal


class Prior(Protocol):
    """A distribution over latents, `(D,)` each."""

    def rate(self, posterior: Gaussian, z: Tensor) -> Tensor:
        """KL(posterior || p), `(B, D)`, `(B, D)` to `(B,)`, nats: in closed form, or by a bound or the sample `z`."""
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


class StandardNormal(nn.Module):
    """N(0, I); its rate is closed form (Kingma & Welling 2014, appendix B)."""

    def rate(self, posterior: Gaussian, z: Tensor) -> Tensor:
        return self.latent_rate(posterior).sum(-1)

    def latent_rate(self, posterior: Gaussian) -> Tensor:
        return gaussian.kl(posterior, gaussian.standard(posterior.mean))

    def log_prob(self, z: Tensor) -> Tensor:
        return gaussian.log_density(z, gaussian.standard(z)).sum(-1)

    def sample(self, key: int, index: Tensor, dim: int) -> Tensor:
        return normal(key, index, (dim,))
