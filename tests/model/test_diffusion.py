"""The diffusion against a mixture whose scores are exact, and the digits of quadrature."""

import math

import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from scipy import stats
from torch import distributions

from jensen.base.errors import InputError
from jensen.bound.score import denoising, hyvarinen
from jensen.family.diffuse import diffuse, score
from jensen.family.full import FullGaussian
from jensen.family.gaussian import STANDARD, Gaussian
from jensen.family.mixture import Mixture
from jensen.model.diffusion import SAMPLERS, Diffusion, exact, key_of, levels
from jensen.model.diffusion_prior import DiffusionPrior
from jensen.model.schedules import Monotone, linear, logistic


def real(values):
    return torch.tensor(values, dtype=torch.float64)


TRUTH = Mixture(
    real([0.3, 0.7]).log(), Gaussian(real([[-2.0], [1.0]]), real([[0.25], [0.64]]).log())
)
ENTROPY = 1.636902879
FISHER = 1.88963906
SCHEDULES = {"linear": linear, "logistic": logistic}
TOLERANCE = {"rel": 0, "abs": 2e-8}


def diffusion(low=-10.0, high=10.0, **settings):
    return Diffusion(exact(TRUTH), real([low, high]), 1, **settings)


def points(count, seed=0):
    """Draws `(N, 1)` of the truth."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(count, 1, generator=generator, dtype=torch.float64) < 0.3
    noise = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    return torch.where(first, -2 + 0.5 * noise, 1 + 0.8 * noise)


def noise(count, seed=1, dim=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=generator, dtype=torch.float64)


def quadrature(order=80):
    """Points `(2 Q, 1)` and weights of E over the truth, and of E over N(0, 1)."""
    node, weight = (torch.from_numpy(part) for part in hermegauss(order))
    weight = weight / weight.sum()
    each = [(share, mean + std * node) for share, mean, std in ((0.3, -2.0, 0.5), (0.7, 1.0, 0.8))]
    x = torch.cat([place for _, place in each])[:, None]
    return x, torch.cat([share * weight for share, _ in each]), node, weight


def errors(gamma, order=80):
    """E |eps - guess|^2 of the truth's denoiser, by quadrature over x and eps."""
    x, at_x, node, at_node = quadrature(order)
    alpha, sigma = levels(real(gamma))
    noisy = (alpha * x + sigma * node).reshape(-1, 1)
    guess = exact(TRUTH)(noisy, real(gamma).expand(len(noisy))).reshape(len(x), -1)
    return (at_x[:, None] * at_node * (node - guess).square()).sum().item()


# ---- mixtures under noise -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gamma", "log_p", "slope", "clean", "error"),
    [
        (-5.0, -1.246324304, 0.7730576597, 0.5068730201, 0.987592153),
        (0.0, -1.176026888, 0.1658172679, 0.8243572958, 0.6284987956),
        (5.0, -1.043282234, -0.4868315055, 0.2007922756, 0.01599820263),
    ],
)
def test_a_diffused_mixture_has_the_density_score_and_denoiser_of_the_reference(
    gamma, log_p, slope, clean, error
):
    z = real([[0.5]])
    alpha, sigma = levels(real(gamma))
    noisy = diffuse(TRUTH, alpha, sigma)
    assert noisy.log_prob(z).item() == pytest.approx(log_p, **TOLERANCE)
    assert score(z, noisy).item() == pytest.approx(slope, **TOLERANCE)
    guess = exact(TRUTH)(z, real([gamma]))
    assert ((z - sigma * guess) / alpha).item() == pytest.approx(clean, **TOLERANCE)
    assert errors(gamma) == pytest.approx(error, abs=2e-6)


