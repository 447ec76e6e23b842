"""What the orders of a Bayesian mixture's components are worth: against brute-force permanents, Bhattacharyya
coefficients by Monte Carlo with scipy's densities, and the evidence by enumeration of all assignments.
"""

import itertools
import math
from functools import cache

import numpy as np
import pytest
import torch
from mixtures import normal
from scipy import special, stats

import jensen
from jensen.em import labels
from jensen.family.believed import BELIEFS
from jensen.family.mixture import own

DRAWS = 40_000


def permanent(rows):
    size = len(rows)
    orders = itertools.permutations(range(size))
    return sum(math.prod(rows[k][order[k]] for k in range(size)) for order in orders)


def alike(size, seed):
    chance = normal(size, size, seed=seed).abs().neg()
    return (chance + chance.mT).fill_diagonal_(0.0)


@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_permanents_are_those_of_all_orders(size):
    log_alike = alike(size, seed=size)
    expected = math.log(permanent(log_alike.exp().tolist()))
    assert labels.log_permanent(log_alike) == pytest.approx(expected, abs=1e-12)
    assert labels._above(log_alike.exp()) >= expected - 1e-12


def test_a_permanent_of_blocks_is_their_product_and_of_many_copies_a_factorial():
    blocks = [alike(size, seed=size).exp() for size in (3, 4)]
    apart = torch.block_diag(*blocks).log()
    expected = sum(math.log(permanent(each.tolist())) for each in blocks)
    assert labels.log_permanent(apart) == pytest.approx(expected, abs=1e-12)
    copies = torch.zeros(30, 30, dtype=torch.float64)
    assert labels.log_permanent(copies) == pytest.approx(math.lgamma(31), abs=1e-9)
    assert labels.log_permanent(torch.eye(30).double().log()) == 0


def log_normals(belief, k, precision, mean):
    """log N(mean; mean_k, (mean_count_k precision)^-1) of draws, `(S,)`."""
    move = mean - belief.mean[k].numpy()
    count = float(belief.mean_count[k])
    square = np.einsum("sd,sde,se->s", move, precision, move)
    log_det = np.linalg.slogdet(precision)[1]
    dim = mean.shape[1]
    return 0.5 * (dim * np.log(count / (2 * np.pi)) + log_det - count * square)


def log_precisions(structure, belief, k, precision):
    diagonal = np.diagonal(precision, axis1=1, axis2=2)
    if structure == "diag":
        rate = belief.rate[k].numpy()
        return stats.gamma(float(belief.shape[k]), scale=1 / rate).logpdf(diagonal).sum(1)
    if structure == "spherical":
        gamma = stats.gamma(float(belief.shape[k]), scale=1 / float(belief.rate[k]))
        return gamma.logpdf(diagonal[:, 0])
    factor = belief.scatter_tril[k].numpy()
    scale = np.linalg.inv(factor @ factor.T)
    return stats.wishart(float(belief.df[k]), scale).logpdf(np.moveaxis(precision, 0, -1))


def drawn(structure, belief, k, seed):
    """Precisions `(S, D, D)` and means `(S, D)`."""
    dim = belief.mean.shape[1]
    if structure in ("diag", "spherical"):
        shape, rate = float(belief.shape[k]), belief.rate[k].numpy()
        size = (DRAWS, dim if structure == "diag" else 1)
        each = stats.gamma(shape, scale=1 / rate).rvs(size, random_state=seed)
        precision = np.broadcast_to(each, (DRAWS, dim))[:, :, None] * np.eye(dim)
    else:
        shared = structure == "tied"
        factor = (belief.scatter_tril if shared else belief.scatter_tril[k]).numpy()
        df = float(belief.df if shared else belief.df[k])
        scale = np.linalg.inv(factor @ factor.T)
        precision = stats.wishart(df, scale).rvs(DRAWS, random_state=seed)
    noise = np.random.default_rng(seed + 1).normal(size=(DRAWS, dim, 1))
    half = np.linalg.cholesky(np.linalg.inv(precision * float(belief.mean_count[k])))
    return precision, belief.mean[k].numpy() + (half @ noise)[..., 0]


def believed(structure):
    """Two components, of different beliefs that overlap."""
    mean = torch.tensor([[0.0, 1.0], [0.3, 0.6]]).double() + 1e3
    count = torch.tensor([4.0, 6.0]).double()
    if structure == "diag":
        return BELIEFS[structure](mean, count, 0.5 * count + 2, 1 + normal(2, 2).square())
    if structure == "spherical":
        return BELIEFS[structure](mean, count, count + 2, 3 + normal(2).square())
    root = normal(2, 2, 2) + 2 * torch.eye(2).double()
    tril = torch.linalg.cholesky(root @ root.mT)
    if structure == "tied":
        return BELIEFS[structure](mean, count, torch.tensor(9.0).double(), tril[0])
    return BELIEFS[structure](mean, count, count + 3, tril)


@pytest.mark.parametrize("structure", ["full", "diag", "spherical"])
def test_overlaps_are_those_of_scipys_densities(structure):
    belief = believed(structure)
    found = labels.log_overlaps(belief).exp()
    precision, mean = drawn(structure, belief, 0, seed=3)
    each = [
        log_precisions(structure, belief, k, precision) + log_normals(belief, k, precision, mean)
        for k in (0, 1)
    ]
    roots = np.exp(0.5 * (each[1] - each[0]))
    error = roots.std() / DRAWS**0.5
    assert found.diagonal().tolist() == pytest.approx([1, 1])
    assert 0.1 < found[0, 1] < 0.95
    assert float(found[0, 1]) == pytest.approx(float(found[1, 0]), abs=1e-12)
    assert float(found[0, 1]) == pytest.approx(roots.mean(), abs=4 * error)


