"""rate - mutual information = KL(q(z) || p(z)) under priors of which a density alone is known, by
Monte Carlo of the aggregate posterior, which shares no code with the decomposition.
"""

import math

import pytest
import torch
from priors import rate_of
from torch import distributions

from jensen.bound.decomposition import decompose
from jensen.family.gaussian import Gaussian
from jensen.model.diffusion_prior import DiffusionPrior
from jensen.model.flow_prior import FlowPrior

COUNT = 60


def encoded():
    """Posteriors along a bend, some wide and some narrow, `(60, 2)`."""
    noise = torch.randn(2, COUNT, 2, generator=torch.Generator().manual_seed(0))
    mean = torch.stack([noise[0, :, 0], noise[0, :, 0].square() - 1 + 0.3 * noise[0, :, 1]], 1)
    return Gaussian(mean, 0.4 * noise[1] - 2.5)


def draws_of(q, each, seed=1):
    """`(each * 60, 2)` draws of all posteriors, and the posteriors of these."""
    noise = torch.randn(each, COUNT, 2, generator=torch.Generator().manual_seed(seed))
    many = Gaussian(*(part.repeat(each, 1) for part in q))
    return many.rsample(noise.flatten(0, 1)), many, noise.flatten(0, 1)


def taught(prior, q):
    """A prior that has learned something of q(z)."""
    optimiser = torch.optim.Adam(prior.parameters(), 1e-2)
    for step in range(30):
        z, _, noise = draws_of(q, 4, seed=100 + step)
        p = prior.distribution()
        density = p.log_bound(z, noise) if isinstance(prior, DiffusionPrior) else p.log_prob(z)
        optimiser.zero_grad()
        (-density.mean()).backward()
        optimiser.step()
        prior.update(None, torch.tensor(step))
    return prior.eval().requires_grad_(False)


def made(choice):
    torch.manual_seed(0)
    if choice == "flow":
        return FlowPrior(2, "maf", hidden=(16,))
    if choice == "network":
        return DiffusionPrior(2, hidden=(32, 32))
    return DiffusionPrior(2, denoiser="mixture", components=4)


def density_of(prior, z):
    """log p(z), float64; of a diffusion whose denoiser is a mixture's, that mixture's."""
    if isinstance(prior, FlowPrior):
        return prior.distribution().log_prob(z).double()
    log_weight, (mean, log_var) = prior.denoiser.mixture()
    weight = distributions.Categorical(logits=log_weight.double())
    parts = distributions.Normal(mean.double(), (log_var.double() / 2).exp())
    each = distributions.Independent(parts, 1)
    return distributions.MixtureSameFamily(weight, each).log_prob(z.double())


@pytest.mark.parametrize("choice", ["flow", "diffusion"])
def test_the_rate_less_the_information_is_the_divergence_of_the_aggregate(choice):
    q = encoded()
    prior = taught(made(choice), q)
    p = prior.distribution()
    parts = decompose(q, samples=2000, generator=torch.Generator().manual_seed(2), prior=p)
    z, many, noise = draws_of(q, 100)
    each = distributions.Independent(
        distributions.Normal(q.mean.double(), (q.log_var.double() / 2).exp()), 1
    )
    weight = distributions.Categorical(logits=torch.zeros(COUNT).double())
    aggregate = distributions.MixtureSameFamily(weight, each).log_prob(z.double())
    # Draws of one posterior each are strata of q(z): their spread counts within.
    gap = (aggregate - density_of(prior, z)).unflatten(0, (100, COUNT))
    expected = gap.mean()
    error = (gap.var(0).mean() / gap.numel()).sqrt()
    assert 0 < error < 0.1 * expected
    allowed = 3 * (error.square() + parts.marginal_kl_se.square()).sqrt()
    assert abs((parts.rate - parts.mutual_information) - expected) < allowed
    # And what the model reports of its rate: log q - log p, or -H(q) and the bound of log p.
    if choice == "flow":
        rate = rate_of(prior, many, z)
    else:
        entropy = 0.5 * (q.log_var + math.log(2 * math.pi) + 1).sum(1)
        rate = -entropy.repeat(100) - p.log_bound(z, noise)
    rate = rate.double().unflatten(0, (100, COUNT))
    spread = (rate.var(0).mean() / rate.numel()).sqrt()
    known = parts.mutual_information + expected
    allowed = (spread.square() + error.square() + parts.mutual_information_se.square()).sqrt()
    assert abs(rate.mean() - known) < 3 * allowed


def test_a_prior_that_has_not_learned_costs_what_the_standard_normal_does():
    q = encoded()
    generator = torch.Generator().manual_seed(3)
    plain = decompose(q, samples=2000, generator=generator)
    generator.manual_seed(3)
    found = decompose(q, samples=2000, generator=generator, prior=made("flow").distribution())
    assert found.marginal_kl.item() == pytest.approx(plain.marginal_kl.item(), abs=1e-4)


def path_divergence(p, q, z):
    """KL(q(z) || p(z)) of what the bound of a diffusion is a bound of, by the score of q(z) under
    noise from torch.distributions and autograd (Song et al. 2021, arXiv 2101.09258, theorem 1):
    1/2 E of the integral over gamma of |E[eps | z_gamma] - guess|^2.
    """
    low, high = p.gamma.tolist()
    levels = torch.linspace(low, high, 41, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    each = []
    for gamma in levels:
        alpha, sigma = (-gamma).sigmoid().sqrt(), gamma.sigmoid().sqrt()
        eps = torch.randn(z.shape, generator=generator, dtype=torch.float64)
        noisy = (alpha * z + sigma * eps).requires_grad_()
        spread = (alpha.square() * q.log_var.double().exp() + sigma.square()).sqrt()
        parts = distributions.Independent(distributions.Normal(alpha * q.mean, spread), 1)
        weight = distributions.Categorical(logits=torch.zeros(COUNT).double())
        log_q = distributions.MixtureSameFamily(weight, parts).log_prob(noisy)
        (slope,) = torch.autograd.grad(log_q.sum(), noisy)
        guess = p.denoise(noisy.detach().float(), gamma.float().expand(len(z)))
        each.append((-sigma * slope - guess.double()).square().sum(1))
    return 0.5 * torch.trapezoid(torch.stack(each), levels, dim=0)


def test_the_rate_under_a_network_less_the_information_is_the_divergence_of_its_paths():
    """Not that of the density of its probability flow, which is another distribution's until the
    network is the best one: the difference is what training has not done yet.
    """
    q = encoded()
    prior = taught(made("network"), q)
    p = prior.distribution()
    parts = decompose(q, samples=2000, generator=torch.Generator().manual_seed(2), prior=p)
    z, _, _ = draws_of(q, 20)
    each = path_divergence(p, q, z.double())
    error = each.std() / len(each) ** 0.5
    assert 0 < error < 0.1 * each.mean()
    allowed = 3 * (error.square() + parts.marginal_kl_se.square()).sqrt()
    assert abs((parts.rate - parts.mutual_information) - each.mean()) < allowed
