"""The linear VAE with beta = 1 against probabilistic PCA, whose likelihood is known."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.diagnostics.linear import check_variances, linear_model
from jensen.diagnostics.snapshot import Snapshot, takes
from jensen.family.gaussian import LOG_2PI, Gaussian


def best_evidence(variances: Sequence[float], latents: int) -> float:
    """E log p(x) of the maximum-likelihood solution on N(0, Sigma), Sigma with eigenvalues
    `variances`; nats.

    Tipping & Bishop 1999, eq. 8: the noise is the mean of the eigenvalues that the `latents`
    largest leave over.
    """
    ordered = sorted(variances, reverse=True)
    kept = ordered[:latents]
    left = ordered[latents:]
    noise = sum(left) / len(left)
    return -0.5 * (
        len(ordered) * (LOG_2PI + 1) + sum(map(math.log, kept)) + len(left) * math.log(noise)
    )


@takes(Gaussian)
def probabilistic_pca(snapshot: Snapshot, variances: Sequence[float]) -> Mapping[str, Tensor]:
    """The trained model's exact elbo and evidence on N(0, diag(variances)), their gap, and what is
    short of the best evidence.

    At the optimum the posterior is exact, so the gap is 0 (Lucas et al. 2019, arXiv 1911.02469,
    section 4).
    """
    check_variances(variances, snapshot)
    model = linear_model(snapshot)
    if len(model.offset) >= len(variances):
        raise InputError(
            f"variances has {len(variances)} numbers: expected more than the {len(model.offset)}"
            " latents"
        )
    sigma = torch.tensor(list(variances), dtype=torch.float64).diag().to(model.noise)
    elbo = model.elbo(sigma)
    evidence = model.evidence(sigma)
    best = best_evidence(variances, len(model.offset))
    return {
        "elbo": elbo,
        "evidence": evidence,
        "gap": evidence - elbo,
        "shortfall": best - evidence,
        "noise": model.noise,
    }
