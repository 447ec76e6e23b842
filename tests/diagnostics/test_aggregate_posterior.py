"""Densities of two latents, against torch.distributions."""

import math

import pytest
import torch
from matplotlib.figure import Figure
from snapshots import generator, randn, vector_snapshot, with_posterior
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal
from torch.distributions.transforms import AffineTransform

from jensen.diagnostics import aggregate_posterior as module
from jensen.diagnostics.aggregate_posterior import aggregate_posterior, density, prior_density
from jensen.family.bernoulli import Bernoulli
from jensen.family.codes import Codes
from jensen.family.family import Product
from jensen.family.flow import Flow
from jensen.family.full import FullGaussian
from jensen.family.gaussian import STANDARD, Gaussian
from jensen.family.mixture import Mixture
from jensen.family.unknown import Unknown
from jensen.model.flow_prior import FlowPrior

PAIR = [2, 0]
X = torch.linspace(-3, 2, 5, dtype=torch.float64)
Y = torch.linspace(-1, 4, 7, dtype=torch.float64)
POINTS = torch.stack(torch.meshgrid(X, Y, indexing="xy"), -1)


def mixture_of(mean, covariance, weight=None):
    """p of POINTS, by torch: components `(K, D)`, `(K, D, D)` in the dimensions of PAIR."""
    weight = torch.ones(len(mean)) if weight is None else weight
    parts = MultivariateNormal(mean[:, PAIR].double(), covariance[:, PAIR][:, :, PAIR].double())
    return MixtureSameFamily(Categorical(weight.double()), parts).log_prob(POINTS).exp()


def factors(count):
    a = randn(count, 3, 3, seed=5)
    return torch.linalg.cholesky(a @ a.mT + torch.eye(3))


def test_the_aggregate_of_diagonal_posteriors():
    q = Gaussian(randn(50, 3), randn(50, 3, seed=1))
    expected = mixture_of(q.mean, torch.diag_embed(q.log_var.exp()))
    torch.testing.assert_close(density(q, PAIR, X, Y), expected, rtol=1e-6, atol=1e-12)


def test_the_aggregate_of_posteriors_with_covariances():
    q = FullGaussian(randn(50, 3), factors(50))
    expected = mixture_of(q.mean, q.scale_tril @ q.scale_tril.mT)
    torch.testing.assert_close(density(q, PAIR, X, Y), expected, rtol=1e-5, atol=1e-12)


def test_points_without_uncertainty_have_none():
    assert density(Codes(randn(9, 3)), PAIR, X, Y) is None


def test_the_density_of_each_prior():
    standard = Normal(0.0, 1.0).log_prob(POINTS).sum(-1).exp()
    torch.testing.assert_close(prior_density(STANDARD, PAIR, X, Y), standard, rtol=1e-6, atol=0)
    log_weight = randn(4, seed=3).log_softmax(-1)
    mean = randn(4, 3, seed=4)
    diagonal = Mixture(log_weight, Gaussian(mean, randn(4, 3, seed=6)))
    expected = mixture_of(
        mean, torch.diag_embed(diagonal.components.log_var.exp()), log_weight.exp()
    )
    found = prior_density(diagonal, PAIR, X, Y)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-12)
    tilted = Mixture(log_weight, FullGaussian(mean, factors(4)))
    expected = mixture_of(mean, factors(4) @ factors(4).mT, log_weight.exp())
    found = prior_density(tilted, PAIR, X, Y)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-12)


def test_the_density_of_independent_mixtures():
    log_weight = randn(3, 4, seed=3).log_softmax(-1)
    parts = Gaussian(randn(3, 4, 1, seed=4), randn(3, 4, 1, seed=6))
    found = prior_density(Product(Mixture(log_weight, parts)), PAIR, X, Y)
    across, up = (
        MixtureSameFamily(
            Categorical(logits=log_weight[latent]),
            Normal(parts.mean[latent, :, 0], (0.5 * parts.log_var[latent, :, 0]).exp()),
        )
        .log_prob(places)
        .exp()
        for latent, places in zip(PAIR, (X, Y), strict=True)
    )
    torch.testing.assert_close(found, up[:, None] * across, rtol=1e-5, atol=1e-12)


def test_a_prior_of_unknown_density_has_no_contours_and_the_picture_is_there():
    prior = Unknown("nobody knows")
    assert prior_density(prior, PAIR, X, Y) is None
    snapshot = vector_snapshot()._replace(prior=prior)
    assert aggregate_posterior(snapshot)["density"].shape == (3, 500, 500)


