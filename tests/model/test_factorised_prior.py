"""The factorised prior, against D separate priors of one dimension; and either mixture prior on two
ranks.
"""

import sys

import pytest
import torch
from nursery import SERVER
from priors import draws_of, each_of, latent_rate_of, log_prob_of, rate_of
from torch import distributed, distributions, multiprocessing

from jensen.bound.decomposition import decompose
from jensen.bound.rate import divergence
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture, log_prob
from jensen.model.bayesian_prior import BayesianMixturePrior
from jensen.model.factorised_prior import FactorisedMixturePrior
from jensen.model.mixture_prior import FITS, MixturePrior, em_step
from jensen.model.prior import StandardNormal

COUNT = 64
DIM = 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def posteriors(count=COUNT, seed=0, dtype=torch.float64):
    """Clumps of narrow and wide posteriors."""
    mean, log_var, clump = torch.randn(3, count, DIM, generator=generator(seed), dtype=dtype)
    return Gaussian(mean + 3 * clump.sign(), log_var - 1)


def latents(q):
    return [Gaussian(q.mean[:, [d]], q.log_var[:, [d]]) for d in range(DIM)]


def learned(steps=30, **options):
    prior = FactorisedMixturePrior(**{"components": 4, "latent_dim": DIM, "warmup": 0} | options)
    for step in range(steps):
        prior.update(posteriors(seed=step), torch.tensor(step))
    return prior


@pytest.fixture(scope="module")
def prior():
    return learned()


def test_the_rate_is_the_sum_of_the_bounds_of_each_latent(prior):
    q = posteriors()
    each = [
        divergence(latent, p)
        for latent, p in zip(latents(q), each_of(prior.distribution()), strict=True)
    ]
    torch.testing.assert_close(latent_rate_of(prior, q), torch.stack(each, 1))
    torch.testing.assert_close(rate_of(prior, q, q.mean), sum(each))


def test_one_component_a_latent_is_the_divergence_in_closed_form():
    prior = learned(components=1)
    q = posteriors()
    p = [factor.components for factor in each_of(prior.distribution())]
    normal = distributions.Normal(
        torch.cat([c.mean[0] for c in p]), torch.cat([(c.log_var[0] / 2).exp() for c in p])
    )
    expected = distributions.kl_divergence(
        distributions.Normal(q.mean, (q.log_var / 2).exp()), normal
    )
    torch.testing.assert_close(latent_rate_of(prior, q), expected)


def test_up_to_the_warm_up_it_is_the_standard_normal():
    prior = learned(steps=5, warmup=10)
    q = posteriors()
    torch.testing.assert_close(latent_rate_of(prior, q), latent_rate_of(StandardNormal(), q))
    torch.testing.assert_close(log_prob_of(prior, q.mean), log_prob_of(StandardNormal(), q.mean))


def test_log_prob_and_samples_are_those_of_the_product(prior):
    z = posteriors(seed=5).mean
    expected = sum(
        log_prob(z[:, [d]], factor) for d, factor in enumerate(each_of(prior.distribution()))
    )
    torch.testing.assert_close(log_prob_of(prior, z), expected)

    draws = draws_of(prior, 5, torch.arange(40_000), DIM)
    assert torch.equal(draws_of(prior, 5, torch.tensor([30_000, 7]), DIM), draws[[30_000, 7]])
    correlation = torch.corrcoef(draws.T) - torch.eye(DIM)
    assert correlation.abs().max() < 0.02
    for d, (log_weight, components) in enumerate(each_of(prior.distribution())):
        weight = log_weight.exp()
        mean = components.mean[:, 0]
        var = components.log_var[:, 0].exp()
        expected = (weight * mean).sum()
        assert abs(draws[:, d].mean() - expected) < 0.06
        assert (
            abs(
                draws[:, d].var() / ((weight * (var + mean.square())).sum() - expected.square()) - 1
            )
            < 0.04
        )


def test_each_latent_learns_as_it_would_alone():
    prior = learned(steps=1, dead=0.0)
    for step in range(1, 8):
        before = each_of(prior.distribution())
        q = posteriors(seed=step)
        prior.update(q, torch.tensor(step))
        for latent, old, new in zip(latents(q), before, each_of(prior.distribution()), strict=True):
            alone = em_step(old, latent, (step + 20) ** -0.6, 1e-4)
            torch.testing.assert_close(new.log_weight, alone.log_weight)
            torch.testing.assert_close(new.components.mean, alone.components.mean)
            torch.testing.assert_close(new.components.log_var, alone.components.log_var)


