"""The elbo of Bayesian mixtures against the evidence by brute force: the sum over every assignment of
points to components, each by the marginal likelihood of its conjugate model, in numpy.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import betaln, gammaln, logsumexp, multigammaln

import jensen

POINTS = 6
COUNT = 3
MEAN = np.array([0.3, -0.2])
MEAN_COUNT = 0.7
DF = 3.5
SCALE = np.array([[2.0, 0.3], [0.3, 1.0]])
CONCENTRATION = 0.8
MODELS = [*itertools.product(("full", "tied", "diag", "spherical"), ("dirichlet", "stick"))]


def few(seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(POINTS, 2, generator=draw, dtype=torch.float64)
    x[POINTS // 2 :] += 2.5
    return x


def log_chance(counts, weights):
    """log p(z) of assignments with the counts `(A, K)`."""
    if weights == "dirichlet":
        each = gammaln(CONCENTRATION + counts) - gammaln(CONCENTRATION)
        whole = COUNT * CONCENTRATION
        return each.sum(1) + gammaln(whole) - gammaln(whole + POINTS)
    after = POINTS - counts.cumsum(1)
    return sum(
        betaln(1 + counts[:, k], CONCENTRATION + after[:, k]) - betaln(1, CONCENTRATION)
        for k in range(COUNT - 1)
    )


def scatters(x, r, counts):
    """Of each component `(A, K, D, D)`: about its mean, and what the prior of the mean adds."""
    mean = np.einsum("ank,nd->akd", r, x) / np.maximum(counts, 1)[..., None]
    about = x[None, :, None] - mean[:, None]
    within = np.einsum("ank,ankd,anke->akde", r, about, about)
    move = mean - MEAN
    share = MEAN_COUNT * counts / (MEAN_COUNT + counts)
    return within + share[..., None, None] * move[..., :, None] * move[..., None, :]


def wishart(scatter, total, scale):
    """log int over the precision, of so many points with scatters `(..., D, D)`; less the means' part."""
    dim = len(scale)
    after = DF + total
    logs = DF * np.linalg.slogdet(scale)[1] - after * np.linalg.slogdet(scale + scatter)[1]
    found = multigammaln(0.5 * DF, dim)
    gammas = np.vectorize(lambda half: multigammaln(half, dim))(0.5 * after) - found
    return 0.5 * logs + gammas - 0.5 * total * dim * math.log(math.pi)


def log_evidence(x, covariance, weights):
    z = np.array([*itertools.product(range(COUNT), repeat=POINTS)])
    r = np.eye(COUNT)[z]
    counts = r.sum(1)
    scatter = scatters(x, r, counts)
    means = np.log(MEAN_COUNT / (MEAN_COUNT + counts)).sum(1)  # 2 dimensions, by half
    if covariance == "full":
        each = wishart(scatter, counts, SCALE).sum(1)
    elif covariance == "tied":
        each = wishart(scatter.sum(1), np.full(len(z), POINTS), SCALE)
    elif covariance == "diag":
        each = sum(
            wishart(scatter[..., d : d + 1, d : d + 1], counts, SCALE[d : d + 1, d : d + 1]).sum(1)
            for d in range(2)
        )
    else:
        shape, rate = 0.5 * DF, 0.5 * SCALE.trace() / 2
        after = shape + counts
        logs = shape * np.log(rate) - after * np.log(rate + 0.5 * scatter.trace(axis1=2, axis2=3))
        each = (gammaln(after) - gammaln(shape) + logs - counts * math.log(2 * math.pi)).sum(1)
    return logsumexp(log_chance(counts, weights) + means + each)


def model(covariance, weights, components=COUNT, **options):
    return jensen.BayesianGMM(
        components,
        covariance,
        weights=weights,
        concentration=CONCENTRATION,
        mean=MEAN.tolist(),
        mean_count=MEAN_COUNT,
        df=DF,
        scale=SCALE.tolist(),
        **options,
    )


@pytest.mark.parametrize(("covariance", "weights"), MODELS)
def test_the_elbo_never_exceeds_the_brute_force_evidence(covariance, weights):
    """At its end, nor at any step of the way there, nor with the logarithm of its labellings."""
    for seed in range(2):
        x = few(seed)
        most = log_evidence(x.numpy(), covariance, weights)
        for start in range(2):
            found = model(covariance, weights, seed=start, init="random", tolerance=1e-8).fit(x)
            on_the_way = max(POINTS * step.bound for step in found.history)
            assert max(on_the_way, found.elbo.item(), found.labelled) <= most
            assert found.labelled > most - 6  # a bound that says something


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
def test_the_elbo_of_one_component_is_the_brute_force_evidence(covariance, monkeypatch):
    x = few(0)
    monkeypatch.setattr("test_elbo.COUNT", 1)
    found = model(covariance, "dirichlet", components=1).fit(x)
    most = log_evidence(x.numpy(), covariance, "dirichlet")
    assert found.elbo.item() == pytest.approx(most, abs=1e-9)


@pytest.mark.parametrize(("covariance", "weights"), MODELS)
@pytest.mark.parametrize("missing", [False, True])
def test_the_elbo_never_falls(covariance, weights, missing):
    """By more than 1e-9 nats of all points, whether clusters overlap or not, with holes or without."""
    for gap, seed in ((0.0, 0), (1.5, 1), (8.0, 2)):
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn(60, 2, generator=draw, dtype=torch.float64)
        x[25:] += gap
        if missing:
            x[::7, 0] = math.nan
        options = {"init": "random", "tolerance": 0.0, "max_iter": 25, "missing": missing}
        found = model(covariance, weights, components=4, **options).fit(x)
        bounds = 60 * torch.tensor([step.bound for step in found.history])
        assert len(bounds) == 25
        assert bounds.diff().min() > -1e-9