def test_the_peak_of_the_picture_is_where_the_codes_are():
    """All posteriors at (1.6, -1.6): the darkest place of the picture is there."""
    mean = torch.tensor([[1.6, 0.0, -1.6]]).expand(60, 3)
    log_var = torch.tensor([[-4.0, 0.0, -3.9]]).expand(60, 3)
    snapshot = with_posterior(vector_snapshot(count=60), mean, log_var)
    noise = torch.randn(60, 3, generator=generator())
    snapshot = snapshot._replace(z=mean + (0.5 * log_var).exp() * noise)
    picture = aggregate_posterior(snapshot)["density"].float()
    blue = (picture[2] - picture[0])[40:440, 70:480]
    row, column = divmod(blue.argmax().item(), blue.shape[1])
    assert column / blue.shape[1] == pytest.approx(0.73, abs=0.06)
    assert row / blue.shape[0] == pytest.approx(0.73, abs=0.06)


def test_one_latent_has_no_picture():
    assert aggregate_posterior(vector_snapshot(latents=1)) == {}


def test_the_density_of_a_flow_of_two_latents():
    shift = torch.tensor([0.5, -1.0], dtype=torch.float64)
    flow = Flow(AffineTransform(shift, torch.tensor([2.0, 0.5]).double(), event_dim=1), 2)
    same = Gaussian(-shift / torch.tensor([2.0, 0.5]), -2 * torch.tensor([2.0, 0.5]).log())
    for pair in ([0, 1], [1, 0]):
        found = prior_density(flow, pair, X, Y, X)
        torch.testing.assert_close(
            found, prior_density(same, pair, X, Y), rtol=1e-6, atol=1e-9, check_dtype=False
        )
    assert prior_density(flow._replace(dim=3), [0, 1], X, Y) is None


def test_a_flow_of_a_float64_run_is_drawn_from_in_float64():
    pytest.importorskip("zuko")
    snapshot = vector_snapshot(latents=2)
    prior = FlowPrior(2, hidden=[4]).double().distribution()
    found = aggregate_posterior(snapshot._replace(z=snapshot.z.double(), prior=prior))
    assert found  # layers refuse float32


def contours(snapshot, monkeypatch):
    """The axes that are drawn, and the levels of their contours."""
    axes = Figure().add_subplot()
    monkeypatch.setattr(module, "chart", lambda draw, *size: draw(axes))
    aggregate_posterior(snapshot)
    return axes, next(each.levels for each in axes.collections if hasattr(each, "levels"))


FAR = Mixture(
    torch.tensor([0.5, 0.5]).log(),
    Gaussian(torch.tensor([[0.0] * 3, [9.0] * 3]), torch.zeros(2, 3)),
)
ENDS = torch.tensor([[0.0], [9.0]]).expand(3, 2, 1)
EACH = Product(Mixture(torch.full((3, 2), 0.5).log(), Gaussian(ENDS, torch.zeros(3, 2, 1))))


@pytest.mark.parametrize(
    ("prior", "peak"),
    [
        (Gaussian(torch.full((3,), 9.0), torch.zeros(3)), 1 / (2 * math.pi)),
        (FAR, 0.5 / (2 * math.pi)),
        (EACH, 0.25 / (2 * math.pi)),
    ],
    ids=["gaussian", "mixture", "product"],
)
def test_a_prior_where_no_code_is_is_in_the_picture(prior, peak, monkeypatch):
    """Its contours are those of its own peak, not of the tail that reaches the codes."""
    snapshot = with_posterior(vector_snapshot(), 0.1 * randn(101, 3), torch.zeros(101, 3))
    axes, levels = contours(snapshot._replace(prior=prior), monkeypatch)
    assert levels == pytest.approx([peak * math.exp(-(k**2) / 2) for k in (3, 2, 1)], rel=0.03)
    for low, high in (axes.get_xlim(), axes.get_ylim()):
        assert low < -1
        assert high > 11


def test_a_pixel_of_the_density_lies_about_its_place(monkeypatch):
    axes, _ = contours(vector_snapshot(), monkeypatch)
    left, right, *_ = axes.images[0].get_extent()
    low, high = axes.get_xlim()  # the outermost places
    pixel = (right - left) / axes.images[0].get_array().shape[1]
    assert (low - left, right - high) == pytest.approx((pixel / 2, pixel / 2))


def test_a_mixture_of_no_gaussians_has_no_contours():
    logits = randn(4, 3, seed=2)
    prior = Mixture(torch.full((4,), 0.25).log(), Bernoulli(logits))
    assert prior_density(prior, PAIR, X, Y) is None
    ones = (randn(101, 3) > 0).float()
    snapshot = vector_snapshot()._replace(prior=prior, z=ones, posterior=Codes(ones))
    assert aggregate_posterior(snapshot)["density"].shape == (3, 500, 500)
