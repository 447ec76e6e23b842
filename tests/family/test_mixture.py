"""Mixtures, against torch.distributions, scipy and direct sums."""

import math

import pytest
import torch
from mixtures import STRUCTURES, close, covariance, every_structure, mixed, normal
from scipy import stats
from torch import distributions
from torch.fx.experimental.proxy_tensor import make_fx

from jensen.base.tree import tree_map
from jensen.family import mixture
from jensen.family.full import FullGaussian, full
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import (
    Mixture,
    aggregate,
    log_joint,
    log_marginals,
    log_prob,
    logsumexp,
    responsibilities,
)
from jensen.family.spherical import SphericalGaussian
from jensen.family.tied import TiedGaussian


def reference(p):
    weights = distributions.Categorical(logits=p.log_weight)
    return distributions.MixtureSameFamily(
        weights, distributions.MultivariateNormal(p.components.mean, covariance(p.components))
    )


@every_structure
def test_log_prob_is_that_of_torch_distributions(structure):
    p = mixed(structure)
    x = 2 * normal(50, 4, seed=3)
    close(log_prob(x, p), reference(p).log_prob(x))
    close(log_joint(x, p).logsumexp(-1), reference(p).log_prob(x))
    close(responsibilities(x, p), (log_joint(x, p) - log_prob(x, p)[:, None]).exp())
    close(responsibilities(x, p).sum(-1), torch.ones(50, dtype=torch.float64))


@every_structure
def test_log_prob_is_streamed_when_large(structure, monkeypatch):
    p = mixed(structure)
    x = normal(50, 4, seed=3)
    whole = log_prob(x, p)
    marginals = log_marginals(x, p)
    monkeypatch.setattr(mixture, "_LIMIT", 40)
    close(log_prob(x, p), whole, 1e-14)
    close(log_marginals(x, p), marginals, 1e-14)
    own = p._replace(log_weight=normal(50, 3, seed=8).log_softmax(-1))
    streamed = log_prob(x, own)
    monkeypatch.undo()
    close(streamed, log_prob(x, own), 1e-14)


def test_weights_may_belong_to_points():
    p = mixed(Gaussian)
    x = normal(50, 4, seed=3)
    own = normal(50, 3, seed=8).log_softmax(-1)
    found = log_prob(x, p._replace(log_weight=own))
    close(found, (own + p.components.log_density(x)).logsumexp(-1))
    close(log_prob(x, p._replace(log_weight=p.log_weight.expand(50, 3))), log_prob(x, p))


@every_structure
def test_a_leading_axis_is_a_stack_of_mixtures(structure):
    parts = [mixed(structure, seed=seed) for seed in (0, 20)]
    x = normal(50, 4, seed=3)
    stack = Mixture(
        torch.stack([p.log_weight for p in parts]),
        structure(
            *(torch.stack(each) for each in zip(*(p.components for p in parts), strict=True))
        ),
    )
    for each, p in enumerate(parts):
        close(log_prob(x, stack)[each], log_prob(x, p))
        close(log_marginals(x, stack)[each], log_marginals(x, p))


@every_structure
def test_log_marginals_are_mixtures_of_marginals(structure):
    p = mixed(structure)
    x = 2 * normal(50, 4, seed=3)
    mean = p.components.mean
    cov = covariance(p.components)
    for d in range(4):
        each = stats.norm(mean[:, d].numpy(), cov[:, d, d].sqrt().numpy()).pdf(
            x[:, d, None].numpy()
        )
        close(
            log_marginals(x, p)[:, d],
            torch.from_numpy((each * p.log_weight.exp().numpy()).sum(-1)).log(),
        )


def test_the_aggregate_posterior_has_a_component_a_point():
    posterior = Gaussian(normal(30, 2), normal(30, 2, seed=1))
    q = aggregate(posterior)
    z = normal(20, 2, seed=2)
    each = distributions.Normal(posterior.mean, (posterior.log_var / 2).exp()).log_prob(z[:, None])
    close(log_prob(z, q), each.sum(-1).logsumexp(-1) - math.log(30))
    close(log_marginals(z, q), each.logsumexp(1) - math.log(30))


