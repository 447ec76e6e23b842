"""The prior by variational Bayes, against numpy and scipy, `BayesianGMM`, brute force, and clusters
that are known.
"""

import math
from functools import partial

import numpy as np
import pytest
import torch
from cases import slow
from priors import log_prob_of, rate_of
from scipy.special import digamma

from jensen.base.errors import InputError
from jensen.bound.rate import expected_log_density, responsibilities
from jensen.em.steps import m_step
from jensen.em.variational import expected
from jensen.family.gaussian import Gaussian
from jensen.model.bayesian_gmm import BayesianGMM
from jensen.model.bayesian_prior import BayesianMixturePrior, merged, moments_of
from jensen.model.online_mixture import mean_moments
from jensen.model.prior import StandardNormal

DIM = 3


def generator(seed):
    return torch.Generator().manual_seed(seed)


def clusters(count, size=640, dim=DIM, apart=8.0, seed=0):
    """Posteriors of deviation .6 about points of deviation .8 about centres, the nearest two of them
    `apart` apart.
    """
    which = torch.randperm(size, generator=generator(seed)) % count
    centre = torch.randn(count, dim, generator=generator(seed + 2), dtype=torch.float64)
    if count > 1:
        centre *= apart / torch.pdist(centre).min()
    noise = torch.randn(size, dim, generator=generator(seed + 1), dtype=torch.float64)
    posterior = Gaussian(centre[which] + 0.8 * noise, torch.full_like(noise, 2 * math.log(0.6)))
    return posterior, centre


def part(q, rows):
    return Gaussian(*(each[rows] for each in q))


def learn(prior, q, steps, batch=64):
    for step in range(steps):
        rows = torch.arange(step * batch, (step + 1) * batch) % len(q.mean)
        prior.update(part(q, rows), torch.tensor(step))
    return prior


def used(prior):
    return int((prior.distribution().log_weight.exp() > 1e-3).sum())


def in_numpy(prior):
    learned = prior.learned
    return [
        each.clone().numpy()
        for each in (learned.mean, learned.mean_count, learned.shape_, learned.rate)
    ]


@pytest.mark.parametrize("power", [0.0, 0.7])
def test_a_step_is_that_of_natural_parameters_in_numpy(power):
    q = clusters(3, 64)[0]
    options = {"points": 500.0, "concentration": 0.5, "mean_count": 0.7, "df": 3.0, "variance": 2.0}
    prior = BayesianMixturePrior(4, DIM, **options, warmup=0, power=power, delay=3.0, forget=0.0)
    learn(prior, q, 3)
    mean, count, shape, rate = in_numpy(prior)
    size = (3 + 3.0) ** -power
    prior.update(q, torch.tensor(3))

    weights = digamma(0.5 + count - 0.7)
    precision = shape[:, None] / rate
    log_precision = digamma(shape)[:, None] - np.log(rate)
    own = q.mean.numpy()[:, None]
    spread = q.log_var.exp().numpy()[:, None]
    squares = precision * ((own - mean) ** 2 + spread) + 1 / count[:, None]
    joint = weights + 0.5 * (log_precision - math.log(2 * math.pi) - squares).sum(-1)
    r = np.exp(joint - joint.max(1, keepdims=True))
    r /= r.sum(1, keepdims=True)
    total = 500 * r.mean(0)
    first = 500 * (r.T @ own[:, 0]) / 64
    second = 500 * (r.T @ (own**2 + spread)[:, 0]) / 64
    # the natural parameters: counts, counts times means, shapes, and twice the rates about 0
    old = (count, count[:, None] * mean, shape, 2 * rate + count[:, None] * mean**2)
    to = (0.7 + total, first, 1.5 + total / 2, 2 * 1.5 * 2.0 + second)
    count, linear, shape, square = ((1 - size) * a + size * b for a, b in zip(old, to, strict=True))
    mean = linear / count[:, None]
    expected = (mean, count, shape, 0.5 * (square - count[:, None] * mean**2))
    for found, theirs in zip(in_numpy(prior), expected, strict=True):
        np.testing.assert_allclose(found, theirs, rtol=1e-9, atol=1e-9)
    p = prior.distribution()
    np.testing.assert_allclose(p.log_weight.exp(), (0.5 + count - 0.7) / (4 * 0.5 + 500), rtol=1e-9)
    np.testing.assert_allclose(p.components.log_var.exp(), expected[3] / shape[:, None], rtol=1e-9)


def test_it_stays_where_a_bayesian_gmm_of_the_same_points_ended():
    """Posteriors without a width are points; the prior of both is about 0."""
    x = clusters(3, 300)[0].mean
    options = {"concentration": 0.5, "mean_count": 0.7, "df": 3.0}
    gmm = BayesianGMM(
        3, "diag", mean=[0.0] * DIM, scale=torch.eye(DIM) * 3.0, tolerance=1e-12, **options
    )
    gmm.fit(x)
    prior = BayesianMixturePrior(3, DIM, points=300.0, variance=1.0, power=0, warmup=0, **options)
    learned = prior.learned
    values = zip(gmm.state.components, ("mean", "mean_count", "shape_", "rate"), strict=True)
    state = {name: value for value, name in values}
    learned.load_state_dict(state | {"started": torch.tensor(True)})
    torch.testing.assert_close(learned.prior.components.rate, gmm.prior.components.rate)
    torch.testing.assert_close(prior.distribution().components.mean, gmm.mixture.components.mean)
    torch.testing.assert_close(prior.distribution().log_weight, gmm.mixture.log_weight)
    prior.update(Gaussian(x, torch.full_like(x, -80.0)), torch.tensor(1))
    for name, value in state.items():
        torch.testing.assert_close(getattr(learned, name), value, rtol=1e-6, atol=1e-6)