def test_full_em_never_raises_the_rate():
    prior = learned(steps=1, power=0, dead=0.0)
    q = posteriors()
    rates = []
    for step in range(1, 40):
        rates.append(rate_of(prior, q, q.mean).mean())
        prior.update(q, torch.tensor(step))
    assert torch.stack(rates).diff().max() < 1e-12
    assert rates[-1] < rates[0] - 0.1


def test_a_dead_component_begins_again():
    prior = learned()
    q = posteriors()
    prior.learned.log_weight[1, 2] = -30.0
    prior.learned.mean[1, 2] = 500.0
    prior.update(q, torch.tensor(100))
    mean = prior.learned.mean[1, 2]
    assert (mean - q.mean[:, 1]).abs().min() < 1e-9
    assert prior.learned.log_weight[1, 2].exp() == pytest.approx(1 / 5)


def test_gradient_learns_too():
    prior = learned(steps=1, fit="gradient")
    q = posteriors(dtype=torch.float32)
    optimizer = torch.optim.Adam(prior.parameters(), 0.05)
    rates = []
    for step in range(1, 60):
        optimizer.zero_grad()
        rate = rate_of(prior, q, q.mean).mean()
        prior.update(q, torch.tensor(step))
        rate.backward()
        optimizer.step()
        rates.append(rate.item())
    assert rates[-1] < rates[0] - 0.1


def test_in_one_dimension_it_is_the_mixture_prior():
    prior = FactorisedMixturePrior(4, 1, warmup=0)
    q = latents(posteriors())[0]
    joint = MixturePrior(4, 1, warmup=0)
    for step in range(10):
        prior.update(q, torch.tensor(step))
        joint.update(q, torch.tensor(step))
    torch.testing.assert_close(rate_of(prior, q, q.mean), rate_of(joint, q, q.mean))
    torch.testing.assert_close(log_prob_of(prior, q.mean), log_prob_of(joint, q.mean))


def expanded(prior):
    """The product as a mixture of K^D components."""
    parts = [
        (f.log_weight, f.components.mean[:, 0], f.components.log_var[:, 0])
        for f in each_of(prior.distribution())
    ]
    place = torch.cartesian_prod(*[torch.arange(len(weight)) for weight, _, _ in parts])
    weight, mean, log_var = (
        torch.stack([part[kind][place[:, d]] for d, part in enumerate(parts)], 1)
        for kind in range(3)
    )
    return Mixture(weight.sum(1), type(prior.distribution().factors.components)(mean, log_var))


def test_the_rate_is_that_of_the_expanded_product(prior):
    """The bound of a product is the product's: responsibilities factorise too."""
    q = posteriors()
    torch.testing.assert_close(rate_of(prior, q, q.mean), divergence(q, expanded(prior)))
    torch.testing.assert_close(log_prob_of(prior, q.mean), log_prob(q.mean, expanded(prior)))
    parts = decompose(q, samples=4000, generator=generator(1), prior=expanded(prior))
    assert (
        rate_of(prior, q, q.mean).mean()
        > parts.mutual_information - 4 * parts.mutual_information_se
    )


WORLD = 2
STEPS = 12
MAKE = {
    **{fit: lambda fit=fit: MixturePrior(5, DIM, fit=fit, warmup=2, dead=0.3) for fit in FITS},
    "factorised": lambda: FactorisedMixturePrior(3, DIM, warmup=2, dead=0.3),
    "bayesian": lambda: BayesianMixturePrior(3, DIM, warmup=2, settle=3),
}


def learn(make, rank, world):
    """Twelve minibatches of 8, the share of `rank`: rows rank, rank + world, ... as `data/order.py`
    has it.
    """
    prior = make()
    for step in range(STEPS):
        share = Gaussian(
            *(part[rank::world] for part in posteriors(count=8, seed=step, dtype=torch.float32))
        )
        prior.update(share, torch.tensor(step))
    return {name: value.clone() for name, value in prior.state_dict().items()}


def process(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    torch.save(
        {name: learn(make, rank, WORLD) for name, make in MAKE.items()}, f"{folder}/{rank}.pt"
    )
    distributed.destroy_process_group()


def test_two_ranks_learn_what_one_process_does(tmp_path):
    if sys.platform == "win32":
        pytest.skip("gloo by a file")
    multiprocessing.start_processes(
        process, args=(str(tmp_path),), nprocs=WORLD, start_method=SERVER.get_start_method()
    )
    first, second = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD)
    )
    for name, make in MAKE.items():
        for key, expected in learn(make, 0, 1).items():
            assert torch.equal(first[name][key], second[name][key])
            torch.testing.assert_close(first[name][key], expected, rtol=1e-6, atol=1e-6)