def test_gradients_are_those_of_finite_differences():
    for structure in STRUCTURES:
        p = mixed(structure, 2, 2)
        x = normal(5, 2, seed=3)

        def value(log_weight, mean, shape, x, structure=structure):
            p = Mixture(log_weight, structure(mean, shape))
            return log_prob(x, p), log_marginals(x, p), responsibilities(x, p)

        assert torch.autograd.gradcheck(
            value, [part.clone().requires_grad_() for part in (p.log_weight, *p.components, x)]
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logsumexp_is_torchs_far_apart_too(dtype):
    joint = 300 * normal(1000, 7).to(dtype)
    torch.testing.assert_close(logsumexp(joint, -1), joint.logsumexp(-1))
    torch.testing.assert_close(logsumexp(joint, 0), joint.logsumexp(0))
    leaf = joint[:4, :3].clone().requires_grad_()
    (slope,) = torch.autograd.grad(logsumexp(leaf, -1).sum(), leaf)
    torch.testing.assert_close(slope, leaf.detach().softmax(-1))


@every_structure
def test_samples_have_the_distribution(structure):
    p = mixed(structure, d=2)
    count = 20_000
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(count, generator=generator)
    noise = torch.randn(count, 2, generator=generator)
    x = mixture.sample(p, uniform, noise)
    mean, log_var = p.components.marginals()
    for d in range(2):

        def cdf(value, d=d):
            each = stats.norm(mean[:, d].numpy(), (log_var[:, d] / 2).exp().numpy()).cdf(
                value[:, None]
            )
            return each @ p.log_weight.exp().numpy()

        assert stats.kstest(x[:, d].numpy(), cdf).pvalue > 1e-3
    close(x.mean(0), mixture.mean(p), 0.1)
    overall = torch.einsum(
        "k,kde->de", p.log_weight.exp(), covariance(p.components) + mean[:, :, None] * mean[:, None]
    )
    close(torch.cov(x.T), overall - mixture.mean(p)[:, None] * mixture.mean(p), 0.3)


def test_float32_points_far_from_zero_keep_their_density():
    """One centred float64 product: the error is that of the points themselves."""
    x = normal(1000, 3).float() + 1e4
    p = Mixture(torch.zeros(1), Gaussian(torch.full((1, 3), 1e4), torch.zeros(1, 3)))
    expected = distributions.Normal(1e4, 1.0).log_prob(x.double()).sum(-1)
    torch.testing.assert_close(log_prob(x, p), expected.float(), rtol=1e-6, atol=1e-6)
    full = Mixture(torch.zeros(1), FullGaussian(torch.full((1, 3), 1e4), torch.eye(3)[None]))
    torch.testing.assert_close(log_prob(x, full), expected.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("structure", [Gaussian, SphericalGaussian, TiedGaussian])
@pytest.mark.parametrize("deviation", [1e-4, 1e-6, 1e-8])
def test_components_a_million_deviations_apart_keep_their_density(structure, deviation):
    """Against full Gaussians, whose deviations are taken one by one."""
    draw = torch.Generator().manual_seed(0)
    mean = torch.randn(4, 3, generator=draw, dtype=torch.float64)
    x = mean + deviation * torch.randn(4, 3, generator=draw, dtype=torch.float64)
    components = structure.at(mean, torch.tensor([1.0, 2.0, 0.5]).double() * deviation**2)
    p = Mixture(torch.full((4,), 0.25).double().log(), components)
    expected = log_prob(x, p._replace(components=full(components)))
    torch.testing.assert_close(log_prob(x, p), expected, rtol=0, atol=1e-7)
    twice = tree_map(lambda part: part.expand(2, *part.shape), components)
    stacked = Mixture(p.log_weight.expand(2, 4), twice)
    found = log_prob(x.expand(2, 4, 3), stacked)
    torch.testing.assert_close(found, expected.expand(2, 4), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_a_density_that_is_recorded_or_stacked_asks_for_no_value():
    """A training step takes it: `algorithm.step` is traced, stacked and captured."""
    mean = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    x = mean[:2] + 0.1

    def density(move):
        components = Gaussian(mean + move, torch.full((3, 2), -30.0))
        return log_prob(x, Mixture(torch.full((3,), 1 / 3).log(), components))

    with torch.no_grad():
        found = make_fx(density)(torch.tensor(0.1))(torch.tensor(0.1))
    stacked = torch.func.vmap(density)(torch.tensor([0.1, 0.2]))
    torch.testing.assert_close(found, density(torch.tensor(0.1)), rtol=1e-3, atol=1)
    torch.testing.assert_close(stacked[0], found, rtol=1e-3, atol=1)
