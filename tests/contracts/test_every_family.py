"""The contract of `family.Components`: every covariance structure, and a family of one's own,
against torch.distributions, autograd and direct sums. A structure that is added to
`family.structures` is covered."""

import pickle

import pytest
import torch
from bernoulli import Bernoulli
from mixtures import STRUCTURES, close, covariance, every_structure, normal, random, slope, weights
from torch import distributions
from torch.func import vmap

from jensen.em.precision import spread
from jensen.family.full import FullGaussian, full
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import own
from jensen.family.moments import PseudoCounts, add
from jensen.family.spherical import SphericalGaussian
from jensen.family.tied import TiedGaussian

every_family = pytest.mark.parametrize("family", [*STRUCTURES, Bernoulli], ids=lambda f: f.__name__)


def components(family, lead=(), k=3, d=4, seed=0):
    return (
        Bernoulli(normal(*lead, k, d, seed=seed))
        if family is Bernoulli
        else random(family, lead, k, d, seed)
    )


def points(family, *shape, seed=3):
    x = 2 * normal(*shape, seed=seed)
    return (x > 0).double() if family is Bernoulli else x


def in_torch(c):
    """The K distributions as torch has them."""
    if isinstance(c, Bernoulli):
        return distributions.Independent(distributions.Bernoulli(logits=c.logit), 1)
    return distributions.MultivariateNormal(c.mean, covariance(c))


def close_parts(found, expected, tolerance=1e-10):
    for mine, other in zip(found, expected, strict=True):
        close(mine, other, tolerance)


@every_family
def test_log_density_is_that_of_torch_distributions(family):
    c = components(family)
    x = points(family, 50, 4)
    expected = in_torch(c).log_prob(x.unsqueeze(1))
    close(c.log_density(x), expected)
    close(c.log_density(x[:1]), expected[:1])
    close(
        c.log_density(x.float()), in_torch(c).log_prob(x.float().double().unsqueeze(1))
    )  # promoted
    single = family(*(part.float() for part in c)).log_density(x.float())
    assert single.dtype == torch.float32
    close(single, expected.float(), 1e-4)


@every_family
def test_a_leading_axis_is_a_stack_of_the_same(family):
    c = components(family, (2,))
    x = points(family, 2, 50, 4)
    r = torch.stack([weights(seed=5), weights(seed=6)])
    old = c
    assert c.log_density(x[0]).shape == (2, 50, 3)
    stacked = c.maximise(c.moments(x, r))
    for each in range(2):
        one = family(*(part[each] for part in old))
        close(old.log_density(x)[each], one.log_density(x[each]))
        for found, expected in zip(
            stacked, one.maximise(one.moments(x[each], r[each])), strict=True
        ):
            close(found[each], expected)


@every_family
def test_maximise_is_the_maximum(family):
    """Zero gradient of the expected log-density in every parameter, and lower everywhere near."""
    old = components(family)
    x = points(family, 50, 4)
    r = weights()
    new = family(*(part.clone().requires_grad_() for part in old.maximise(old.moments(x, r))))
    value = (r * new.log_density(x)).sum()
    assert slope(value, new) < 1e-9
    for seed in range(5):
        moved = family(
            new[0].detach() + 0.05 * normal(*new[0].shape, seed=seed),
            *(part.detach() for part in new[1:]),
        )
        assert (r * moved.log_density(x)).sum() < value


@every_family
def test_maximise_with_a_prior_is_the_maximum_of_the_posterior(family):
    old = components(family)
    x = points(family, 50, 4)
    r = weights()
    prior = PseudoCounts(
        covariance=7.0, variance=torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    )
    new = family(
        *(part.clone().requires_grad_() for part in old.maximise(old.moments(x, r), prior))
    )
    value = (r * new.log_density(x)).sum() + new.log_prior(prior)
    assert slope(value, new) < 1e-9


def test_the_prior_of_a_covariance_is_an_inverse_wishart():
    """Up to a constant that no parameter enters: ratios are those of the textbook density."""
    prior = PseudoCounts(covariance=9.0, variance=2.0)
    values = []
    for seed in range(3):
        c = random(FullGaussian, k=1, seed=seed)
        cov = covariance(c)[0]
        dof = 9.0 - 4 - 1
        density = -0.5 * (dof + 4 + 1) * torch.logdet(cov) - 0.5 * torch.trace(
            9.0 * 2.0 * torch.linalg.inv(cov)
        )
        values.append(c.log_prior(prior) - density)
    close(values[0], values[1])
    close(values[0], values[2])


@every_family
def test_moments_of_parts_add_up(family):
    c = components(family)
    x = points(family, 50, 4)
    r = weights()
    whole = c.moments(x, r)
    parts = add([c.moments(x[part], r[part]) for part in (slice(7), slice(7, 8), slice(8, None))])
    close_parts(parts, whole, 1e-12)


@every_structure
def test_moments_are_weighted_sums_about_their_origin(structure):
    c = random(structure)
    x = normal(50, 4, seed=3)
    r = weights()
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
    c = random(structure)
    x = 2 * normal(500, 4, seed=3)
    r = weights(500)
    far = structure(c.mean + 1e6, c[1])
    here = c.maximise(c.moments(x, r))
    there = far.maximise(far.moments(x + 1e6, r))
    close(there.mean - 1e6, here.mean, 1e-9)
    close(there[1], here[1], 1e-9)
    close(far.log_density(x + 1e6), c.log_density(x), 1e-8)  # x + 1e6 itself is rounded to 1e-10