def test_of_a_shared_precision_two_places_together_are_exact():
    """Both change places or none: by the densities of both means at draws of one precision."""
    belief = believed("tied")
    found = labels.log_overlaps(belief)
    precision, mean = drawn("tied", belief, 0, seed=3)
    root = np.exp(
        0.5 * (log_normals(belief, 1, precision, mean) - log_normals(belief, 0, precision, mean))
    )
    # given the precision both factors are the same number, whose square is wanted: of two draws of the mean
    noise = np.random.default_rng(9).normal(size=(DRAWS, 2, 1))
    half = np.linalg.cholesky(np.linalg.inv(precision * float(belief.mean_count[0])))
    again = belief.mean[0].numpy() + (half @ noise)[..., 0]
    other = np.exp(
        0.5 * (log_normals(belief, 1, precision, again) - log_normals(belief, 0, precision, again))
    )
    both = root * other
    expected = float((found[0, 1] + found[1, 0]).exp())
    assert expected == pytest.approx(both.mean(), abs=4 * both.std() / DRAWS**0.5)


def log_marginal(x, mean, mean_count, df, scale):
    """log of the evidence of one Gaussian of points `(n,)`, by its conjugate prior (Bishop 2006, 10.2)."""
    count = len(x)
    scatter = ((x - x.mean()) ** 2).sum()
    scatter += mean_count * count / (mean_count + count) * (x.mean() - mean) ** 2
    return (
        -0.5 * count * np.log(np.pi)
        + special.gammaln(0.5 * (df + count))
        - special.gammaln(0.5 * df)
        + 0.5 * df * np.log(scale)
        - 0.5 * (df + count) * np.log(scale + scatter)
        + 0.5 * np.log(mean_count / (mean_count + count))
    )


@cache
def partitions(count):
    found = [[]]
    for n in range(count):
        found = [
            [*blocks[:place], [*blocks[place], n], *blocks[place + 1 :]]
            if place < len(blocks)
            else [*blocks, [n]]
            for blocks in found
            for place in range(len(blocks) + 1)
        ]
    return found


def log_evidence(x, most, concentration, prior):
    """log p(x) of mixtures of `most` components by all assignments, those that differ in labels at once."""
    each = {}
    terms = []
    for blocks in partitions(len(x)):
        if len(blocks) > most:
            continue
        value = special.gammaln(most + 1) - special.gammaln(most - len(blocks) + 1)
        value += special.gammaln(most * concentration) - special.gammaln(
            most * concentration + len(x)
        )
        for block in map(tuple, blocks):
            if block not in each:
                each[block] = log_marginal(x[list(block)], *prior)
            value += each[block]
            value += special.gammaln(concentration + len(block)) - special.gammaln(concentration)
        terms.append(value)
    return special.logsumexp(terms)


@pytest.mark.parametrize("concentration", [1.0, 3.0, 10.0])
@pytest.mark.parametrize("strong", [False, True])
def test_labelled_is_below_the_evidence_of_all_assignments(concentration, strong):
    """Where components are copies their orders are one: K! of them would exceed it, by .7 nats and more."""
    mean_count, df = (10.0, 10.0) if strong else (1.0, 1.0)
    for seed in range(4):
        x = np.random.default_rng(seed).normal(size=8)
        models = [
            jensen.BayesianGMM(
                k,
                concentration=concentration,
                mean=[0.0],
                mean_count=mean_count,
                df=df,
                scale=[df],
                restarts=3,
            ).fit(x[:, None])
            for k in (1, 2, 3, 5)
        ]
        for k, model in zip((1, 2, 3, 5), models, strict=True):
            evidence = log_evidence(x, k, concentration, (0.0, mean_count, df, df))
            assert model.labelled <= evidence + 1e-9
            assert model.elbo <= model.labelled <= model.elbo + math.lgamma(k + 1) + 1e-9
        assert models[0].labelled == pytest.approx(
            log_evidence(x, 1, 1.0, (0.0, mean_count, df, df))
        )


@pytest.mark.parametrize("covariance", [*BELIEFS])
def test_components_apart_gain_all_orders_and_copies_none(covariance):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(40, 2)) + place for place in ([0, 0], [8, 0], [0, 8])])
    model = jensen.BayesianGMM(3, covariance, restarts=3).fit(x)
    assert model.labelled - float(model.elbo) == pytest.approx(math.log(6), abs=1e-6)
    unused = jensen.BayesianGMM(20, covariance, concentration=1e-3, restarts=3).fit(x)
    assert len(unused.used()) == 3
    gain = math.lgamma(21) - math.lgamma(18)
    assert unused.labelled - float(unused.elbo) == pytest.approx(gain, abs=0.02)
    state = model.state
    mine = len(own(state.components))
    copies = [
        part[:1].expand(part.shape) if k < mine else part for k, part in enumerate(state.components)
    ]
    state = state._replace(components=BELIEFS[covariance](*copies))
    assert labels.log_orders(state, model.prior) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_copies_are_not_preferred_to_one_component(seed):
    x = np.random.default_rng(seed).normal(size=(8, 1))
    models = [jensen.BayesianGMM(k, concentration=10.0, restarts=5).fit(x) for k in range(1, 6)]
    assert jensen.compare(x, models, samples=0).best == 0
