"""Draws by keys: of components with a covariance, and of what cannot be drawn from."""

from typing import NamedTuple

import pytest
import torch
from mixtures import covariance, mixed

import jensen
from jensen.base.errors import InputError
from jensen.family.draw import draw
from jensen.family.full import FullGaussian
from jensen.model.diffusion_prior import DiffusionPrior
from jensen.model.flow_prior import FlowPrior


def test_components_with_a_covariance_are_drawn_with_it():
    """From their marginals alone the coordinates would be independent within a component."""
    p = mixed(FullGaussian, k=1, d=3)
    found = torch.cov(draw(p, 3, torch.arange(200_000), 3).double().T)
    expected = covariance(p.components)[0]
    assert (found - expected).abs().max() < 0.03 * expected.abs().max()
    assert expected.triu(1).abs().max() > 0.3 * expected.diagonal().min()


class Density(NamedTuple):
    def log_prob(self, x):
        return -x.square().sum(-1)


def test_a_density_that_cannot_be_drawn_from_is_one_sentence():
    with pytest.raises(
        InputError, match="gives a Density, which has no rsample: expected a method"
    ):
        draw(Density(), 0, torch.arange(4), 2)


@pytest.mark.parametrize(
    "make", [lambda: FlowPrior(2, hidden=[4]), lambda: DiffusionPrior(2, steps=2)]
)
def test_a_prior_that_is_a_network_is_drawn_from_in_its_own_precision(make):
    """Of a float64 run the noise was float32, which its layers refuse."""
    pytest.importorskip("zuko")
    model = jensen.VAE(
        "mlp", "mlp", likelihood="normal", latent_dim=2, x_shape=[3], prior=make()
    ).double()
    assert model.sample(4).dtype == torch.float64
    p = model.prior.distribution()
    exact = draw(p, 5, torch.arange(4), 2, torch.float64)
    rounded = draw(model.float().prior.distribution(), 5, torch.arange(4), 2)
    torch.testing.assert_close(exact.float(), rounded, rtol=1e-4, atol=1e-4)
