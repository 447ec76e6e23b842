"""The rate: KL(q(z|x) || p(z)) of each posterior, in closed form, by a bound, or by the sample."""

from typing import Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.base.tree import tree_map
from jensen.family import gaussian
from jensen.family.family import Family, Posterior, Product, entropy, kl, marginals
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture, logsumexp

_LIMIT = 1 << 22
"""Elements of a temporary `(D, N, K)`: 32 MiB of float64."""


def rate(
    posterior: Posterior,
    p: Family,
    z: Tensor,
    log_prior: Tensor | None = None,
    bounded: bool = True,
    log_posterior: Tensor | None = None,
) -> Tensor:
    """KL(posterior || p), `(B, D)` to `(B,)`, nats.

    In closed form, where the pair has one; else by the upper bound `divergence`, where p is made of
    mixtures of diagonal Gaussians and that is wanted (`bounded`); else by the sample z `(B, D)`, as
    log q(z|x) - log p(z), with the exact entropy of q where log p(z) is a bound (`log_density`).

    Args:
        log_prior, log_posterior: log p(z) and log q(z|x), `(B,)`, where the caller has them already.
    """
    exact = kl(posterior, p)
    if exact is not None:
        return exact
    if bounded and has_bound(p):
        _check_latents(p, posterior)
        own = marginals(posterior, "the bound of a mixture prior's rate")
        each = (
            latent_divergence(own, p.factors).sum(-1)
            if isinstance(p, Product)
            else divergence(own, p)
        )
        return each + _dependence(posterior, own)
    log_prior = p.log_prob(z).to(z.dtype) if log_prior is None else log_prior
    if bounded and isinstance(p, BoundedBelow) and isinstance(posterior, Gaussian | FullGaussian):
        return -entropy(posterior) - log_prior
    log_posterior = posterior.log_prob(z) if log_posterior is None else log_posterior
    return log_posterior - log_prior


@runtime_checkable
class BoundedBelow(Protocol):
    """A distribution whose density is dear, and a lower bound of it cheap: a diffusion."""

    def log_bound(self, z: Tensor, noise: Tensor, examples: int | None = None) -> Tensor:
        """A lower bound of log p(z) on average over what `noise` `(N, D)` stands for, `(N, D)` to
        `(N,)`, nats; rows i, i + examples, ... are draws of one example.
        """
        ...


def log_density(p: Family, z: Tensor, noise: Tensor, examples: int | None = None) -> Tensor:
    """log p(z), `(N, D)` to `(N,)`, nats, as a model's inference has it: where that is dear, its
    bound.
    """
    if not isinstance(p, Gaussian) and isinstance(p, BoundedBelow):  # a protocol is slow to ask
        return p.log_bound(z, noise, examples)
    return p.log_prob(z).to(z.dtype)


def latent_rates(posterior: Posterior, p: Family) -> Tensor | None:
    """KL of each latent's own posterior to its marginal of p, `(B, D)`, nats; None where p's
    marginals are unknown, or those of the posterior are no Gaussians.

    For mixtures it is the bound. It adds up to the rate where neither posterior nor prior has
    dependent latents.
    """
    if not isinstance(posterior, Gaussian | FullGaussian):
        return None
    if isinstance(p, Gaussian):
        return gaussian.kl(marginals(posterior, "the rate of each latent"), p)
    if not has_bound(p):
        return None
    own = marginals(posterior, "the rate of each latent")
    return latent_divergence(own, p.factors if isinstance(p, Product) else latent_mixtures(p))


def has_bound(p: Family) -> TypeGuard[Mixture | Product]:
    """Tell whether `divergence` holds for p: a mixture of diagonal Gaussians, or a product of
    such.
    """
    mixture = p.factors if isinstance(p, Product) else p
    return isinstance(mixture, Mixture) and isinstance(mixture.components, Gaussian)