@pytest.mark.parametrize("structure", ["diagonal", "full"])
def test_a_score_is_autograds(structure):
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    log_weight = torch.randn(4, generator=generator, dtype=torch.float64).log_softmax(0)
    factor = torch.randn(4, 3, 3, generator=generator, dtype=torch.float64)
    covariance = factor @ factor.mT + torch.eye(3)
    parts = (
        Gaussian(mean, factor[..., 0])
        if structure == "diagonal"
        else FullGaussian(mean, torch.linalg.cholesky(covariance))
    )
    p = diffuse(Mixture(log_weight, parts), real(0.8), real(0.3))
    x = torch.randn(7, 3, generator=generator, dtype=torch.float64).requires_grad_()
    (expected,) = torch.autograd.grad(p.log_prob(x).sum(), x)
    torch.testing.assert_close(score(x, p), expected)
    spread = (
        factor[..., 0].exp().diag_embed() if structure == "diagonal" else covariance
    ) * 0.64 + 0.09 * torch.eye(3)
    torch_says = distributions.MixtureSameFamily(
        distributions.Categorical(logits=log_weight),
        distributions.MultivariateNormal(0.8 * mean, spread),
    )
    torch.testing.assert_close(p.log_prob(x), torch_says.log_prob(x))


def test_objectives_of_scores_have_the_references_digits():
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    x = grid[:, None]
    weight = TRUTH.log_prob(x).exp() * (grid[1] - grid[0])

    def own(x):
        return score(x, TRUTH)

    assert (weight * -TRUTH.log_prob(x)).sum().item() == pytest.approx(ENTROPY, abs=1e-6)
    assert (weight * own(x)[:, 0].square()).sum().item() == pytest.approx(FISHER, abs=1e-5)
    far = 0.5 * (weight * (own(x) + x)[:, 0].square()).sum().item()
    assert far == pytest.approx(1.15631953, abs=1e-5)
    assert (weight * hyvarinen(torch.neg, x)).sum().item() == pytest.approx(0.2115, abs=1e-6)
    assert (weight * hyvarinen(own, x)).sum().item() == pytest.approx(-0.9448195302, abs=1e-5)
    kl = (weight * (TRUTH.log_prob(x) - STANDARD.log_prob(x))).sum().item()
    assert kl == pytest.approx(0.4935356537, abs=1e-6)


def test_denoising_is_least_at_the_score_under_noise():
    x, weight, node, at_node = quadrature()
    both = (weight[:, None] * at_node).flatten()
    clean = x.expand(-1, len(node)).reshape(-1, 1)
    eps = node.expand(len(x), -1).reshape(-1, 1)
    noisy = diffuse(TRUTH, real(1.0), real(0.7))

    def loss(shift):
        return (both * denoising(lambda x: score(x, noisy) + shift, clean, 0.7, eps)).sum().item()

    least = loss(0.0)
    assert loss(0.01) == pytest.approx(least + 0.5 * 0.01**2, abs=1e-7)
    assert loss(-0.01) == pytest.approx(least + 0.5 * 0.01**2, abs=1e-7)


# ---- the bound ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("ends", "total"), [(10.0, 1.636945998), (6.0, 1.639249096)])
def test_the_bound_is_the_entropy_and_what_its_ends_cost(ends, total):
    grid = torch.linspace(-ends, ends, 161, dtype=torch.float64)
    error = real([errors(gamma.item()) for gamma in grid])
    diffusing = 0.5 * _simpson(error, grid)
    reconstruction = 0.5 * (math.log(2 * math.pi) + 1 - ends)
    x, at_x, _, _ = quadrature()
    alpha, sigma = levels(real(ends))
    last = 0.5 * (at_x * (sigma**2 - 1 - 2 * sigma.log() + (alpha * x[:, 0]) ** 2)).sum()
    assert reconstruction + diffusing + last.item() == pytest.approx(total, abs=2e-6)
    if ends == 10:
        assert reconstruction == pytest.approx(-3.581061467, abs=1e-9)
        assert diffusing == pytest.approx(5.217952465, abs=2e-6)
        assert last.item() == pytest.approx(5.5e-5, abs=1e-8)
    z = points(6000)
    own = (*({"schedule": each} for each in SCHEDULES.values()), {"start": real(0.4)})
    for settings in own:
        found = -diffusion(-ends, ends, **settings).log_bound(z, noise(len(z)))
        error = found.std() / len(z) ** 0.5
        assert abs(found.mean() - total) < 4 * error
    assert diffusion(-ends, ends).log_bound(z, noise(len(z))).std() < 4