@every_family
def test_the_statistics_are_the_same_family(family):
    """natural . statistics is log_density, and sums of statistics are the moments."""
    c = components(family)
    x = points(family, 50, 4)
    r = weights()
    layout = c.layout(4)
    statistics = torch.empty(layout.width, 50, dtype=torch.float64)
    statistics[0] = 1
    statistics[1:5] = x.T
    layout.fill(statistics[1:5], statistics)
    density = (c.natural() @ statistics).T
    shared = layout.shared(statistics, r.sum(1))
    for row in range(50):
        alone = layout.shared(statistics[:, row : row + 1], None)
        if alone is not None:
            density[row] += c.common(alone)
    close(density, c.log_density(x))
    found = c.maximise(layout.collect((statistics @ r).T, shared))
    close_parts(found, c.maximise(c.moments(x, r)))


@every_structure
def test_pack_is_the_inverse_of_collect(structure):
    r = weights()
    x = points(structure, 50, 4)
    second = torch.einsum("nk,nd,ne->kde", r, x, x)
    c = components(structure)
    layout = structure.layout(4)
    packed = layout.collect(layout.pack(r.sum(0), r.mT @ x, second), second.sum(0))
    close_parts(c.maximise(packed), c.maximise(c.moments(x, r)))


@every_family
def test_a_component_without_points_stays(family):
    c = components(family)
    x = points(family, 50, 4)
    r = torch.cat([weights(k=2), torch.zeros(50, 1, dtype=torch.float64)], 1)
    new = c.maximise(c.moments(x, r))
    assert torch.equal(new.mean[2], c.mean[2])
    for found, before in zip(own(new), own(c), strict=True):
        close(found[2], before[2], 1e-12)
    assert all(part.isfinite().all() for part in new)


@every_family
def test_without_any_points_all_stay(family):
    c = components(family)
    x = points(family, 50, 4)
    stayed = c.maximise(c.moments(x, torch.zeros(50, 3, dtype=torch.float64)))
    close_parts(stayed, c)


@every_structure
def test_a_floor_is_the_exact_constrained_maximum(structure):
    """Points in a plane: where the floor holds, no covariance above it has a greater expected
    log-density.
    """
    x = normal(50, 4, seed=3)
    x[:, 3] = x[:, 0] + 1e-9 * x[:, 3]
    floor = torch.tensor([0.1, 0.2, 0.1, 0.3], dtype=torch.float64)
    c = random(structure)
    r = weights()
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
            near = structure(
                new.mean, torch.linalg.cholesky(other if structure is FullGaussian else other[0])
            )
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
    expected = (
        variance.mean() * torch.eye(4, dtype=torch.float64)
        if structure is SphericalGaussian
        else variance.diag()
    )
    close(start, expected.expand(3, 4, 4))


@every_structure
def test_gradients_are_those_of_finite_differences(structure):
    c = random(structure, k=2, d=2)
    x = normal(6, 2, seed=3)
    r = weights(6, 2)

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


@every_family
def test_gradients_flow_to_every_parameter(family):
    c = family(*(part.requires_grad_() for part in components(family)))
    slopes = torch.autograd.grad(c.log_density(points(family, 50, 4)).sum(), tuple(c))
    assert all(part.isfinite().all() and part.abs().amax() > 0 for part in slopes)


@every_family
def test_free_coordinates_name_the_components_and_are_zero_at_the_reference(family):
    about = components(family, (2,))
    other = components(family, (2,), seed=4)
    theta = other.free(about)
    assert theta.shape[:-1] == (2,)
    close_parts(about.of_free(theta), other)
    close(about.of_free(theta).free(about), theta)
    close(about.free(about), torch.zeros_like(theta))


@every_structure
def test_free_coordinates_do_not_depend_on_the_units_of_the_points(structure):
    unit = (
        torch.tensor([1e-3, 20.0, 1.0, 4.0]).double()
        if structure is not SphericalGaussian
        else torch.tensor(20.0).double()
    )
    old = random(structure)
    x = points(structure, 50, 4)
    r = weights()
    new = old.maximise(old.moments(x, r))
    scaled = scaled_by(old, unit)
    again = scaled.maximise(scaled.moments(x * unit + 5, r))
    close(again.free(scaled), new.free(old), 1e-7)


def scaled_by(c, unit):
    """The components of unit * x + 5."""
    if "scale_tril" in c._fields:
        shape = c.scale_tril * (unit.unsqueeze(-1) if unit.dim() else unit)
    else:
        shape = c.log_var + 2 * unit.log()
    return type(c)(c.mean * unit + 5, shape)


@every_family
def test_a_stack_is_mapped_by_vmap(family):
    c = components(family, (2,))
    x = points(family, 2, 50, 4)
    r = torch.stack([weights(seed=5), weights(seed=6)])

    def step(x, r, *parts):
        one = family(*parts)
        return one.log_density(x), *one.natural(), *one.moments(x, r)

    each = [step(x[row], r[row], *(part[row] for part in c)) for row in range(2)]
    for found, *expected in zip(vmap(step)(x, r, *c), *each, strict=True):
        close(found, torch.stack(expected))


@every_family
def test_one_point_is_enough(family):
    c = components(family)
    x = points(family, 1, 4)
    new = c.maximise(c.moments(x, weights(1)), PseudoCounts(covariance=1.0))
    assert all(part.isfinite().all() for part in new)


@every_family
def test_components_are_pickled(family):
    c = components(family)
    again = pickle.loads(pickle.dumps(c))
    assert type(again) is family
    assert all(torch.equal(mine, other) for mine, other in zip(again, c, strict=True))
