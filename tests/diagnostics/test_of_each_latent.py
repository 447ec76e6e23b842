"""The rate and the posterior's standard deviation of each latent, and interpolations."""

import math

import numpy as np
import torch
from snapshots import image_snapshot, randn, vector_snapshot, with_posterior

from jensen.diagnostics.interpolation import interpolation
from jensen.diagnostics.latent_rates import latent_rates
from jensen.diagnostics.picture import grid
from jensen.diagnostics.sigma import SHARES, quantiles, sigma


def test_rates_are_means_of_the_kl_of_each_latent_and_add_up_to_the_rate():
    snapshot = vector_snapshot()
    q = torch.distributions.Normal(
        snapshot.posterior.mean, (0.5 * snapshot.posterior.log_var).exp()
    )
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
    found = latent_rates(snapshot)
    assert list(found) == ["z0", "z1", "z2"]
    torch.testing.assert_close(torch.stack([*found.values()]), kl, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(sum(found.values()), snapshot.bound.rate.mean())
    unknown = snapshot._replace(latent_rate=torch.full_like(snapshot.latent_rate, math.nan))
    assert latent_rates(unknown) == {}


def test_sigma_is_the_mean_of_standard_deviations():
    snapshot = with_posterior(vector_snapshot(), randn(101, 3), randn(101, 3, seed=3))
    found = sigma(snapshot)
    expected = np.exp(snapshot.posterior.log_var.double().numpy() / 2)
    np.testing.assert_allclose([found[f"z{d}"] for d in range(3)], expected.mean(0), rtol=1e-5)
    exact = np.quantile(expected, SHARES, axis=0)
    np.testing.assert_allclose(quantiles(torch.from_numpy(expected)), exact, rtol=1e-12)
    assert found["spread"].shape == (3, 400, 700)


def test_an_interpolation_goes_from_one_mean_to_the_other_between_the_images():
    snapshot = image_snapshot()
    seen = []
    found = interpolation(
        snapshot._replace(decode=lambda z: seen.append(z) or snapshot.decode(z)), rows=2, columns=5
    )["images"]
    mean = snapshot.encode(snapshot.images[:4]).mean
    for row in range(2):
        for step in range(5):
            expected = (1 - step / 4) * mean[2 * row] + step / 4 * mean[2 * row + 1]
            torch.testing.assert_close(seen[0].unflatten(0, (2, 5))[row, step], expected)
    decoded = snapshot.decode(seen[0]).unflatten(0, (2, 5))
    images = snapshot.images[:4].unflatten(0, (2, 2))
    cells = torch.cat([images[:, :1], decoded, images[:, 1:]], 1)
    times = (found.shape[2] // 7 - 2) // 16
    alone = grid(cells.repeat_interleave(times, 3).repeat_interleave(times, 4))
    assert torch.equal(found[:, -alone.shape[1] :], alone)


def test_an_interpolation_needs_two_images():
    assert interpolation(vector_snapshot()) == {}
    assert interpolation(image_snapshot(count=1)) == {}
    assert interpolation(image_snapshot(count=3))