def _simpson(values, grid):
    weight = torch.ones_like(grid)
    weight[1:-1:2] = 4
    weight[2:-1:2] = 2
    return ((grid[1] - grid[0]) / 3 * (weight * values).sum()).item()


@pytest.mark.parametrize(
    ("steps", "total"), [(10, 11.49651837), (100, 2.139998949), (1000, 1.684425784)]
)
def test_so_many_discrete_steps_cost_what_the_reference_says(steps, total):
    """T / 2 E [expm1(gamma_t - gamma_s) |eps - guess|^2], eq. 13-14: what finite steps lose."""
    gamma = torch.linspace(-10, 10, steps + 1, dtype=torch.float64)
    rise = math.expm1(20 / steps)
    order = 80 if steps < 1000 else 30
    found = 0.5 * rise * sum(errors(each.item(), order) for each in gamma[1:])
    assert -3.581061467 + found + 5.5e-5 == pytest.approx(total, abs=1e-4)


def test_noise_levels_are_spread_evenly_over_a_minibatch_and_its_draws():
    p = diffusion(start=real(0.25))
    times = p._times(key_of(noise(12)), 12, 4).flatten().sort().values
    torch.testing.assert_close(times.diff(), torch.full((11,), 1 / 12).to(times))
    alone = diffusion(draws=8)._times(key_of(noise(3)), 3, 3)
    assert ((alone * 8).floor() == torch.arange(8)).all()


def test_the_bound_of_a_point_is_the_same_alone_and_among_others():
    z = points(5)
    whole = diffusion().log_bound(z, noise(5))
    torch.testing.assert_close(diffusion().log_bound(z[2:3], noise(5)[2:3]), whole[2:3])
    assert not torch.equal(diffusion().log_bound(z, noise(5, seed=8)), whole)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("ends", [(-10.0, 10.0), (-30.0, 30.0), (-3.0, 1.0)])
def test_a_schedule_rises_from_end_to_end_at_its_slope(name, ends):
    low, high = real(ends)
    t = torch.linspace(0, 1, 41, dtype=torch.float64).requires_grad_()
    gamma, slope = SCHEDULES[name](t, low, high)
    torch.testing.assert_close(gamma[[0, -1]], real(ends), atol=1e-6, rtol=0)
    (expected,) = torch.autograd.grad(gamma.sum(), t)
    torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-8)
    assert slope.min() > 0
    short = SCHEDULES[name](t.detach().float(), *torch.tensor(ends))[0]
    torch.testing.assert_close(short.double(), gamma.detach(), rtol=1e-4, atol=1e-4)


def shaken(seed=0):
    """A monotone network that has learned something, in float64."""
    network = Monotone().double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    return network


def test_a_network_that_is_learned_rises_between_the_same_ends_from_what_it_begins_as():
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)
    torch.testing.assert_close(Monotone().double().warp(t)[0], t, atol=2e-4, rtol=0)
    low, high = real(-10.0), real(10.0)
    gamma, slope = shaken()(t, low, high)
    torch.testing.assert_close(gamma[[0, -1]], real([-10.0, 10.0]), atol=1e-6, rtol=0)
    assert slope.min() > 0
    steps = (gamma[2:] - gamma[:-2]) / (t[2] - t[0])
    torch.testing.assert_close(steps[100:-100], slope[101:-101], atol=0, rtol=1e-2)
    assert (gamma - logistic(t, low, high)[0]).abs().max() > 0.5


