"""p(z) = prod_d sum_k weight_dk N(z_d; mean_dk, var_dk): an independent mixture for each latent.

A mixture of all latents may be turned without any loss; a prior whose factors are independent and
not Gaussian may not, which is what ties latents to factors of variation: it is the source model of
independent component analysis (Attias 1999, "Independent factor analysis").
"""

from typing import Any

from torch import Tensor

from jensen.bound.rate import by_latent
from jensen.family.family import Posterior, Product, marginals
from jensen.model.mixture_prior import LearnedMixture, LearnedPrior
from jensen.model.online_mixture import gathered


class FactorisedMixturePrior(LearnedPrior):
    """K Gaussians of one dimension for each of D latents: as a mixture it would have K^D
    components, so it is kept as factors.

    The rate is the sum over latents of the bound `bound.rate.divergence`, each of one dimension; EM goes
    latent by latent.

    Args:
        components: K.
        latent_dim: D.
        learning: see `LearnedMixture`.
    """

    learned: LearnedMixture

    def __init__(self, components: int, latent_dim: int, **learning: Any) -> None:
        super().__init__(LearnedMixture((latent_dim, components, 1), **learning))
        self.latent_dim = latent_dim

    def update(self, posterior: Posterior, step: Tensor) -> None:
        own = marginals(posterior, "model/prior=factorised")
        self.learned.update(by_latent(gathered(own)), step)

    def distribution(self) -> Product:
        return Product(self.learned.mixture())