def elbo_of(q, r, prior, points):
    """The elbo at these responsibilities `(N, K)` and the best belief, of so many `points`."""
    belief = prior.learned.prior
    mean = mean_moments(q, Gaussian(belief.components.mean, belief.components.rate.log()), r)
    m = mean._replace(
        **{name: points * getattr(mean, name) for name in ("total", "first", "second")}
    )
    p = m_step(prior.learned.state, m, belief)
    each = expected(p)
    log_joint = each.log_weight + expected_log_density(q, each.components)
    return points * (r * log_joint - torch.xlogy(r, r)).sum(1).mean() + belief.log_density(*p), m


def test_components_join_where_the_elbo_of_all_points_gains_most():
    q = clusters(2, 200)[0]
    prior = learn(BayesianMixturePrior(5, DIM, warmup=0, points=300.0, settle=10_000), q, 30)
    r = responsibilities(q, expected(prior.learned.state))
    before, m = elbo_of(q, r, prior, 300.0)
    seen = []
    for offered in range(5):
        gains = {}
        for other in set(range(5)) - {offered}:
            if m.total[other] < m.total[offered]:
                continue
            joined = r.clone()
            joined[:, other] += joined[:, offered]
            joined[:, offered] = 0
            gains[other] = (elbo_of(q, joined, prior, 300.0)[0] - before).item()
        best = max(gains, key=gains.get, default=None)
        found = merged(
            m,
            r,
            prior.learned.prior,
            torch.tensor(offered),
            torch.tensor(True),
        )
        expect = m.total.clone()
        if gains and gains[best] > 0:
            expect[best] += expect[offered]
            expect[offered] = 0
        torch.testing.assert_close(found.total, expect)
        seen += gains.values()
    assert max(seen) > 0 > min(seen)


def test_the_moments_of_a_belief_are_those_that_made_it():
    prior = learn(BayesianMixturePrior(4, DIM, warmup=0), clusters(3)[0], 20)
    origin = torch.full((1, DIM), 0.5, dtype=torch.float64)
    p = prior.learned.state
    again = m_step(p, moments_of(p.components, prior.learned.prior, origin), prior.learned.prior)
    for found, value in zip(again.components, p.components, strict=True):
        torch.testing.assert_close(found, value)


@pytest.mark.parametrize(
    ("count", "dim", "seed"),
    [
        (4, 2, 0),
        slow(1, 3, 0),
        *(slow(count, dim, seed) for count in (2, 6) for dim in (2, 10) for seed in range(3)),
    ],
)
def test_it_finds_the_number_of_clusters(count, dim, seed):
    q, centre = clusters(count, 6400, dim, apart=5.0, seed=seed)
    prior = learn(BayesianMixturePrior(20, dim, warmup=5), q, 700)
    p = prior.distribution()
    assert used(prior) == count
    heavy = p.log_weight.exp() > 1e-3
    torch.testing.assert_close(
        p.log_weight[heavy].exp(), torch.full((count,), 1 / count).double(), rtol=0.1, atol=0
    )
    assert torch.cdist(centre, p.components.mean[heavy]).min(1).values.max() < 0.3
    torch.testing.assert_close(
        p.components.log_var[heavy].exp(), torch.ones(count, dim).double(), rtol=0.2, atol=0
    )


@pytest.mark.parametrize(
    ("dim", "seed"), [(10, 0), *(slow(dim, seed) for dim in (2, 10) for seed in (1, 2))]
)
@pytest.mark.slow
def test_it_finds_six_clusters_on_a_line(dim, seed):
    """Five deviations apart: what the whole is wide along the line says nothing of the other
    dimensions.
    """
    draw = generator(seed)
    place = torch.zeros(6, dim, dtype=torch.float64)
    place[:, 0] = 5.0 * torch.arange(6) - 12.5
    label = torch.randint(6, (6400,), generator=draw)
    mean = place[label] + 0.8 * torch.randn(6400, dim, generator=draw, dtype=torch.float64)
    q = Gaussian(mean, torch.full_like(mean, 2 * math.log(0.6)))
    prior = learn(BayesianMixturePrior(20, dim, warmup=5), q, 700 if dim == 10 else 1400)
    assert used(prior) == 6
    heavy = prior.distribution().log_weight.exp() > 1e-3
    found = prior.distribution().components.mean[heavy]
    torch.testing.assert_close(found[found[:, 0].argsort()], place, rtol=0, atol=0.3)


def test_up_to_the_warm_up_it_is_the_standard_normal():
    prior = BayesianMixturePrior(4, DIM, warmup=3)
    q = clusters(3, 64)[0]
    same = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
    for step in range(4):
        same(rate_of(prior, q, q.mean), rate_of(StandardNormal(), q, q.mean))
        same(log_prob_of(prior, q.mean), log_prob_of(StandardNormal(), q.mean))
        prior.update(q, torch.tensor(step))
    assert (rate_of(prior, q, q.mean) - rate_of(StandardNormal(), q, q.mean)).abs().min() > 1e-3


REFUSED = {
    "points is 0: expected a number above 0": {"points": 0},
    "concentration is -1: expected a number of at least 0": {"concentration": -1},
    "mean_count is 0: expected a number above 0": {"mean_count": 0},
    "df is nan": {"df": math.nan},
    "variance is '1'": {"variance": "1"},
    "settle is 1.5": {"settle": 1.5},
    "components is 0": {"components": 0},
    "forget is 2": {"forget": 2},
}


@pytest.mark.parametrize("message", REFUSED)
def test_wrong_values_are_one_sentence(message):
    with pytest.raises(InputError, match=message):
        BayesianMixturePrior(**{"components": 3, "latent_dim": 2} | REFUSED[message])
