"""The gaps of a VAE, and how codes lie against the prior, on models whose answers are known."""

import math

import numpy as np
import pytest
import torch
from diagnostics.snapshots import (
    exact_posterior,
    image_snapshot,
    linear_vae,
    randn,
    snapshot_of,
    vector_snapshot,
)
from matplotlib.figure import Figure
from scipy import stats

from jensen.base.errors import InputError
from jensen.diagnostics import shell as shell_module
from jensen.diagnostics.evidence import evidence
from jensen.diagnostics.goodness_of_fit import goodness_of_fit
from jensen.diagnostics.inference_gap import inference_gap
from jensen.diagnostics.interpolation import interpolation, slerp
from jensen.diagnostics.shell import shell
from jensen.family.codes import Codes
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture
from jensen.family.unknown import Unknown

W = torch.tensor([[2.0, 1], [0, 1], [1, -1]])
X = torch.tensor([[1.0, 2, 3]])


def linear(encoder, offset, variance, decoder=W, x=X):
    """x = W z + noise of variance 1/2, with a linear encoder."""
    dim = len(decoder)
    model = linear_vae(encoder, offset, variance, decoder, torch.zeros(dim), 0.5)
    return snapshot_of(model, x.expand(4, dim) if len(x) == 1 else x)


def test_the_reference_s_gaps_of_a_linear_model():
    snapshot = linear(torch.zeros(2, 3), torch.zeros(2), torch.ones(2))
    found = inference_gap(snapshot, samples=2048)
    assert found["parts"].dtype == torch.uint8
    found = {name: value.item() for name, value in found.items() if name != "parts"}
    assert found["evidence"] == pytest.approx(-13.067804, abs=4 * found["approximation_se"])
    assert found["approximation"] == pytest.approx(0.02667299035, abs=4e-3)
    assert found["amortisation"] == pytest.approx(10.62261784, abs=4 * found["amortisation_se"])
    assert found["amortisation_se"] < 0.2
    assert found["gap"] == pytest.approx(10.64929083, abs=4 * found["amortisation_se"])


def test_gaps_add_up_to_evidence_less_elbo():
    for snapshot in (image_snapshot(), vector_snapshot()):
        found = inference_gap(snapshot, count=8, steps=20, samples=32)
        both = found["approximation"] + found["amortisation"]
        torch.testing.assert_close(both, found["evidence"] - found["elbo"])
        torch.testing.assert_close(both, found["gap"])
        assert found["approximation"] >= 0
        assert found["amortisation"] >= 0


def test_an_exact_encoder_has_no_gap():
    decoder = torch.tensor([[1.0, 0], [0, 2], [0, 0]])
    made = exact_posterior(decoder, torch.zeros(3), 0.5)
    snapshot = linear(made["encoder"], made["offset"], made["variance"], decoder, randn(20, 3))
    found = inference_gap(snapshot, count=20, steps=60, samples=64)
    assert found["gap"].item() == pytest.approx(0, abs=0.01)
    truth = stats.multivariate_normal(None, (decoder @ decoder.T + 0.5 * torch.eye(3)).numpy())
    assert found["evidence"].item() == pytest.approx(
        truth.logpdf(snapshot.images.numpy()).mean(), abs=0.01
    )


def test_its_evidence_is_no_lower_than_importance_sampling_from_the_encoder():
    snapshot = image_snapshot()
    ours = inference_gap(snapshot, count=16, steps=100, samples=64)["evidence"]
    theirs = evidence(snapshot, samples=64, count=16)
    assert ours > theirs["log_p"] - 0.5


