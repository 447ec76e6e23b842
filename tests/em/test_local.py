"""E-steps about each component's own mean: the stream's where both are exact, and direct sums where
only these are.
"""

import numpy as np
import pytest
import torch
from scipy import special, stats

from jensen.base.tree import tree_leaves
from jensen.em import local, missing, stream
from jensen.em import steps as em
from jensen.em.collapse import on_floor
from jensen.em.local import Local
from jensen.em.reseed import lost
from jensen.em.stream import Statistics, Stream, coefficients
from jensen.family.columns import Columns
from jensen.family.floor import Rounding
from jensen.family.full import FullGaussian
from jensen.family.full import full as whole
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture, shift
from jensen.family.moments import PseudoCounts
from jensen.family.normal_columns import NormalColumns
from jensen.family.poisson_columns import PoissonColumns
from jensen.family.spherical import SphericalGaussian
from jensen.family.tied import TiedGaussian

STRUCTURES = [Gaussian, SphericalGaussian, TiedGaussian, FullGaussian]
every_structure = pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: s.__name__)
ZERO = torch.zeros(3, dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixtures(structure, seed=0, apart=2.0):
    """Two starts `(2, K)` of three components in three dimensions."""
    mean = apart * normal(2, 3, 3, seed=seed)
    shapes = {
        Gaussian: (2, 3, 3),
        SphericalGaussian: (2, 3),
        TiedGaussian: (2, 3, 3),
        FullGaussian: (2, 3, 3, 3),
    }
    shape = normal(*shapes[structure], seed=seed + 1)
    if structure in (TiedGaussian, FullGaussian):
        shape = torch.linalg.cholesky(shape @ shape.mT + torch.eye(3, dtype=torch.float64))
    return Mixture(normal(2, 3, seed=seed + 2).log_softmax(-1), structure(mean, shape))


def chunks(x, weights=None):
    return lambda size: [
        (x[at : at + size], None if weights is None else weights[at : at + size])
        for at in range(0, len(x), size)
    ]


def close(found, expected, tolerance=1e-10):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@every_structure
@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_the_sums_of_both_ways_make_the_same_mixture(structure, beta, monkeypatch):
    monkeypatch.setattr(local, "_LIMIT", 18 * 40)  # so that there are several chunks
    p = mixtures(structure)
    x = 3 * normal(130, 3, seed=7)
    weights = normal(130, seed=8).square()
    mine = local.expect(chunks(x, weights), ZERO, p, beta)
    theirs = Stream(chunks(x, weights), 0, ZERO)(p, beta=beta)
    close(mine.log_likelihood, theirs.log_likelihood)
    close(local.counts(mine), local.counts(theirs))
    found, expected = (em.m_step(p, local.moments(p, s)) for s in (mine, theirs))
    for a, b in zip(
        (found.log_weight, *found.components),
        (expected.log_weight, *expected.components),
        strict=True,
    ):
        close(a, b)
    other = mixtures(structure, seed=20)
    coefficient = coefficients(other, beta)
    expected = stream.expected_log_joint(other, coefficient, theirs, beta)
    close(local.expected_log_joint(other, coefficient, mine, beta), expected)


def of_columns(seed=0, gaps=False):
    """Two starts `(2, K)` of three components, two normal columns and one of counts."""
    groups = (
        NormalColumns(2 * normal(2, 3, 2, seed=seed), normal(2, 3, 2, seed=seed + 1)),
        PoissonColumns(normal(2, 3, 1, seed=seed + 2)),
    )
    blank = torch.zeros(2, 3, int(gaps), dtype=torch.float64)
    return Mixture(normal(2, 3, seed=seed + 3).log_softmax(-1), Columns(groups, blank))


def rows_of_columns(gaps):
    x = 3 * normal(130, 3, seed=7)
    x[:, 2] = x[:, 2].abs().round()
    if gaps:
        x[::7, 0] = torch.nan
        x[::5, 2] = torch.nan
    return x


@pytest.mark.parametrize("beta", [1.0, 3.0])
@pytest.mark.parametrize("gaps", [False, True])
def test_the_sums_of_both_ways_make_the_same_columns(beta, gaps, monkeypatch):
    monkeypatch.setattr(local, "_LIMIT", 18 * 40)
    p = of_columns(gaps=gaps)
    x = rows_of_columns(gaps)
    weights = normal(130, seed=8).square()
    mine = local.expect(chunks(x, weights), ZERO, p, beta)
    theirs = Stream(chunks(x, weights), 0, ZERO)(p, beta=beta)
    close(mine.log_likelihood, theirs.log_likelihood)
    close(local.counts(mine), local.counts(theirs))
    prior = PseudoCounts(floor=Rounding.of(ZERO, x.nanmean(0).abs() + 1, shared=True))
    found, expected = (em.m_step(p, local.moments(p, s), prior) for s in (mine, theirs))
    both = local.merged(torch.tensor([True, False]), mine, theirs, p)
    third = em.m_step(p, local.moments(p, both), prior)
    close(local.picked(both, torch.tensor([1])).base, both.base[1:])
    for a, b, c in zip(*(tree_leaves(each) for each in (found, expected, third)), strict=True):
        close(a, b)
        close(c, b)
    other = of_columns(seed=20, gaps=gaps)
    coefficient = coefficients(other, beta)
    expected = stream.expected_log_joint(other, coefficient, theirs, beta)
    for sums in (mine, both):
        close(local.expected_log_joint(other, coefficient, sums, beta), expected)


def test_products_are_left_where_they_lose_a_normal_column():
    p = of_columns()
    far = shift(p, torch.tensor([1e7, 0, 1e7], dtype=torch.float64))
    assert not local.needed(p, coefficients(p))
    assert local.needed(far, coefficients(far))
    counts = p.components.groups[1]
    often = p.components._replace(
        groups=(p.components.groups[0], counts.of_free(30 + 0 * counts.mean.flatten(1)))
    )
    assert not local.needed(p._replace(components=often), coefficients(p))
    mean, log_var = p.components.groups[0]
    close(p.components.spread, (mean.square() / log_var.exp()).sum(-1))


@every_structure
def test_of_two_kinds_each_start_keeps_its_own_sums(structure):
    p = mixtures(structure)
    x = 3 * normal(60, 3, seed=7)
    mine = local.expect(chunks(x), ZERO, p)
    theirs = Stream(chunks(x), 0, ZERO)(p)
    both = local.merged(torch.tensor([True, False]), mine, theirs, p)
    assert isinstance(both, Local)
    found, expected = (em.m_step(p, local.moments(p, s)) for s in (both, theirs))
    close(found.components.mean, expected.components.mean)
    close(found.components[1], expected.components[1])


@every_structure
def test_products_are_left_where_they_lose_the_component(structure):
    p = mixtures(structure)
    far = shift(p, torch.full((3,), 1e7, dtype=torch.float64))
    assert not local.needed(p, coefficients(p))
    assert local.needed(far, coefficients(far))
    if structure in (TiedGaussian, FullGaussian):  # a ridge, at the origin
        shape = p.components[1].clone()
        shape[..., 2, :] = shape[..., 1, :]
        shape[..., 2, 2] = 1e-6
        ridge = p._replace(components=structure(0 * p.components.mean, shape))
        assert local.needed(ridge, coefficients(ridge))


@every_structure
def test_densities_far_from_the_other_components_are_scipys(structure):
    p = mixtures(structure, apart=1e9)
    p = Mixture(p.log_weight[0], structure(*(part[0] for part in p.components)))
    x = p.components.mean[1] + normal(20, 3, seed=3)
    full = whole(p.components)
    cov = (full.scale_tril @ full.scale_tril.mT).numpy()
    each = [
        stats.multivariate_normal(np.zeros(3), cov[k]).logpdf((x - full.mean[k]).numpy())
        + p.log_weight[k].item()
        for k in range(3)
    ]
    found = local.log_joint(x, p)
    np.testing.assert_allclose(found[:, 1], each[1], rtol=1e-12)
    np.testing.assert_allclose(found.logsumexp(-1), special.logsumexp(each, axis=0), rtol=1e-12)


@every_structure
def test_the_floor_of_equal_points_is_their_rounding_and_is_seen(structure):
    """At 1e6 float32 numbers are 1/16 apart: a variance of 1/3072, and float64's are 2^-33."""
    x = torch.full((50, 2), 1e6, dtype=torch.float64)
    x[:20] = normal(20, 2)
    for dtype, gap in ((torch.float32, 2.0**-4), (torch.float64, 2.0**-33)):
        origin = torch.full((2,), 5e5, dtype=dtype)
        rounding = Rounding.of(origin, torch.full((2,), 2.5e11, dtype=torch.float64))
        p = Mixture(
            torch.full((2,), 0.5).double().log(),
            structure.at(x[[0, -1]] - 5e5, torch.ones(2).double()),
        )
        seen = local.expect(chunks(x), origin, p)
        p = em.m_step(p, local.moments(p, seen), PseudoCounts(floor=rounding))
        variance = p.components.marginals().log_var.exp()
        if structure is TiedGaussian:  # of both
            assert not on_floor(p, rounding).any()
            continue
        assert on_floor(p, rounding).tolist() == [False, True]
        assert (
            (variance[1] > gap**2 / 50) & (variance[1] < gap**2 / 6 + 1.3e-20)
        ).all()  # or eps^2 of the whole variance
        np.testing.assert_allclose(
            variance[0].mean(), x[:20].var(0, correction=0).mean(), rtol=1e-6
        )


@every_structure
def test_a_floor_of_numbers_is_seen_too(structure):
    p = mixtures(structure)
    least = float(p.components.cholesky()[0].square().sum(-1).amax())
    assert on_floor(p, 10 * least)[0].all()
    assert not on_floor(p, 0.0).any()


@every_structure
@pytest.mark.parametrize("way", ["stream", "missing"])
def test_sums_that_are_all_about_one_origin_keep_a_million_deviations_apart(structure, way):
    """As `algorithm=em` adds them up over batches, minibatches and ranks."""
    x = normal(400, 2)
    x[200:] += 1e6
    origin = x.mean(0)
    variance = x.var(0, correction=0)
    start = torch.stack([x[:1], x[-1:]], 1)[0] - origin
    p = Mixture(torch.full((2,), 0.5).double().log(), structure.at(start, variance))
    prior = PseudoCounts(floor=Rounding.of(origin, variance, shared=True))
    for _ in range(6):
        sums = (
            Stream(chunks(x), 0, origin)(p)
            if way == "stream"
            else missing.expect(chunks(x), origin, p)
        )
        p = em.m_step(p, stream.moments(p, sums), prior)
    expected = torch.stack([x[:200].var(0, correction=0), x[200:].var(0, correction=0)])
    found = p.components.marginals().log_var.exp()
    if structure is SphericalGaussian:
        expected = expected.mean(-1, keepdim=True).expand(2, 2)
    expected = expected.mean(0).expand(2, 2) if structure is TiedGaussian else expected
    close(found, expected, 5e-3)
    one = Mixture(p.log_weight[None], structure(*(part[None] for part in p.components)))
    assert lost(one, Statistics(*(part[None] for part in sums)), 0.5, prior) == []