@pytest.mark.parametrize("seed", range(3))
def test_what_lies_between_the_ends_does_not_change_the_bound(seed):
    """For z ~ N(0, v) the least E |eps - guess|^2 is v / (v + exp gamma), and so its integral is
    log (1 + v exp(-gamma)) at both ends.
    """
    v = 2.5
    t = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    expected = 0.5 * (math.log1p(v * math.exp(10)) - math.log1p(v * math.exp(-10)))
    for schedule in (linear, logistic, shaken(seed)):
        gamma, slope = schedule(t, real(-10.0), real(10.0))
        found = 0.5 * (slope * v / (v + gamma.exp())).mean().item()
        assert found == pytest.approx(expected, abs=1e-4)


def test_the_networks_gradient_is_that_of_the_mean_square_and_leaves_the_bound_as_it_is():
    """Beside autograd through gamma and its slope, by quadrature of a gain that depends on gamma."""
    network = shaken()
    t = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000

    def gain(m, rise):
        gamma, slope = logistic(m, real(-10.0), real(10.0))
        return slope * rise * (gamma - 1).tanh() * (-gamma.square() / 9).exp()

    at_once = gain(*network.warp(t))
    expected = torch.autograd.grad(at_once.square().mean(), [*network.parameters()])
    spread = network.spread(t, at_once)
    assert not spread.any()
    found = torch.autograd.grad(spread.mean(), [*network.parameters()])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * other.abs().max().item())


def scatter(schedule, count=20_000):
    """The mean and the standard deviation of the truth's bound, of one noise level a point."""
    found = diffusion(draws=1, schedule=schedule).log_bound(points(count, 3), noise(count, 4))
    return found.mean().item(), found.std().item()


