"""The exact parts of the rate on the held-out set."""

from collections.abc import Mapping

import torch
from torch import Tensor

from jensen.core.decomposition import Decomposition, Draws, aggregate_log_density, decompose
from jensen.core.gaussian import Gaussian
from jensen.core.mixture import Mixture
from jensen.core.ranks import gather_rows, world
from jensen.diagnostics.snapshot import Snapshot


def decomposition(snapshot: Snapshot, samples: int = 4096, seed: int = 0) -> Mapping[str, Tensor]:
    """Mutual information, total correlation and dimension-wise KL with their standard errors (`core.decomposition`).

    They are those of the aggregate posterior of the N held-out examples: where `mi_over_log_n` nears 1 they say more of N than
    of the encoder, and total correlations of different N are not comparable. `gaussian_tc_...` is the total correlation of a
    Gaussian with the covariance of the codes (`code`) or of samples (`z`); it needs no N, and the two may differ in trend
    (Locatello et al. 2019, section 5.2). The draws are shared out over the ranks.

    `rate` is the KL itself, by quadrature and draws where the prior is a mixture, not a bound of it. With a mixture of all
    latents the parts are four: marginal_kl = total_correlation + dimension_wise_kl - prior_dependence.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = decompose(snapshot.posterior, samples=samples, generator=generator, prior=snapshot.prior, log_density=shared_out)
    if snapshot.prior_factors is not None:
        parts = _against_factors(parts, snapshot.posterior, snapshot.prior_factors, samples, generator)
    codes = torch.atleast_2d(torch.cov(snapshot.posterior.mean.double().T, correction=0))
    noise = snapshot.posterior.log_var.double().exp().mean(0).diag()
    return {name: value for name, value in parts._asdict().items() if value.dim() == 0} | {
        "mi_over_log_n": parts.mutual_information / parts.log_n,
        "gaussian_tc_code": gaussian_total_correlation(codes),
        "gaussian_tc_z": gaussian_total_correlation(codes + noise),
    }


def _against_factors(
    parts: Decomposition, posterior: Gaussian, factors: tuple[Mixture, ...], samples: int, generator: torch.Generator
) -> Decomposition:
    """`parts` with the terms that the prior is in, for a prior that is a product of mixtures of one dimension.

    E log p(z) is a sum over latents then, each a `decompose` of one dimension, of which only the marginal is computed.
    """

    def not_needed(draws: Draws, q: Gaussian, dataset_size: int) -> Tensor:
        return torch.zeros_like(draws.z[:, 0])

    each = [
        decompose(
            Gaussian(*(part[:, [latent]] for part in posterior)),
            samples=samples,
            generator=generator,
            prior=factor,
            log_density=not_needed,
        )
        for latent, factor in enumerate(factors)
    ]
    latent_rate = torch.cat([one.latent_rate for one in each])
    change = latent_rate - parts.latent_rate  # of -E log p(z_d), from N(0, 1) to the factor
    zero = torch.zeros_like(parts.rate)
    # Where the marginal is taken by quadrature nothing is left to chance; else E log p(z_d) is a mean over draws.
    error = torch.stack([torch.where(one.dimension_wise_kl_se > 0, one.rate_se, zero) for one in each])
    variance = error.square().sum()
    return parts._replace(
        rate=latent_rate.sum(),
        rate_se=variance.sqrt(),
        latent_rate=latent_rate,
        dimension_wise_kl=parts.dimension_wise_kl + change.sum(),
        dimension_wise_kl_se=(parts.dimension_wise_kl_se.square() + variance).sqrt(),
        latent_dimension_wise_kl=parts.latent_dimension_wise_kl + change,
        marginal_kl=parts.marginal_kl + change.sum(),
        marginal_kl_se=(parts.marginal_kl_se.square() + variance).sqrt(),
    )


def shared_out(draws: Draws, q: Gaussian, dataset_size: int) -> Tensor:
    """`aggregate_log_density`, each rank doing its share of the draws."""
    rank, ranks = world()
    mine = Draws(*(part.tensor_split(ranks)[rank] for part in draws))
    return gather_rows(aggregate_log_density(mine, q, dataset_size))


def gaussian_total_correlation(covariance: Tensor) -> Tensor:
    """1/2 [sum_d log C_dd - log det C] of `(D, D)`; constant dimensions are left out."""
    std = covariance.diagonal().sqrt()
    kept = std > 1e-6
    correlation = (covariance / torch.outer(std, std))[kept][:, kept]
    return -0.5 * torch.linalg.slogdet(correlation).logabsdet