def expected_log_density(posterior: Gaussian, components: Gaussian) -> Tensor:
    """E_q log N(z; k), `(..., N, D)` to `(..., N, K)`, nats, float64: log N(mean; k) - 1/2 sum_d
    var_d / var_kd.

    It asks of q its marginals alone, which are all of a `posterior` that is a diagonal Gaussian.
    """
    at_mean = components.log_density(posterior.mean.double())
    return (
        at_mean - 0.5 * posterior.log_var.double().exp() @ (-components.log_var.double()).exp().mT
    )


def divergence(posterior: Gaussian, p: Mixture) -> Tensor:
    """An upper bound of KL(q || p) for each q of `posterior`, `(..., N, D)` to `(..., N)`, nats,
    without sampling.

        KL(q || p)  <=  -H(q) - log sum_k weight_k exp(E_q log p_k)  =  -log sum_k weight_k
        exp(-KL(q || p_k))

    The variational approximation of Hershey & Olsen 2007 ("Approximating the Kullback Leibler
    divergence between Gaussian mixture models"), which is a bound where q is one Gaussian: by
    Jensen's inequality log p(z) >= sum_k r_k log(weight_k p_k(z) / r_k) at any r, the same for all
    z, and this is its mean under q at the best r, the `responsibilities`. Exact for K = 1, for
    identical components, and in the limit of components that do not overlap on q.
    """
    log_density = expected_log_density(posterior, diagonal_components(p))
    own = gaussian.entropy(tree_map(Tensor.double, posterior)).sum(-1)
    return -(own + logsumexp(p.log_weight_of_points() + log_density, -1)).to(posterior.mean.dtype)


def responsibilities(posterior: Gaussian, p: Mixture) -> Tensor:
    """r_k proportional to weight_k exp(E_q log p_k), `(..., N, D)` to `(..., N, K)`, float64: the
    E-step on distributions.
    """
    return (
        p.log_weight_of_points() + expected_log_density(posterior, diagonal_components(p))
    ).softmax(-1)


def latent_divergence(posterior: Gaussian, p: Mixture) -> Tensor:
    """The `divergence` of each latent, `(N, D)`, from D mixtures of one dimension; in parts, so N
    may be large.
    """
    size = max(1, _LIMIT // p.log_weight.numel())
    parts = zip(*(torch.split(part, size) for part in posterior), strict=True)
    return torch.cat([divergence(by_latent(Gaussian(*part)), p) for part in parts], -1).mT


def latent_mixtures(p: Mixture) -> Mixture:
    """A mixture of D dimensions as D mixtures of one: log-weights `(D, K)`, components `(D, K,
    1)`.
    """
    mean, log_var = by_latent(diagonal_components(p))
    return Mixture(p.log_weight.expand(mean.shape[:-1]), Gaussian(mean, log_var))


def by_latent(posterior: Gaussian) -> Gaussian:
    """`(N, D)` to `(D, N, 1)`: D sets of points of one dimension."""
    return tree_map(lambda part: part.mT.unsqueeze(-1), posterior)


def diagonal_components(p: Mixture) -> Gaussian:
    """The components of a mixture that are known to be diagonal."""
    assert isinstance(p.components, Gaussian)
    return p.components


def _dependence(posterior: Posterior, own: Gaussian) -> Tensor | float:
    """KL(q || prod_d q_d) of each posterior, `(B,)`, nats: what its latents tell of one another; of
    a diagonal one 0.
    """
    if isinstance(posterior, Gaussian):
        return 0.0
    assert isinstance(posterior, FullGaussian)
    return entropy(own) - entropy(posterior)


def _check_latents(p: Mixture | Product, posterior: Posterior) -> None:
    dim = len(p.factors.log_weight) if isinstance(p, Product) else p.components.mean.shape[-1]
    if (found := posterior.mean.shape[-1]) != dim:
        raise InputError(
            f"model.prior.latent_dim is {dim}: expected {found}, the latents of the encoder"
        )