def test_a_network_that_is_learned_scatters_less_about_the_same_bound():
    network = Monotone()
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for step in range(100):
        p = diffusion(start=torch.rand(()), schedule=network)
        loss = -p.log_bound(points(256, step), noise(256, 9000 + step)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    of_linear, of_logistic, learned = map(scatter, (linear, logistic, network))
    assert learned[0] == pytest.approx(-ENTROPY, abs=4 * 2.3 / 20_000**0.5)
    assert learned[1] < 0.95 * of_logistic[1] < 0.95 * of_linear[1]  # 2.26, 2.51, 3.83


# ---- density and draws --------------------------------------------------------------------------


def test_the_flow_has_the_mixtures_density():
    z = real([[0.5], [-1.0]])
    expected = real([-1.247779319, -3.042156539])
    torch.testing.assert_close(TRUTH.log_prob(z), expected, atol=1e-8, rtol=0)
    torch.testing.assert_close(diffusion(-14.0, 14.0).log_prob(z), expected, atol=1e-4, rtol=0)
    alpha, sigma = levels(real(-10.0))
    first = diffuse(TRUTH, alpha, sigma).log_prob(alpha * z) + alpha.log()
    torch.testing.assert_close(diffusion(-10.0, 14.0).log_prob(z), first, atol=1e-4, rtol=0)
    torch.testing.assert_close(diffusion().log_prob(z), expected, atol=1e-3, rtol=0)


def test_the_flow_of_two_latents_has_the_density_too():
    mean = real([[1.0, -1.0], [0.0, 2.0]])
    cov = real([[[1.0, 0.5], [0.5, 1.0]], [[0.3, 0.0], [0.0, 2.0]]])
    p = Mixture(real([0.4, 0.6]).log(), FullGaussian(mean, torch.linalg.cholesky(cov)))
    z = real([[0.5, 0.5], [-1.0, 2.0]])
    found = Diffusion(exact(p), real([-14.0, 16.0]), 2).log_prob(z)
    torch.testing.assert_close(found, p.log_prob(z), atol=5e-4, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_are_the_mixtures(sampler):
    steps = 100 if sampler == "ddim" else 400
    x = diffusion(sampler=sampler, steps=steps).rsample(noise(1000)).flatten().numpy()

    def cumulative(x):
        return 0.3 * stats.norm.cdf(x, -2, 0.5) + 0.7 * stats.norm.cdf(x, 1, 0.8)

    assert stats.kstest(x, cumulative).pvalue > 1e-3


# ---- as a prior ---------------------------------------------------------------------------------


def taught(steps, seed=0, **settings):
    """A prior that has learned something of the truth."""
    torch.manual_seed(seed)
    prior = DiffusionPrior(1, hidden=[64, 64], **settings)
    optimiser = torch.optim.Adam(prior.parameters(), 2e-3)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        z = points(256, seed=1000 * seed + step).float()
        eps = noise(256, seed=50_000 + 1000 * seed + step).float()
        loss = -prior.distribution().log_bound(z, eps).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        falling.step()
        prior.update(None, torch.tensor(step))
    return prior.eval()


def bound_of(prior, count=4000):
    with torch.no_grad():
        z, eps = points(count, seed=99).float(), noise(count, seed=98).float()
        return -prior.distribution().log_bound(z, eps).mean().item()


@pytest.mark.parametrize("denoiser", ["residual", "mlp"])
def test_it_starts_as_the_standard_normal(denoiser):
    p = DiffusionPrior(3, denoiser).eval().distribution()
    z = torch.randn(6, 3)
    torch.testing.assert_close(p.log_bound(z, z), STANDARD.log_prob(z), atol=1e-3, rtol=0)
    torch.testing.assert_close(p.log_prob(z), STANDARD.log_prob(z), atol=1e-3, rtol=0)
    torch.testing.assert_close(p.rsample(z), z, atol=1e-2, rtol=0.03)


def test_something_is_learned_in_two_seconds():
    start = bound_of(DiffusionPrior(1).eval())
    assert start == pytest.approx(ENTROPY + 0.4935, abs=0.1)
    assert bound_of(taught(150)) < start - 0.1


def test_the_flow_of_a_network_is_a_density_whatever_it_has_learned():
    side = torch.linspace(-7, 7, 281)[:, None]
    p = taught(40).distribution()
    assert p.log_prob(side).exp().sum().item() * 0.05 == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("denoiser", ["residual", "mlp", "mixture"])
def test_a_mixture_is_learned_to_its_entropy(denoiser):
    found = [
        bound_of(taught(2500, seed, denoiser=denoiser, components=4), 40_000) for seed in range(3)
    ]
    assert ENTROPY - 0.03 < sum(found) / 3 <= 1.70


def test_ends_that_are_learned_have_gradients_and_stay_in_order():
    prior = DiffusionPrior(2, gamma="learned")
    torch.nn.init.normal_(prior.denoiser.end.weight)
    (-prior.distribution().log_bound(torch.randn(8, 2), torch.randn(8, 2)).mean()).backward()
    assert prior.ends.grad.abs().min() > 0
    assert all(each.grad.abs().max() > 0 for each in prior.schedule.parameters())
    low, high = prior.gamma()
    assert low < high


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"gamma_min": 1.0, "gamma_max": 1.0}, "gamma_max is 1: expected more than gamma_min"),
        ({"hidden": []}, r"hidden is \[\] and denoiser is residual: expected a width"),
        ({"denoiser": "unet"}, "denoiser is 'unet': expected"),
        ({"sampler": "euler"}, "sampler is 'euler': expected"),
        ({"steps": 0}, "steps is 0: expected"),
        ({"gamma": "cosine"}, "gamma is 'cosine': expected"),
    ],
)
def test_what_it_cannot_be_is_said(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        DiffusionPrior(2, **settings)


def test_the_density_of_too_many_latents_is_refused():
    with pytest.raises(InputError, match="diffusion of 65 latents: expected at most 64"):
        DiffusionPrior(65).distribution().log_prob(torch.zeros(1, 65))
