"""The exact parts of the rate on the held-out set."""

from collections.abc import Mapping

import torch
from torch import Tensor

from jensen.base.errors import check_count, check_seed
from jensen.base.ranks import gather_rows, world
from jensen.bound.aggregate import Draws, aggregate_log_density
from jensen.bound.decomposition import decompose
from jensen.diagnostics.snapshot import Snapshot, takes
from jensen.family.family import diagonal
from jensen.family.gaussian import STANDARD, Gaussian
from jensen.family.unknown import Unknown

PRIOR_FREE = ("mutual_information", "total_correlation", "log_n")
"""The parts that are of q alone."""


@takes(Gaussian)
def decomposition(snapshot: Snapshot, samples: int = 4096, seed: int = 0) -> Mapping[str, Tensor]:
    """Mutual information, total correlation and dimension-wise KL with their standard errors
    (`bound.decomposition`).

    They are those of the aggregate posterior of the N held-out examples: where `mi_over_log_n`
    nears 1 they say more of N than of the encoder, and total correlations of different N are not
    comparable. `mi_plus_tc` is the second line of a stack whose third is the rate.
    `gaussian_tc_...` is the total correlation of a Gaussian with the covariance of the codes
    (`code`) or of samples (`z`); it needs no N, and the two may differ in trend (Locatello et
    al. 2019, section 5.2). The draws are shared out over the ranks.

    `rate` is the KL itself, by quadrature and draws where the prior is a mixture, not a bound of
    it. With a mixture of all latents the parts are four: marginal_kl = total_correlation +
    dimension_wise_kl - prior_dependence; where that is 0, and exactly so, it is left out. Of a prior
    without known marginals there is no dimension_wise_kl, of one that is `Unknown` no rate and no
    marginal_kl either.
    """
    check_count("samples", samples, least=2)
    check_seed("seed", seed)
    posterior = diagonal(snapshot.posterior, "diagnostics=[decomposition]")
    generator = torch.Generator().manual_seed(seed)
    unknown = isinstance(snapshot.prior, Unknown)
    prior = STANDARD if unknown else snapshot.prior
    parts = decompose(
        posterior, samples=samples, generator=generator, prior=prior, log_density=shared_out
    )
    codes = torch.atleast_2d(torch.cov(posterior.mean.double().T, correction=0))
    noise = posterior.log_var.double().exp().mean(0).diag()
    found = {
        name: value
        for name, value in parts._asdict().items()
        if value is not None and value.dim() == 0
    }
    if unknown:
        found = {
            name: value for name, value in found.items() if name.removesuffix("_se") in PRIOR_FREE
        }
    if found.get("prior_dependence") == found.get("prior_dependence_se") == 0:
        del found["prior_dependence"], found["prior_dependence_se"]
    return found | {
        "mi_plus_tc": parts.mutual_information + parts.total_correlation,
        "mi_over_log_n": parts.mutual_information / parts.log_n,
        "gaussian_tc_code": gaussian_total_correlation(codes),
        "gaussian_tc_z": gaussian_total_correlation(codes + noise),
    }


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
