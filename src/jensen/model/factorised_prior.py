"""p(z) = prod_d sum_k weight_dk N(z_d; mean_dk, var_dk): an independent mixture for each latent.

A mixture of all latents may be turned without any loss; a prior whose factors are independent and not Gaussian may not,
which is what ties latents to factors of variation: it is the source model of independent component analysis (Attias 1999,
"Independent factor analysis").
"""

from torch import Tensor, nn

from jensen.base.random import fold, normal, uniform
from jensen.family import mixture
from jensen.family.family import Posterior, Product, marginals
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture
from jensen.model.mixture_prior import LearnedMixture, by_latent, check_latents, dependence, draw, gathered, latent_divergence


class FactorisedMixturePrior(nn.Module):
    """K Gaussians of one dimension for each of D latents: as a mixture it would have K^D components, so it is kept as factors.

    The rate is the sum over latents of the bound `mixture_prior.divergence`, each of one dimension; EM goes latent by latent.
    See `LearnedMixture` for the other arguments.

    Args:
        components: K.
        latent_dim: D.
    """

    rate_is_bound = True

    def __init__(
        self,
        components: int,
        latent_dim: int,
        fit: str = "em",
        warmup: int = 200,
        floor: float = 1e-4,
        dead: float = 0.05,
        power: float = 0.6,
        delay: float = 20.0,
        forget: float = 0.01,
    ) -> None:
        super().__init__()
        self.learned = LearnedMixture((latent_dim, components, 1), fit, warmup, floor, dead, power, delay, forget)
        self.latent_dim = latent_dim
        self.warmup = warmup

    def rate(self, posterior: Posterior, z: Tensor, log_prior: Tensor | None = None) -> Tensor:
        check_latents(self.latent_dim, posterior)
        own = marginals(posterior, "model/prior=factorised")
        return latent_divergence(own, self.learned.mixture()).sum(-1) + dependence(posterior, own)

    def latent_rate(self, posterior: Posterior) -> Tensor:
        return latent_divergence(marginals(posterior, "model/prior=factorised"), self.learned.mixture())

    def log_prob(self, z: Tensor) -> Tensor:
        return mixture.log_prob(z.double().mT.unsqueeze(-1), self.learned.mixture()).sum(0).to(z.dtype)

    def sample(self, key: int, index: Tensor, dim: int) -> Tensor:
        chance, noise = uniform(fold(key, "component"), index, (dim,)), normal(key, index, (dim,))
        return draw(self.learned.mixture(), chance.mT, noise.mT.unsqueeze(-1)).squeeze(-1).mT

    def update(self, posterior: Posterior, step: Tensor) -> None:
        own = marginals(posterior, "model/prior=factorised")
        self.learned.update(by_latent(gathered(own)), step)

    def distribution(self) -> Product:
        log_weight, (mean, log_var) = self.learned.mixture()
        return Product(tuple(Mixture(weight, Gaussian(*part)) for weight, *part in zip(log_weight, mean, log_var, strict=True)))
