"""The textbook example: EM and a general-purpose optimiser find the same maximum, and the pictures
show it.
"""

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from jensen.data.normals import normals
from jensen.diagnostics.em_slides import em_slides, two_normals
from jensen.em import steps as em
from jensen.family.mixture import log_prob
from jensen.launch.training import train
from jensen.run.load import load


@pytest.mark.slow
def test_the_run_finds_the_maximum_that_a_general_optimiser_finds(configure, tmp_path):
    results = train(
        configure(
            "experiment=em_slides", "trainer.accelerator=cpu", "callbacks=[checkpoint,diagnose]"
        ),
        tmp_path,
    )
    fitted, _ = load(tmp_path)
    points = normals().stored[:, 0].numpy()

    def loss(theta):
        alpha, low, high, sigma = theta
        return -np.log(
            alpha * stats.norm.pdf(points, low, sigma)
            + (1 - alpha) * stats.norm.pdf(points, high, sigma)
        ).mean()

    found = optimize.minimize(
        loss,
        (0.5, 1.0, 4.0, 1.5),
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": 4000},
    )
    assert results["val/elbo"] == pytest.approx(-found.fun, abs=1e-9)
    order = fitted.mean[:, 0].argsort()
    ours = [fitted.log_weight.exp()[order[0]], *fitted.mean[order, 0], fitted.scale_tril[0, 0]]
    assert ours == pytest.approx(found.x, abs=1e-6)
    assert results["em_slides/parameter_error"] < 1e-6
    assert results["em_slides/log_likelihood"] == pytest.approx(
        results["em_slides/log_likelihood_direct"], abs=1e-6
    )
    assert results["em_slides/alpha"] == pytest.approx(results["em_slides/alpha_direct"], abs=1e-6)

    only_alpha = optimize.minimize_scalar(
        lambda alpha: loss((alpha, 0.0, 5.0, 1.0)),
        bounds=(0.01, 0.99),
        method="bounded",
        options={"xatol": 1e-11},
    )
    assert results["em_slides/alpha"] == pytest.approx(only_alpha.x, abs=1e-6)


def test_the_pictures_show_bounds_that_touch_and_stay_below():
    x = normals().stored
    p = two_normals(0.8, (1.0, 4.0), 2.0)
    for _ in range(10):
        r = em.e_step(x, p)
        following = em.fit(x, p, 1)
        assert em.bound(x, p, r).elbo.mean() == pytest.approx(
            log_prob(x, p).mean().item(), abs=1e-12
        )
        assert (
            log_prob(x, p).mean()
            < em.bound(x, following, r).elbo.mean()
            <= log_prob(x, following).mean()
        )
        p = following


def test_the_points_are_those_of_the_mixture():
    data = normals(size=1000, alpha=0.3, means=(0.0, 5.0), sigma=1.0)
    assert data.stored.shape == (1000, 1)
    assert (data.factors == 0).sum() == 300
    for component, mean in enumerate((0.0, 5.0)):
        points = data.stored[data.factors[:, 0] == component, 0]
        assert stats.kstest(points.numpy(), stats.norm(mean, 1).cdf).pvalue > 1e-3
    assert torch.equal(normals(split="test").stored, data.stored)
    assert not torch.equal(normals(seed=1).stored, data.stored)


def test_what_a_run_shows(configure, tmp_path):
    x = normals(size=60).stored
    from snapshots import vector_snapshot

    p = two_normals(0.3, (0.0, 5.0), 1.0)
    snapshot = vector_snapshot()._replace(z=x, prior=p)
    found = em_slides(
        snapshot,
        start=two_normals(0.8, (0.0, 5.0), 1.0),
        truth=p,
        far=two_normals(0.8, (1.0, 4.0), 2.0),
    )
    for name in ("weight_alone", "weight_alone_gap", "all_parameters"):
        assert found[name].dtype == torch.uint8
        assert found[name].dim() == 3
    assert found["parameter_error"] > 1e-3  # p is not the maximum for these points
    assert found["log_likelihood"] < found["log_likelihood_direct"]
