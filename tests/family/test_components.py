"""The covariance structures, against torch.distributions, autograd and direct sums."""

import torch
from mixtures import close, covariance, every_structure, normal, random, slope, weights
from torch import distributions

from jensen.em.precision import spread
from jensen.family.full import FullGaussian, full
from jensen.family.gaussian import Gaussian
from jensen.family.moments import PseudoCounts, add
from jensen.family.spherical import SphericalGaussian
from jensen.family.tied import TiedGaussian


@every_structure
def test_log_density_is_that_of_torch_distributions(structure):
    c, x = random(structure), 2 * normal(50, 4, seed=3)
    expected = distributions.MultivariateNormal(c.mean, covariance(c)).log_prob(x.unsqueeze(1))
    close(c.log_density(x), expected)
    close(c.log_density(x.float()), expected, 1e-5)  # promoted
    single = structure(*(part.float() for part in c)).log_density(x.float())
    assert single.dtype == torch.float32
    close(single, expected.float(), 1e-4)


@every_structure
def test_a_leading_axis_is_a_stack_of_the_same(structure):
    c, x = random(structure, (2,)), normal(2, 50, 4, seed=3)
    r, old = torch.stack([weights(seed=5), weights(seed=6)]), c
    assert c.log_density(x[0]).shape == (2, 50, 3)
    stacked = c.maximise(c.moments(x, r))
    for each in range(2):
        one = structure(*(part[each] for part in old))
        close(old.log_density(x)[each], one.log_density(x[each]))
        for found, expected in zip(stacked, one.maximise(one.moments(x[each], r[each])), strict=True):
            close(found[each], expected)


@every_structure
def test_maximise_is_the_maximum(structure):
    """Zero gradient of the expected log-density in every parameter, and lower everywhere near."""
    old, x, r = random(structure), 2 * normal(50, 4, seed=3), weights()
    new = structure(*(part.clone().requires_grad_() for part in old.maximise(old.moments(x, r))))
    value = (r * new.log_density(x)).sum()
    assert slope(value, new) < 1e-9
    for seed in range(5):
        moved = structure(new.mean.detach() + 0.05 * normal(*new.mean.shape, seed=seed), new[1].detach())
        assert (r * moved.log_density(x)).sum() < value


