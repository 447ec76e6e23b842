"""A prior's rate, density and draws, as a VAE takes them."""

from jensen.bound.rate import latent_rates, rate
from jensen.family.draw import draw


def rate_of(prior, posterior, z):
    return rate(posterior, prior.distribution(), z, bounded=prior.rate_is_bound)


def latent_rate_of(prior, posterior):
    return latent_rates(posterior, prior.distribution())


def log_prob_of(prior, z):
    return prior.distribution().log_prob(z).to(z.dtype)


def draws_of(prior, key, index, dim):
    return draw(prior.distribution(), key, index, dim)


def each_of(product):
    """The factors of a `Product` of mixtures, one by one."""
    return [product.marginal(latent) for latent in range(len(product.factors.log_weight))]