def test_the_same_every_time_and_nothing_is_changed():
    snapshot = vector_snapshot()
    first, again = (inference_gap(snapshot, count=4, steps=5, samples=8) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    with torch.no_grad():
        assert torch.equal(
            inference_gap(snapshot, count=4, steps=5, samples=8)["gap"], first["gap"]
        )


def test_the_distance_of_each_latent_is_that_of_its_own_mixture():
    mean, log_var = randn(50, 2), 0.3 * randn(50, 2, seed=1) - 1
    snapshot = vector_snapshot(latents=2)._replace(posterior=Gaussian(mean, log_var))
    found = goodness_of_fit(snapshot, places=4000)
    t = torch.linspace(-8, 8, 20001, dtype=torch.float64).numpy()
    for latent in range(2):
        own = stats.norm(
            mean[:, latent].double().numpy(), (0.5 * log_var[:, latent].double()).exp().numpy()
        )
        exact = abs(own.cdf(t[:, None]).mean(1) - stats.norm.cdf(t)).max()
        assert found[f"z{latent}"].item() == pytest.approx(exact, abs=1e-5)
    assert found["worst"] == max(found["z0"], found["z1"])


@pytest.mark.parametrize("outlier", [1e4, -1e9])
def test_one_code_far_off_hides_nothing_of_the_others(outlier):
    """199 of 200 posteriors are N(3, e^-3): places spread evenly over the range see none of them."""
    mean = torch.full((200, 1), 3.0)
    mean[0] = outlier
    q = Gaussian(mean, torch.full_like(mean, -3.0))
    found = goodness_of_fit(vector_snapshot(latents=1)._replace(posterior=q))["worst"].item()
    t = np.linspace(1, 4, 300_001)
    own = 0.995 * stats.norm(3, math.exp(-1.5)).cdf(t) + 0.005 * (outlier < 0)
    assert found == pytest.approx(abs(own - stats.norm.cdf(t)).max(), abs=1e-6)


def test_a_narrow_component_of_the_prior_is_no_place_to_miss():
    prior = Mixture(
        torch.tensor([0.9, 0.1]).log(),
        Gaussian(torch.tensor([[0.0], [50.0]]), torch.tensor([[0.0], [-16.0]])),
    )
    q = Gaussian(torch.tensor([[0.0], [1e3]]), torch.tensor([[0.0], [0.0]]))
    snapshot = vector_snapshot(latents=1)._replace(posterior=q, prior=prior)
    assert goodness_of_fit(snapshot)["worst"].item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("places", [2, 20, 500])
def test_the_distance_is_at_most_one_by_the_places_too_small(places):
    generator = np.random.default_rng(0)
    for _ in range(5):
        mean = generator.normal(size=(30, 1)) * 10 ** generator.uniform(0, 5)
        deviation = 10 ** generator.uniform(-4, 2, size=(30, 1))
        q = Gaussian(torch.tensor(mean), 2 * torch.tensor(deviation).log())
        found = goodness_of_fit(vector_snapshot(latents=1)._replace(posterior=q), places)
        own = stats.norm(mean[:, 0], deviation[:, 0])
        steps = np.linspace(-9, 9, 2001)
        t = np.concatenate([steps, (mean + deviation * steps).flatten()])
        exact = abs(
            np.concatenate([own.cdf(part[:, None]).mean(1) for part in np.split(t, 31)])
            - stats.norm.cdf(t)
        ).max()
        assert exact - 1 / places - 1e-9 <= found["worst"].item() <= exact + 1e-5


def test_codes_that_follow_the_prior_are_at_no_distance():
    quantiles = torch.tensor(stats.norm.ppf((torch.arange(4000).numpy() + 0.5) / 4000))
    mean = (math.sqrt(0.75) * quantiles[:, None]).float()
    q = Gaussian(mean, torch.full_like(mean, math.log(0.25)))
    snapshot = vector_snapshot(latents=1)._replace(posterior=q)
    assert goodness_of_fit(snapshot)["worst"] < 1e-3
    wide = q._replace(mean=mean + 5)
    assert goodness_of_fit(snapshot._replace(posterior=wide))["worst"] > 0.95
    prior = Mixture(torch.tensor([0.5, 0.5]).log(), Gaussian(torch.zeros(2, 1), torch.zeros(2, 1)))
    assert goodness_of_fit(snapshot._replace(prior=prior))["worst"] < 1e-3


def test_without_uncertainty_there_is_no_distance():
    snapshot = vector_snapshot()
    with pytest.raises(InputError, match="needs Gaussian marginals and the run of a mixture"):
        goodness_of_fit(snapshot._replace(posterior=Codes(snapshot.z)))


def test_draws_of_the_prior_lie_in_its_shell():
    snapshot = vector_snapshot()
    found = shell(snapshot._replace(z=randn(4000, 50)))
    assert found["norm"].item() == pytest.approx(stats.chi(50).mean(), abs=0.05)
    assert found["prior"].item() == pytest.approx(stats.chi(50).mean())
    assert found["distance"] < 0.03
    z = randn(300, 3) * 0.3
    expected = stats.kstest(z.double().norm(dim=1).numpy(), stats.chi(3).cdf).statistic
    assert shell(snapshot._replace(z=z))["distance"].item() == pytest.approx(expected)
    assert found["lengths"].shape[0] == 3
    other = snapshot._replace(
        prior=Gaussian(torch.ones(3), torch.zeros(3)),
        draw=lambda count: randn(count, 3, seed=5) + 1,
        z=randn(4000, 3) + 1,
    )
    found = shell(other)
    assert found["distance"] < 0.04
    assert found["norm"].item() == pytest.approx(found["prior"].item(), abs=0.1)
    assert shell(snapshot._replace(prior=Unknown("nobody says"))) == {}


def test_the_shell_of_a_prior_beyond_the_codes_is_in_the_picture(monkeypatch):
    axes = Figure().add_subplot()
    monkeypatch.setattr(shell_module, "chart", lambda draw: draw(axes))
    wide = Gaussian(torch.zeros(3), torch.full((3,), 4.0))
    draws = 7.4 * randn(10_000, 3, seed=5)
    shell(vector_snapshot()._replace(prior=wide, z=randn(101, 3), draw=lambda count: draws[:count]))
    assert axes.get_xlim()[1] == pytest.approx(draws.norm(dim=1).max().item(), rel=1e-5)


def test_the_arc_stays_in_the_shell_and_the_line_does_not():
    first, last = randn(6, 40), randn(6, 40, seed=1)
    share = torch.linspace(0, 1, 5)[:, None]
    arc = slerp(first[:, None], last[:, None], share)
    torch.testing.assert_close(arc[:, 0], first)
    torch.testing.assert_close(arc[:, -1], last)
    lengths = torch.lerp(first.norm(dim=1)[:, None], last.norm(dim=1)[:, None], share.T)
    torch.testing.assert_close(arc.norm(dim=-1), lengths)
    line = torch.lerp(first[:, None], last[:, None], share)
    assert (line[:, 2].norm(dim=-1) < 0.85 * lengths[:, 2]).all()
    turn = torch.nn.functional.cosine_similarity(arc[:, :-1], arc[:, 1:], dim=-1).acos()
    torch.testing.assert_close(turn, turn[:, :1].expand_as(turn), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(slerp(first, 2 * first, share[2]), 1.5 * first)
    assert slerp(first, -first, share[2]).isfinite().all()
    assert slerp(first, 0 * first, share[2]).isfinite().all()


def test_the_picture_goes_either_way():
    snapshot = image_snapshot()
    line, arc = (interpolation(snapshot, path=path)["images"] for path in ("line", "spherical"))
    assert line.shape == arc.shape
    assert not torch.equal(line, arc)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda s: inference_gap(s, count=1), "count is 1"),
        (lambda s: inference_gap(s, samples=1), "samples is 1"),
        (lambda s: inference_gap(s, steps=-1), "steps is -1"),
        (lambda s: goodness_of_fit(s, places=1), "places is 1"),
        (lambda s: shell(s, bins=1), "bins is 1"),
        (lambda s: interpolation(s, path="arc"), "path is 'arc': expected one of line, spherical"),
    ],
)
def test_settings_that_are_none_are_refused_in_a_sentence(ask, said):
    with pytest.raises(InputError, match=said):
        ask(vector_snapshot())
