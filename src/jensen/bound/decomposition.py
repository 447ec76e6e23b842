"""The rate taken apart: rate = mutual information + total correlation + dimension-wise KL, over a
whole data set.

    MI   = E log q(z|x) - E log q(z)                 I(x; z) under q
    TC   = E log q(z) - sum_d E log q(z_d)           KL(q(z) || prod_d q(z_d))
    DWKL = sum_d E [log q(z_d) - log p(z_d)]         sum_d KL(q(z_d) || p(z_d))

with q(z) = (1/N) sum_n q(z|x_n), the aggregate posterior (Hoffman & Johnson 2016; Chen et al. 2018,
arXiv 1802.04942, eq. 2).

Only E log q(z) has no closed form or cheap quadrature. Everything else is computed to rounding, so
the three terms, and marginal_kl = TC + DWKL, add up to the closed-form rate. (That they add up
proves nothing: any wrong log q(z) cancels.)

E log q(z) is a mean over draws z ~ q(z) of the exact log q(z), a sum over all N posteriors. Its
variance is reduced by regression on functions of the draw whose means are known: log q(z|x) of the
posterior it came from, and the first and second moments of z. Where q(z) is Gaussian, or the
posteriors do not overlap, nothing is left to chance.

Where they hardly overlap, MI is near log N, by a few of the draws, or by none where some should be:
their spread says little of the standard error then. It is at least what the posteriors' distances
make it (`bound.overlap`).

With a prior p that does not factorise, KL(q(z) || p) = TC + DWKL - E log [p(z) / prod_d p(z_d)]: a
fourth term. Of a prior without known marginals, such as a flow, there are rate, MI, TC and
marginal_kl; what is of single latents is None.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from jensen.base.errors import InputError, check_count
from jensen.bound.aggregate import Draws, about_mean, aggregate_log_density, draw, own_log_density
from jensen.bound.marginals import marginal_entropy, marginal_log_prior
from jensen.bound.rate import log_density
from jensen.bound.term import Term, control_variates
from jensen.family import gaussian
from jensen.family.family import Family, Product, diagonal
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture


class Decomposition(NamedTuple):
    """In nats per example, float64; `()` unless said otherwise. `..._se` is the standard error of a
    Monte-Carlo term.

    rate: E KL(q(z|x) || p(z)); closed form for a Gaussian prior, by log p(z) at the draws where
        nothing better is known.
    latent_rate: `(D,)`, E KL(q(z_d|x) || p(z_d)).
    mutual_information, total_correlation, dimension_wise_kl: the parts.
    latent_dimension_wise_kl: `(D,)`, KL(q(z_d) || p(z_d)).
    prior_dependence: E log [p(z) / prod_d p(z_d)] under q(z); 0 for a prior that factorises.
    marginal_kl: KL(q(z) || p(z)) = rate - MI = TC + DWKL - prior_dependence.
    log_n: log of the data set's size, the most that mutual_information can be. Near it TC measures
        that size, not the encoder.

    latent_rate, dimension_wise_kl, latent_dimension_wise_kl and prior_dependence are None where
    p(z_d) is unknown.
    """

    rate: Tensor
    rate_se: Tensor
    latent_rate: Tensor | None
    mutual_information: Tensor
    mutual_information_se: Tensor
    total_correlation: Tensor
    total_correlation_se: Tensor
    dimension_wise_kl: Tensor | None
    dimension_wise_kl_se: Tensor | None
    latent_dimension_wise_kl: Tensor | None
    prior_dependence: Tensor | None
    prior_dependence_se: Tensor | None
    marginal_kl: Tensor
    marginal_kl_se: Tensor
    log_n: Tensor


LogDensity = Callable[[Draws, Gaussian, int], Tensor]


def decompose(
    posterior: Gaussian,
    *,
    samples: int,
    generator: Generator,
    prior: Family = gaussian.STANDARD,
    dataset_size: int | None = None,
    log_density: LogDensity | None = None,
) -> Decomposition:
    """The parts of the rate of N posteriors, `(N, D)`.

    Args:
        posterior: q(z|x_n) of every example of a data set, or of N of its `dataset_size` examples.
        samples: S, draws of z for E log q(z). The work is S x N x D; the memory does not grow with
            S x N.
        generator: of the draws.
        prior: p(z); by default N(0, I). Its marginals are integrated if they are a `Gaussian` or a
            `Mixture`; those of another family are evaluated at the draws.
        dataset_size: where the N posteriors are not all there are: log q(z) is then the stratified
            estimate, see `aggregate_log_density`.
        log_density: used in place of `aggregate_log_density`, to share out the draws.

    Raises:
        InputError: posteriors that are none, not `(N, D)` or not finite; fewer than 2 samples; a
            dataset_size below N.
    """
    q = _checked(posterior)
    check_count("samples", samples, least=2)
    size = len(q.mean) if dataset_size is None else dataset_size
    check_count("dataset_size", size, least=len(q.mean))

    draws = draw(q, samples, generator)
    about, centred = about_mean(q, draws)
    controls = control_variates(centred, about)
    log_q = (log_density or aggregate_log_density)(draws, q, size)
    own = own_log_density(draws, q)
    latent_conditional = -gaussian.entropy(q).mean(0)  # E log q(z_d|x)
    # E log q(z), less the chance in log q(z|x): so MI is a mean of log q(z|x) - log q(z), each at
    # most log N.
    joint = Term.estimate(log_q - own + latent_conditional.sum(), controls)
    joint = joint.with_rare_overlaps(log_q - own, q, size)
    latents = range(q.mean.shape[1])
    entropy = [marginal_entropy(latent, centred, about, controls) for latent in latents]
    latent_prior = [marginal_log_prior(latent, draws, q, controls, prior) for latent in latents]
    entropies = Term.sum(entropy)
    log_prior = _log_prior(prior, latent_prior, draws, controls, posterior.mean.dtype)
    conditional = Term.exact(latent_conditional.sum())

    rate = conditional - log_prior
    mutual_information = conditional - joint
    total_correlation = joint + entropies
    marginal_kl = joint - log_prior
    return Decomposition(
        rate=rate.mean,
        rate_se=rate.standard_error,
        mutual_information=mutual_information.mean,
        mutual_information_se=mutual_information.standard_error,
        total_correlation=total_correlation.mean,
        total_correlation_se=total_correlation.standard_error,
        **_of_latents(latent_conditional, entropy, latent_prior, log_prior),
        marginal_kl=marginal_kl.mean,
        marginal_kl_se=marginal_kl.standard_error,
        log_n=torch.tensor(math.log(size), dtype=torch.float64, device=q.mean.device),
    )


def _of_latents(
    conditional: Tensor, entropy: "list[Term]", log_prior: "list[Term | None]", whole: "Term"
) -> dict[str, Tensor | None]:
    """The fields of a `Decomposition` that need p(z_d) of every latent.

    conditional: `(D,)`, E log q(z_d|x). whole: E log p(z).
    """
    known = [term for term in log_prior if term is not None]
    if len(known) < len(log_prior):
        names = ("latent_rate", "dimension_wise_kl", "latent_dimension_wise_kl", "prior_dependence")
        return dict.fromkeys([*names, "dimension_wise_kl_se", "prior_dependence_se"])
    cross = Term.sum(known)
    dimension_wise_kl = Term.zero(cross) - Term.sum(entropy) - cross
    dependence = whole - cross
    each = torch.stack([term.mean for term in known])
    return {
        "latent_rate": conditional - each,
        "dimension_wise_kl": dimension_wise_kl.mean,
        "dimension_wise_kl_se": dimension_wise_kl.standard_error,
        "latent_dimension_wise_kl": -torch.stack([term.mean for term in entropy]) - each,
        "prior_dependence": dependence.mean,
        "prior_dependence_se": dependence.standard_error,
    }


def _log_prior(
    prior: Family,
    marginals: "list[Term | None]",
    draws: Draws,
    controls: Tensor,
    dtype: torch.dtype,
) -> Term:
    """E log p(z) under q(z), by its marginals where it is their product.

    A family of one's own is asked in `dtype`, that of the model.
    """
    known = [term for term in marginals if term is not None]
    if isinstance(prior, Gaussian | Product) and len(known) == len(marginals):
        return Term.sum(known)
    z = draws.z if isinstance(prior, Mixture) else draws.z.to(dtype)
    return Term.estimate(log_density(prior, z, draws.noise).detach().double(), controls)


def _checked(posterior: Gaussian) -> Gaussian:
    """In float64, detached."""
    mean, log_var = diagonal(posterior, "the decomposition of the rate")
    if mean.dim() != 2 or mean.shape != log_var.shape or not mean.numel():
        shapes = f"mean {list(mean.shape)} and log_var {list(log_var.shape)}"
        raise InputError(
            f"posterior has {shapes}: expected (N, D) for both, with N and D at least 1"
        )
    if not (mean.isfinite().all() and log_var.isfinite().all()):
        raise InputError(
            "posterior holds NaN or infinite numbers: expected finite ones; find the step at which"
            " training broke"
        )
    return Gaussian(mean.detach().double(), log_var.detach().double())