@every_structure
def test_maximise_with_a_prior_is_the_maximum_of_the_posterior(structure):
    old, x, r = random(structure), 2 * normal(50, 4, seed=3), weights()
    prior = PseudoCounts(covariance=7.0, variance=torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    new = structure(*(part.clone().requires_grad_() for part in old.maximise(old.moments(x, r), prior)))
    value = (r * new.log_density(x)).sum() + new.log_prior(prior)
    assert slope(value, new) < 1e-9


def test_the_prior_of_a_covariance_is_an_inverse_wishart():
    """Up to a constant that no parameter enters: ratios are those of the textbook density."""
    prior = PseudoCounts(covariance=9.0, variance=2.0)
    values = []
    for seed in range(3):
        c = random(FullGaussian, k=1, seed=seed)
        cov, dof = covariance(c)[0], 9.0 - 4 - 1
        density = -0.5 * (dof + 4 + 1) * torch.logdet(cov) - 0.5 * torch.trace(9.0 * 2.0 * torch.linalg.inv(cov))
        values.append(c.log_prior(prior) - density)
    close(values[0], values[1])
    close(values[0], values[2])


@every_structure
def test_moments_of_parts_add_up(structure):
    c, x, r = random(structure), normal(50, 4, seed=3), weights()
    whole = c.moments(x, r)
    parts = add([c.moments(x[part], r[part]) for part in (slice(7), slice(7, 8), slice(8, None))])
    for found, expected in zip(parts, whole, strict=True):
        close(found, expected, 1e-12)


@every_structure
def test_moments_are_weighted_sums_about_their_origin(structure):
    c, x, r = random(structure), normal(50, 4, seed=3), weights()
    m = c.moments(x, r)
    deviations = x[:, None] - m.origin
    close(m.total, r.sum(0))
    close(m.first, (r[..., None] * deviations).sum(0))
    second = (r[..., None, None] * deviations[..., None] * deviations[..., None, :]).sum(0)
    expected = {
        Gaussian: second.diagonal(dim1=-2, dim2=-1),
        SphericalGaussian: second.diagonal(dim1=-2, dim2=-1).sum(-1),
        TiedGaussian: second.sum(0),
        FullGaussian: second,
    }
    close(m.second, expected[structure])


@every_structure
def test_data_moved_by_a_million_move_the_means_and_nothing_else(structure):
    c, x, r = random(structure), 2 * normal(500, 4, seed=3), weights(500)
    far = structure(c.mean + 1e6, c[1])
    here, there = c.maximise(c.moments(x, r)), far.maximise(far.moments(x + 1e6, r))
    close(there.mean - 1e6, here.mean, 1e-9)
    close(there[1], here[1], 1e-9)
    close(far.log_density(x + 1e6), c.log_density(x), 1e-8)  # x + 1e6 itself is rounded to 1e-10


@every_structure
def test_features_are_the_same_family(structure):
    """natural . features is log_density, and sums of features are the moments."""
    c, x, r = random(structure), normal(50, 4, seed=3), weights()
    features = torch.empty(structure.layout(4).width, 50, dtype=torch.float64)
    features[0], features[1:5] = 1, x.T
    structure.layout(4).fill(features[1:5], features)
    density, common = (c.natural() @ features).T, c.common_precision()
    if common is not None:
        density = density - 0.5 * torch.einsum("nd,de,ne->n", x, common, x)[:, None]
    close(density, c.log_density(x))
    found = c.maximise(structure.layout(4).collect((features @ r).T, (r.sum(1)[:, None] * x).T @ x))
    for mine, expected in zip(found, c.maximise(c.moments(x, r)), strict=True):
        close(mine, expected)


@every_structure
def test_pack_is_the_inverse_of_collect(structure):
    r, x = weights(), normal(50, 4, seed=3)
    second = torch.einsum("nk,nd,ne->kde", r, x, x)
    c = random(structure)
    layout = structure.layout(4)
    packed = layout.collect(layout.pack(r.sum(0), r.mT @ x, second), second.sum(0))
    for found, expected in zip(c.maximise(packed), c.maximise(c.moments(x, r)), strict=True):
        close(found, expected)


@every_structure
def test_a_component_without_points_stays(structure):
    c, x = random(structure), normal(50, 4, seed=3)
    r = torch.cat([weights(k=2), torch.zeros(50, 1, dtype=torch.float64)], 1)
    new = c.maximise(c.moments(x, r))
    assert torch.equal(new.mean[2], c.mean[2])
    if structure is not TiedGaussian:
        close(new[1][2], c[1][2], 1e-12)
    assert all(part.isfinite().all() for part in new)


@every_structure
def test_without_any_points_all_stay(structure):
    c, x = random(structure), normal(50, 4)
    stayed = c.maximise(c.moments(x, torch.zeros(50, 3, dtype=torch.float64)))
    for found, expected in zip(stayed, c, strict=True):
        close(found, expected)


@every_structure
def test_a_floor_is_the_exact_constrained_maximum(structure):
    """Points in a plane: where the floor holds, no covariance above it has a greater expected log-density."""
    x = normal(50, 4, seed=3)
    x[:, 3] = x[:, 0] + 1e-9 * x[:, 3]
    floor = torch.tensor([0.1, 0.2, 0.1, 0.3], dtype=torch.float64)
    c, r = random(structure), weights()
    new = c.maximise(c.moments(x, r), PseudoCounts(floor=floor))
    cov = covariance(new)
    assert torch.linalg.eigvalsh(cov - floor.diag()).min() > -1e-9
    value = (r * new.log_density(x)).sum()
    for seed in range(20):
        a = normal(*cov.shape, seed=seed)
        other = cov + 0.01 * (a @ a.mT)  # any direction that stays above the floor
        if structure in (Gaussian, SphericalGaussian):
            log_var = other.diagonal(dim1=-2, dim2=-1).log()
            near = structure(new.mean, log_var if structure is Gaussian else log_var.amax(-1))
        else:
            near = structure(new.mean, torch.linalg.cholesky(other if structure is FullGaussian else other[0]))
        assert (r * near.log_density(x)).sum() <= value + 1e-9


@every_structure
def test_marginals_and_full_are_the_same_gaussians(structure):
    c = random(structure)
    mean, log_var = c.marginals()
    close(mean, c.mean)
    close(log_var.exp(), covariance(c).diagonal(dim1=-2, dim2=-1))
    close(covariance(full(c)), covariance(c))
    variance = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    start = covariance(structure.at(c.mean, variance))
    expected = variance.mean() * torch.eye(4, dtype=torch.float64) if structure is SphericalGaussian else variance.diag()
    close(start, expected.expand(3, 4, 4))


@every_structure
def test_gradients_are_those_of_finite_differences(structure):
    c, x, r = random(structure, k=2, d=2), normal(6, 2, seed=3), weights(6, 2)

    def value(mean, shape, x, r):
        old = structure(mean, shape.tril() if structure in (TiedGaussian, FullGaussian) else shape)
        new = old.maximise(old.moments(x, r), PseudoCounts(covariance=1.0))
        return old.log_density(x), *new

    assert torch.autograd.gradcheck(value, [part.clone().requires_grad_() for part in (*c, x, r)])


def test_spread_is_the_squared_distance_of_each_mean():
    c = random(FullGaussian)
    expected = torch.einsum("kd,kde,ke->k", c.mean, torch.linalg.inv(covariance(c)), c.mean)
    close(spread(c), expected)


def test_a_structure_is_a_pytree_of_tensors():
    c = random(FullGaussian)
    moved = torch.utils._pytree.tree_map(lambda part: part.float(), c)
    assert isinstance(moved, FullGaussian)
    assert moved.mean.dtype == torch.float32
