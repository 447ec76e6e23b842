"""The flow prior against a banana whose entropy is known, quadrature and autograd."""

import math
import sys

import pytest
import torch
from cases import some
from numpy.polynomial.hermite_e import hermegauss
from priors import draws_of, latent_rate_of, log_prob_of, rate_of
from scipy import stats

from jensen.base.errors import InputError
from jensen.family.flow import Flow
from jensen.family.gaussian import STANDARD, Gaussian
from jensen.model.flow_prior import FlowPrior

ENTROPY = 2.144729886
"""Of z1 ~ N(0, 1), z2 = z1^2 + N(0, .25), nats."""
BEST_GAUSSIAN = 3.243342175
KINDS = ("maf", "nsf")


def banana(count, seed=0):
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return torch.stack([noise[:, 0], noise[:, 0].square() + 0.5 * noise[:, 1]], 1)


def taught(kind="maf", steps=60, dim=2, seed=0, lr=1e-2):
    """A flow that has learned something of the banana, by maximum likelihood."""
    torch.manual_seed(seed)
    prior = FlowPrior(dim, kind)
    optimiser = torch.optim.Adam(prior.parameters(), lr)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        z = banana(256, seed=step + 1).repeat(1, dim)[:, :dim]
        loss = -log_prob_of(prior, z + (dim > 2) * 0.1 * torch.randn_like(z)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        falling.step()
    return prior


class Bend(torch.distributions.Transform):
    """Takes the banana to N(0, I)."""

    def __call__(self, z):
        return torch.stack([z[:, 0], 2 * (z[:, 1] - z[:, 0].square())], 1)

    def log_abs_det_jacobian(self, z, u):
        return torch.full_like(z[:, 0], math.log(2))


def test_the_banana_as_a_flow_has_the_references_digits():
    p = Flow(Bend(), 2)
    at_one = p.log_prob(torch.ones(1, 2, dtype=torch.float64)).item()
    assert at_one == pytest.approx(-1.644729886, abs=1e-9)
    node, weight = (torch.from_numpy(part) for part in hermegauss(40))
    weight = weight / weight.sum()
    first, second = torch.meshgrid(node, node, indexing="ij")
    z = torch.stack([first, first.square() + 0.5 * second], -1).flatten(0, 1)
    share = (weight[:, None] * weight).flatten()
    entropy = -(share * p.log_prob(z)).sum().item()
    assert entropy == pytest.approx(ENTROPY, abs=1e-8)
    standard = -(share * STANDARD.log_prob(z)).sum().item()
    assert standard == pytest.approx(3.962877066, abs=1e-8)
    mean = (share[:, None] * z).sum(0)
    covariance = (share[:, None, None] * (z - mean)[:, :, None] * (z - mean)[:, None]).sum(0)
    assert covariance[0, 1].item() == pytest.approx(0, abs=1e-10)
    best = torch.distributions.MultivariateNormal(mean, covariance)
    gaussian = -(share * best.log_prob(z)).sum().item()
    assert gaussian == pytest.approx(BEST_GAUSSIAN, abs=1e-8)
    # What a prior can gain on such latents, over N(0, I) and over the best Gaussian.
    assert standard - entropy == pytest.approx(1.818147180, abs=1e-8)
    assert gaussian - entropy == pytest.approx(1.098612289, abs=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_it_starts_as_the_standard_normal(kind, dim):
    prior = FlowPrior(dim, kind)
    z = 2 * torch.randn(50, dim)
    torch.testing.assert_close(log_prob_of(prior, z), STANDARD.log_prob(z), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(prior.distribution().rsample(z), z, rtol=1e-5, atol=1e-5)


@some(1, "kind", KINDS)
def test_its_density_integrates_to_one_and_draws_follow_it(kind):
    prior = taught(kind, steps=30)
    side = torch.linspace(-9, 14, 500)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        density = log_prob_of(prior, grid).exp().reshape(500, 500).double()
        draws = draws_of(prior, 3, torch.arange(2000), 2)
    whole = torch.trapezoid(torch.trapezoid(density, side.double()), side.double())
    assert whole.item() == pytest.approx(1, abs=2e-3)
    for axis in (0, 1):
        one = torch.trapezoid(density, side.double(), dim=1 - axis)
        cumulative = torch.cumulative_trapezoid(one, side.double())
        found = torch.searchsorted(side, draws[:, axis].contiguous()).clamp(1, 499) - 1
        assert stats.kstest(cumulative[found].numpy(), "uniform").pvalue > 1e-3


def test_a_draw_is_what_the_density_takes_to_its_noise():
    prior = taught("nsf", steps=30)
    noise = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    p = prior.distribution()
    z = p.rsample(noise)
    torch.testing.assert_close(p.transform(z), noise, rtol=1e-3, atol=1e-3)
    slopes = torch.stack([torch.func.jacrev(lambda u: p.rsample(u[None])[0])(u) for u in noise])
    expected = STANDARD.log_prob(noise) - torch.linalg.slogdet(slopes).logabsdet
    torch.testing.assert_close(p.log_prob(z), expected, rtol=1e-3, atol=2e-3)


def test_the_rate_is_the_samples_and_that_of_a_latent_is_not_known():
    prior = taught(steps=20)
    q = Gaussian(torch.randn(9, 2), torch.randn(9, 2) - 2)
    z = q.rsample(torch.randn(9, 2))
    expected = q.log_prob(z) - log_prob_of(prior, z)
    torch.testing.assert_close(rate_of(prior, q, z), expected)
    assert latent_rate_of(prior, q) is None
    assert prior.distribution().marginal(0) is None


def test_of_one_latent_it_is_its_own_marginal():
    p = FlowPrior(1).distribution()
    assert isinstance(p.marginal(0), Flow)
    torch.testing.assert_close(p.marginal(0).log_prob(torch.zeros(1, 1)), torch.tensor([-0.918939]))


def test_a_little_of_the_banana_is_learned_in_a_second():
    prior = taught(steps=150, lr=2e-2)
    found = -log_prob_of(prior, banana(4000)).mean().item()
    assert ENTROPY - 0.1 < found < BEST_GAUSSIAN


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_latents_of_a_banana_are_learned_to_their_entropy(kind):
    found = []
    for seed in range(3):
        prior = taught(kind, steps=1000, seed=seed, lr=5e-3)
        with torch.no_grad():
            z = banana(100_000, seed=10_000 + seed)
            found.append(-log_prob_of(prior, z).mean().item())
    assert ENTROPY - 0.02 < sum(found) / 3 <= 2.18


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kind": "glow"}, "kind is 'glow': expected"),
        ({"transforms": 0}, "transforms is 0: expected"),
        ({"hidden": [0]}, "hidden is 0: expected"),
        ({"latent_dim": 0}, "latent_dim is 0: expected"),
    ],
)
def test_what_it_cannot_be_is_said(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        FlowPrior(**({"latent_dim": 2} | settings))


def test_without_zuko_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    sentence = r"^kind is nsf, which needs zuko, .* pip install 'jensen\[flows\]'$"
    with pytest.raises(InputError, match=sentence):
        FlowPrior(2)


def test_a_stack_of_models_is_one_program():
    priors = [taught(steps=3, seed=seed) for seed in range(2)]
    parameters, buffers = torch.func.stack_module_state(priors)
    z = torch.randn(2, 6, 2)

    def one(parameters, buffers, z):
        return torch.func.functional_call(Density(priors[0]), _under(parameters, buffers), (z,))

    found = torch.func.vmap(one)(parameters, buffers, z)
    torch.testing.assert_close(found[1], log_prob_of(priors[1], z[1]))


class Density(torch.nn.Module):
    def __init__(self, prior):
        super().__init__()
        self.prior = prior

    def forward(self, z):
        return log_prob_of(self.prior, z)


def _under(*states):
    return {f"prior.{name}": value for state in states for name, value in state.items()}
