"""The rate of each latent and the counts of active ones, and the codes' histograms."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from snapshots import image_snapshot, randn, vector_snapshot, with_posterior

from jensen.diagnostics import rate as module
from jensen.diagnostics.codes import codes
from jensen.diagnostics.rate import rate
from jensen.diagnostics.snapshot import by_rate


@pytest.fixture(params=[image_snapshot, vector_snapshot])
def snapshot(request):
    return request.param()


def test_the_mean_rate_of_each_latent_is_that_of_torch_distributions(snapshot):
    mean, log_var = snapshot.posterior
    q = torch.distributions.Normal(mean, (log_var / 2).exp())
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
    torch.testing.assert_close(rate(snapshot)["by_latent"], expected, rtol=1e-4, atol=1e-6)
    assert rate(snapshot)["by_latent"].sum().item() == pytest.approx(
        snapshot.bound.rate.mean().item(), rel=1e-5
    )


@pytest.mark.parametrize("threshold", [0.01, 0.5, 0.9])
def test_active_units_are_those_whose_code_varies(threshold):
    std = torch.tensor([0.05, 0.09, 0.11, 0.6, 0.8, 1.2])
    mean = std * randn(500, 6) + torch.tensor([5.0, 0, 0, -3, 0, 0])
    found = rate(with_posterior(image_snapshot(), mean, torch.full((500, 6), -1.0)), threshold)
    assert found["active_units"] == (np.var(mean.numpy(), axis=0) > threshold).sum()
    assert found["active_units"].dim() == 0


def test_active_rates_are_those_that_cost_more_than_the_threshold():
    """A latent that costs nats yet says nothing, and one that costs none."""
    mean = torch.stack([torch.full((50,), 3.0), torch.zeros(50), torch.linspace(-1, 1, 50)], 1)
    found = rate(with_posterior(image_snapshot(), mean, torch.zeros(50, 3)))
    assert found["active_rates"] == 2
    assert found["active_units"] == 1


def test_the_order_is_by_falling_rate(snapshot):
    rates = snapshot.latent_rate.mean(0).numpy()
    assert by_rate(snapshot).tolist() == np.argsort(-rates).tolist()


def test_the_bars_are_the_latents_rates_in_falling_order(snapshot, monkeypatch):
    axes = Figure().add_subplot()
    monkeypatch.setattr(module, "chart", lambda draw: draw(axes))
    rate(snapshot)
    rates = snapshot.latent_rate.mean(0)
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx(sorted(rates.tolist(), reverse=True))
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert [rates[int(name.removeprefix("z"))].item() for name in names] == pytest.approx(heights)
    assert f"{rates.sum():.2f} nats added up" in axes.get_title()


@pytest.mark.parametrize("latents", [1, 40])
def test_any_number_of_latents_is_a_picture(latents):
    picture = rate(with_posterior(image_snapshot(), randn(9, latents), torch.zeros(9, latents)))[
        "sorted"
    ]
    assert picture.shape == (3, 400, 700)
    assert picture.dtype == torch.uint8


def test_codes_are_the_means_the_deviations_and_the_first_latents_by_rate():
    snapshot = image_snapshot()
    mean, log_var = snapshot.posterior
    found = codes(snapshot, latents=2)
    first = np.argsort(-snapshot.latent_rate.mean(0).numpy())[:2]
    assert list(found) == ["mean", "std", *(f"z{latent}" for latent in first)]
    assert sorted(found["mean"].tolist()) == sorted(mean.flatten().tolist())
    assert np.sort(found["std"].numpy()) == pytest.approx(
        np.sort(np.sqrt(np.exp(log_var.numpy())).ravel()), rel=1e-6
    )
    for latent in first:
        assert torch.equal(found[f"z{latent}"], mean[:, latent])


def test_codes_of_fewer_latents_than_asked_for_are_all_of_them():
    assert set(codes(vector_snapshot())) == {"mean", "std", "z0", "z1", "z2"}
