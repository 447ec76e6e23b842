"""EM: the bound, its ascent, gradients, and the streamed E-step against the plain one."""

from itertools import pairwise

import pytest
import torch
from mixtures import STRUCTURES, close, every_structure, mixed, normal, random, slope

from jensen.em import missing
from jensen.em import steps as em
from jensen.em.fit import Options, fit_em
from jensen.em.reseed import Lost, reseed
from jensen.em.squarem import extrapolate
from jensen.em.stream import Stream, coefficients, expected_log_joint, moments
from jensen.family.full import FullGaussian
from jensen.family.full import full as whole
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture, log_prob
from jensen.family.moments import PseudoCounts
from jensen.family.tied import TiedGaussian


def points(n=300, d=4, seed=3):
    """Three clusters, one of them stretched."""
    x = normal(n, d, seed=seed)
    x[: n // 3] += 3
    x[n // 3 : n // 2, 0] *= 4
    return x


def chunked(x, weights=None):
    def chunks(size):
        size = min(size, 64)
        for start in range(0, len(x), size):
            yield (
                x[start : start + size],
                None if weights is None else weights[start : start + size],
            )

    return chunks


def same(found, expected, tolerance=1e-10):
    for a, b in zip(
        (found.log_weight, *found.components),
        (expected.log_weight, *expected.components),
        strict=True,
    ):
        close(a, b, tolerance)


@every_structure
def test_bound_plus_gap_is_the_log_probability_at_any_responsibilities(structure):
    x = points()
    p = mixed(structure)
    posterior = em.e_step(x, p)
    for r in (
        normal(300, 3, seed=5).softmax(-1),
        torch.eye(3, dtype=torch.float64)[torch.arange(300) % 3],
        posterior,
    ):
        bound = em.bound(x, p, r)
        gap = (torch.xlogy(r, r) - r * posterior.log()).nan_to_num(neginf=0).sum(-1)
        close(bound.elbo + gap, log_prob(x, p))
        assert (bound.rate >= -1e-12).all()
    close(em.bound(x, p, posterior).elbo, log_prob(x, p))


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_annealed_responsibilities_minimise_distortion_plus_beta_rate(beta):
    x = points()
    p = mixed(Gaussian)

    def loss(logit):
        bound = em.bound(x, p, logit.softmax(-1))
        return (bound.distortion + beta * bound.rate).sum()

    logit = em.e_step(x, p, beta).clamp(min=1e-300).log().requires_grad_()
    assert slope(loss(logit), [logit]) < 1e-9
    expected = p.log_weight.exp() * (p.components.log_density(x) / beta).exp()
    close(em.e_step(x, p, beta), expected / expected.sum(-1, keepdim=True))


@every_structure
def test_em_never_lowers_the_evidence(structure):
    x = points()
    p = mixed(structure)
    last = log_prob(x, p).mean()
    for _ in range(30):
        p = em.fit(x, p, 1)
        value = log_prob(x, p).mean()
        assert value >= last - 1e-12
        last = value


@every_structure
def test_m_step_is_the_maximum_in_the_weights_too(structure):
    x = points()
    p = mixed(structure)
    r = em.e_step(x, p)
    prior = PseudoCounts(weight=2.0)
    new = em.m_step(p, p.components.moments(x, r), prior)
    logit = new.log_weight.clone().requires_grad_()
    value = (r * logit.log_softmax(-1)).sum() + em.log_prior(
        new._replace(log_weight=logit.log_softmax(-1)), prior
    )
    assert slope(value, [logit]) < 1e-9


@every_structure
def test_fit_is_differentiable_in_points_and_parameters(structure):
    x = points(12, 2)
    p = mixed(structure, 2, 2)

    def value(x, log_weight, mean, shape, weights):
        if structure in (TiedGaussian, FullGaussian):
            shape = shape.tril()
        found = em.fit(
            x,
            Mixture(log_weight, structure(mean, shape)),
            3,
            weights=weights,
            prior=PseudoCounts(1.0, 2.0),
        )
        return found.log_weight, *found.components

    leaves = (x, p.log_weight, *p.components, normal(12, seed=8).exp())
    assert torch.autograd.gradcheck(value, [leaf.clone().requires_grad_() for leaf in leaves])


@every_structure
def test_a_batch_of_masked_sets_is_each_set_by_itself(structure):
    sets = torch.stack([points(40, 2, seed) for seed in range(3)])
    mask = torch.ones(3, 40, dtype=torch.float64)
    mask[1, 30:] = mask[2, 5:10] = 0
    sets = sets * mask.unsqueeze(-1)
    each = [mixed(structure, 2, 2, seed) for seed in range(3)]
    stack = Mixture(
        torch.stack([p.log_weight for p in each]),
        structure(*(torch.stack(part) for part in zip(*(p.components for p in each), strict=True))),
    )
    found = em.fit(sets, stack, 5, weights=mask, prior=PseudoCounts(0.0, 1.0))
    for index, p in enumerate(each):
        alone = em.fit(sets[index][mask[index] > 0], p, 5, prior=PseudoCounts(0.0, 1.0))
        same(
            Mixture(
                found.log_weight[index], structure(*(part[index] for part in found.components))
            ),
            alone,
            1e-12,
        )


@every_structure
def test_integer_weights_are_copies(structure):
    x = points(60)
    p = mixed(structure)
    times = torch.arange(60) % 4
    same(
        em.fit(x, p, 4, weights=times.double()), em.fit(x.repeat_interleave(times, 0), p, 4), 1e-10
    )


@every_structure
@pytest.mark.parametrize("beta", [1.0, 3.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_streamed_e_step_is_the_plain_one(structure, beta, weighted):
    x = points()
    p = mixed(structure)
    weights = normal(300, seed=8).exp() if weighted else None
    origin = x.mean(0)
    near = p._replace(components=structure(p.components.mean - origin, p.components[1]))
    found = Stream(chunked(x, weights), 300, origin)(near, beta=beta)
    w = torch.ones(300, dtype=torch.float64) if weights is None else weights
    annealed = beta * (p.log_weight + p.components.log_density(x) / beta).logsumexp(-1)
    close(found.log_likelihood, (w * annealed).sum())
    new = em.m_step(near, moments(near, found))
    new = new._replace(components=structure(new.components.mean + origin, new.components[1]))
    same(new, em.fit(x, p, 1, weights=weights, beta=beta))
    r = em.e_step(x, p, beta) * w[:, None]
    q = (r * (new.components.log_density(x) + beta * new.log_weight)).sum()
    moved = new._replace(components=structure(new.components.mean - origin, new.components[1]))
    close(expected_log_joint(moved, coefficients(moved, beta), found, beta), q)


@every_structure
def test_several_starts_are_streamed_at_once(structure):
    x = points()
    each = [mixed(structure, seed=seed) for seed in (0, 20)]
    stack = Mixture(
        torch.stack([p.log_weight for p in each]),
        structure(*(torch.stack(part) for part in zip(*(p.components for p in each), strict=True))),
    )
    stream = Stream(chunked(x), 300, torch.zeros(4, dtype=torch.float64))
    found = stream(stack)
    for index, p in enumerate(each):
        alone = stream(p)
        close(found.log_likelihood[index], alone.log_likelihood)
        close(found.sums[index], alone.sums)


@every_structure
def test_float32_products_are_float64_to_the_rounding_of_the_spread(structure):
    x = points(4000)
    p = mixed(structure)
    stream = Stream(lambda size: [(x.float(), None)], 4000, torch.zeros(4))
    half = stream(p, torch.float32)
    whole = stream(p, torch.float64)
    assert half.sums.dtype == torch.float64
    assert abs(half.log_likelihood - whole.log_likelihood) / 4000 < 1e-7
    torch.testing.assert_close(half.sums, whole.sums, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("weighted", [False, True])
def test_few_responsibilities_in_many_dimensions_are_summed_by_component(weighted):
    """The second pass knows from the first that most are negligible; one component is far from all
    points.
    """
    generator = torch.Generator().manual_seed(0)
    means = 3 * torch.randn(6, 40, generator=generator, dtype=torch.float64)
    x = means[torch.arange(9000) % 5] + torch.randn(
        9000, 40, generator=generator, dtype=torch.float64
    )
    weights = torch.rand(9000, generator=generator, dtype=torch.float64) if weighted else None
    factor = (
        torch.eye(40, dtype=torch.float64)
        + 0.1 * torch.randn(6, 40, 40, generator=generator, dtype=torch.float64).tril()
    )
    p = Mixture(
        torch.full((2, 6), 1 / 6, dtype=torch.float64).log(),
        FullGaussian(means + torch.zeros(2, 1, 1), factor.expand(2, -1, -1, -1)),
    )
    stream = Stream(chunked(x, weights), 9000, torch.zeros(40, dtype=torch.float64))
    first = stream(p)
    second = stream(p)
    assert stream._share < 0.3
    torch.testing.assert_close(second.log_likelihood, first.log_likelihood, rtol=1e-14, atol=0)
    torch.testing.assert_close(second.sums, first.sums, rtol=1e-11, atol=1e-8)
    assert not torch.equal(second.sums, first.sums)
    assert (
        second.sums[:, 5] == 0
    ).all()  # and the M-step leaves a component without points as it is
    after = em.m_step(p, moments(p, second))
    one = Mixture(p.log_weight[0, :5], FullGaussian(means[:5], factor[:5]))
    assert torch.equal(after.components.mean[:, 5], p.components.mean[:, 5])
    r = em.e_step(x, one) if weights is None else em.e_step(x, one) * weights[:, None]
    plain = em.m_step(one, one.components.moments(x, r))
    for found, expected in zip(after.components, plain.components, strict=True):
        torch.testing.assert_close(found[1, :5], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_responsibilities_are_never_subnormal_numbers(dtype):
    """A product with them takes a hundred times as long."""
    x = torch.cat([points(), points() + 40, points() + 30, points() + 1000]).to(dtype)
    mean = torch.tensor([0.0, 40.0, 30.0, 1000.0], dtype=torch.float64)[:, None].expand(4, 4)
    p = Mixture(
        torch.full((4,), 0.25).double().log(), Gaussian.at(mean, torch.ones(4, dtype=torch.float64))
    )
    stream = Stream(lambda size: [(x, None)], len(x), torch.zeros(4, dtype=dtype))
    stream(p, dtype)
    r = stream._buffers["r", dtype]
    assert r.min() >= torch.finfo(dtype).tiny
    assert r.min() < 1e-30


def runs(structure, x, starts, **options):
    origin = x.mean(0)
    stack = Mixture(
        torch.stack([p.log_weight for p in starts]),
        structure(
            *(torch.stack(part) for part in zip(*(p.components for p in starts), strict=True))
        ),
    )
    settings = Options(
        tolerance=1e-9, max_iter=500, prior=PseudoCounts(floor=1e-10 * x.var(0))
    )._replace(**options)
    stream = Stream(chunked(x), len(x), torch.zeros_like(origin))
    return fit_em(
        lambda p, c, exact: stream(p, beta=settings.beta, coefficient=c),
        stack,
        float(len(x)),
        points=len(x),
        sigma=x.std(0),
        generator=torch.Generator().manual_seed(0),
        options=settings,
    )


@every_structure
@pytest.mark.parametrize("accelerate", [False, True])
@pytest.mark.parametrize("prior", [None, PseudoCounts(weight=1.0, covariance=3.0)])
def test_every_iteration_is_accounted_for_and_climbs(structure, accelerate, prior):
    x = points()
    options = {} if prior is None else {"prior": prior._replace(floor=1e-10 * x.var(0))}
    found = runs(structure, x, [mixed(structure)], accelerate=accelerate, **options)
    assert found.converged
    assert found.failure is None
    steps = found.history
    assert len(steps) >= 3
    for before, after in pairwise(steps):
        value = after.log_likelihood + after.log_prior
        assert value >= before.log_likelihood + before.log_prior - 1e-12
    for step in steps:
        assert step.bound == pytest.approx(step.q + step.entropy, abs=1e-12)
        assert step.bound + step.gap == pytest.approx(step.log_likelihood, abs=1e-12)
        assert step.gap >= -1e-12
        assert step.entropy >= -1e-12
    assert found.log_likelihood / 300 == pytest.approx(steps[-1].log_likelihood)
    assert log_prob(x, found.mixture).sum().item() == pytest.approx(found.log_likelihood, abs=1e-7)


@every_structure
def test_what_an_iteration_reports_is_what_it_says(structure):
    """Against the plain functions: Q, entropy and the KL gap of each of the first steps."""
    x = points()
    p = mixed(structure)
    found = runs(structure, x, [p], accelerate=False, max_iter=4, tolerance=0.0)
    for step in found.history:
        r = em.e_step(x, p)
        p = em.fit(x, p, 1)
        joint = p.log_weight + p.components.log_density(x)
        posterior = em.e_step(x, p)
        assert step.q == pytest.approx((r * joint).sum(-1).mean().item(), abs=1e-10)
        assert step.entropy == pytest.approx(-torch.xlogy(r, r).sum(-1).mean().item(), abs=1e-10)
        gap = (torch.xlogy(r, r) - torch.xlogy(r, posterior)).sum(-1).mean().item()
        assert step.gap == pytest.approx(gap, abs=1e-10)
        assert step.log_likelihood == pytest.approx(log_prob(x, p).mean().item(), abs=1e-10)
    same(found.mixture, p)


@every_structure
def test_acceleration_ends_at_the_same_maximum_sooner(structure):
    x = points()
    start = mixed(structure)
    plain = runs(structure, x, [start], accelerate=False, tolerance=1e-12, max_iter=5000)
    fast = runs(structure, x, [start], accelerate=True, tolerance=1e-12, max_iter=5000)
    assert fast.converged
    assert fast.log_likelihood >= plain.log_likelihood - 1e-6
    assert fast.iterations <= plain.iterations


@every_structure
def test_starts_fitted_at_once_are_those_fitted_alone(structure):
    x = points()
    starts = [mixed(structure, seed=seed) for seed in (0, 20, 40)]
    alone = [runs(structure, x, [p], tolerance=0.0, max_iter=12, accelerate=False) for p in starts]
    together = runs(structure, x, starts, tolerance=0.0, max_iter=12, accelerate=False)
    best = max(alone, key=lambda found: found.log_likelihood)
    assert together.log_likelihood == pytest.approx(best.log_likelihood, abs=1e-8)
    same(together.mixture, best.mixture, 1e-7)


def test_extrapolation_of_length_one_is_the_third_iterate():
    x = points()
    for structure in STRUCTURES:
        first = Mixture(
            mixed(structure).log_weight[None],
            structure(*(part[None] for part in random(structure))),
        )
        second = em.fit(x, first, 1)
        third = em.fit(x, second, 1)
        one = torch.ones(1, dtype=torch.float64)
        found, length = extrapolate(first, second, third, one)
        assert length.item() == 1
        same(found, third)


def test_the_annealed_bound_climbs_too():
    found = runs(FullGaussian, points(), [mixed(FullGaussian)], beta=3.0)
    values = [step.log_likelihood for step in found.history]
    assert all(b >= a - 1e-12 for a, b in pairwise(values))
    assert min(step.gap for step in found.history) >= -1e-12


def test_a_fit_that_cannot_proceed_keeps_the_last_good_parameters():
    x = points(40)
    x[:, 3] = x[:, 0]  # singular, and no floor
    start = mixed(FullGaussian)
    found = runs(FullGaussian, x, [start], prior=PseudoCounts())
    assert "not positive definite" in found.failure or "nan" in found.failure
    assert not found.converged
    assert all(
        part.isfinite().all() for part in (found.mixture.log_weight, *found.mixture.components)
    )


@every_structure
def test_missing_values_are_marginalised(structure):
    """log p of what is there, by torch.distributions; and nothing missing is the plain E-step."""
    x = points(40)
    p = mixed(structure)
    holes = x.clone()
    holes[::3, 1] = holes[1::4, 3] = holes[7] = torch.nan
    density = missing.log_density(holes, p)
    full = whole(p.components)
    cov = full.scale_tril @ full.scale_tril.mT
    for row, point in enumerate(holes):
        seen = ~point.isnan()
        if seen.any():
            normal_ = torch.distributions.MultivariateNormal(
                full.mean[:, seen], cov[:, seen][:, :, seen]
            )
            close(density[row], normal_.log_prob(point[seen]))
        else:
            close(density[row], torch.zeros(3, dtype=torch.float64))
    origin = torch.zeros(4, dtype=torch.float64)
    found = missing.expect(chunked(x), origin, p)
    plain = Stream(chunked(x), 40, origin)(p)
    close(found.log_likelihood, plain.log_likelihood)
    close(found.sums, plain.sums)


@every_structure
def test_em_with_missing_values_climbs_to_a_stationary_point(structure):
    x = points(120, 3)
    x[::3, 1] = x[1::4, 2] = torch.nan
    p = mixed(structure, 2, 3)
    stack = Mixture(p.log_weight[None], structure(*(part[None] for part in p.components)))
    found = fit_em(
        lambda p, c, exact: missing.expect(lambda size: [(x, None)], torch.zeros(3), p),
        stack,
        120.0,
        points=120,
        sigma=torch.ones(3, dtype=torch.float64),
        generator=torch.Generator(),
        options=Options(tolerance=1e-11, max_iter=300),
    )
    p = found.mixture
    steps = found.history
    assert all(
        after.log_likelihood >= before.log_likelihood - 1e-12 for before, after in pairwise(steps)
    )
    assert min(step.gap for step in steps) >= -1e-12
    leaves = [part.clone().requires_grad_() for part in p.components]
    value = (
        (p.log_weight + missing.log_density(x, Mixture(p.log_weight, structure(*leaves))))
        .logsumexp(-1)
        .mean()
    )
    assert slope(value, leaves) < 1e-4


@every_structure
def test_starts_that_have_met_are_climbed_once(structure, monkeypatch):
    """Six that differ by the order of their components, and by little else, end as one does, and as
    one.
    """
    x = points()
    p = mixed(structure)
    orders = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])

    def ordered(at):
        mean, shape = p.components
        return Mixture(
            p.log_weight[at],
            structure(mean[at] + 1e-3 * at[0], shape if structure is TiedGaussian else shape[at]),
        )

    rows = []
    step = Stream.__call__

    def spied(self, p, *rest, **options):
        rows.append(len(p.log_weight))
        return step(self, p, *rest, **options)

    monkeypatch.setattr(Stream, "__call__", spied)
    found = runs(structure, x, [ordered(at) for at in orders])
    assert rows[0] == 6
    assert rows[-1] == 1
    assert rows.count(1) > len(rows) / 3
    alone = runs(structure, x, [p])
    assert found.log_likelihood / 300 == pytest.approx(alone.log_likelihood / 300, abs=1e-7)


def test_a_component_that_is_seeded_anew_leaves_a_shared_covariance_as_it_is():
    """Also where there are as many components as dimensions."""
    p = mixed(TiedGaussian, 4, 4)
    stack = Mixture(p.log_weight[None], TiedGaussian(*(part[None] for part in p.components)))
    found = reseed(stack, [Lost(0, 2, "empty")], torch.Generator().manual_seed(0))
    assert torch.equal(found.components.scale_tril, stack.components.scale_tril)
    assert not torch.equal(found.components.mean[0, 2], stack.components.mean[0, 2])
