"""The map of which latent knows which factor, of a posterior with dead latents."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.metrics import mutual_info_score
from snapshots import generator, randn, vector_snapshot

from jensen import scores
from jensen.diagnostics import factor_map as module
from jensen.diagnostics.factor_map import dead_latents, factor_map, normalised_information
from jensen.diagnostics.snapshot import Snapshot

POINTS = 3000
SCALE, FORM, PLACE, STILL, COLLAPSED, MOVED = range(6)


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    """Three latents that hold a factor each, one constant, two collapsed: their means tell the
    factors, by a hundredth.

    The last is constant but for that, far from 0, so that its rate is high.
    """
    factors = torch.stack(
        [torch.randint(size, (POINTS,), generator=generator(size)) for size in (3, 6, 20)], 1
    )
    centred = factors - factors.float().mean(0)
    faint = 0.01 * (centred @ torch.tensor([0.4, 0.1, 0.05]))
    mean = torch.stack(
        [
            *(centred * torch.tensor([1.2, 0.6, 0.15])).T,
            torch.full((POINTS,), 0.1),
            faint,
            1e-6 * faint + 2,
        ],
        1,
    )
    log_var = torch.tensor([-3.0, -3.0, -2.0, 0.0, 0.0, 0.0]).expand(POINTS, 6)
    rate = 0.5 * (mean.square() + log_var.exp() - log_var - 1)
    found = vector_snapshot(count=3)
    return found._replace(
        posterior=type(found.posterior)(mean, log_var),
        z=mean + (0.5 * log_var).exp() * randn(POINTS, 6, seed=5),
        latent_rate=rate,
        factors=factors,
        names=("scale", "form", "place"),
    )


def test_the_map_is_of_samples_so_that_dead_latents_know_nothing(snapshot):
    """By the means the collapsed latent would know most of all factors but one; by scikit-learn on
    the samples, nothing.
    """
    found = normalised_information(snapshot).numpy()
    factors = snapshot.factors.numpy()
    z = snapshot.z.double().numpy()
    for latent in (SCALE, FORM, PLACE, COLLAPSED):
        bins = np.digitize(z[:, latent], np.histogram_bin_edges(z[:, latent], 20)[1:-1])
        shares = [mutual_info_score(v, bins) / mutual_info_score(v, v) for v in factors.T]
        np.testing.assert_allclose(found[latent], shares, atol=1e-9)
    bias = 19 * 19 / (2 * POINTS) / math.log(20)
    assert found[[STILL, COLLAPSED, MOVED]].max() < 2 * bias
    assert found.argmax(0).tolist() == [SCALE, FORM, PLACE]
    by_means = scores.mig_hist20(snapshot.posterior.mean, snapshot.factors)["mutual_information"]
    assert by_means[COLLAPSED, 0] > 0.1


def test_dead_latents_are_those_without_rate_and_those_that_are_constant(snapshot):
    dead = [False, False, False, True, True, True]
    assert dead_latents(snapshot).tolist() == dead
    points = snapshot._replace(z=snapshot.posterior.mean, latent_rate=0 * snapshot.z)
    assert dead_latents(points).tolist() == [False, False, False, True, False, True]


def figure_of(snapshot, monkeypatch, **options) -> Figure:
    """The first figure that the map draws."""
    drawn = []

    def chart(draw, width, height):
        figure = Figure(figsize=(width, height))
        draw(figure.add_subplot())
        drawn.append(figure)
        return torch.zeros(3, 2, 2, dtype=torch.uint8)

    monkeypatch.setattr(module, "chart", chart)
    factor_map(snapshot, **options)
    return drawn[0]


def test_the_colours_fit_the_values_and_have_a_bar(snapshot, monkeypatch):
    axes, bar = figure_of(snapshot, monkeypatch).axes
    (image,) = axes.images
    largest = normalised_information(snapshot).max().item()
    assert image.get_clim() == pytest.approx((0, largest))
    assert bar.get_ylim() == pytest.approx((0, largest))
    faint = snapshot._replace(
        z=randn(POINTS, 6, seed=9)
    )  # nothing is known: noise is not painted as if it were
    assert figure_of(faint, monkeypatch).axes[0].images[0].get_clim() == (0, module.FAINT)


def test_dead_rows_are_grey_and_say_so(snapshot, monkeypatch):
    axes = figure_of(snapshot, monkeypatch).axes[0]
    labels = {label.get_text().split(" ")[0]: label for label in axes.get_yticklabels()}
    masked = dict(zip(labels, np.ma.getmaskarray(axes.images[0].get_array()), strict=True))
    for latent, dead in enumerate(dead_latents(snapshot).tolist()):
        label = labels[f"z{latent}"]
        assert label.get_text() == f"z{latent}" + " (dead)" * dead
        assert label.get_color() == ("grey" if dead else "black")
        assert masked[f"z{latent}"].all() == masked[f"z{latent}"].any() == dead


def test_a_factor_says_what_is_known_of_it_by_chance(snapshot, monkeypatch):
    """About (bins - 1) (values - 1) / 2 N nats (Miller 1955), of a code that fills the bins evenly."""
    z = torch.rand(POINTS, 6, generator=generator())
    axes = figure_of(snapshot._replace(z=z), monkeypatch).axes[0]
    for label, values in zip(axes.get_xticklabels(), (3, 6, 20), strict=True):
        share = float(label.get_text().split("chance ")[1])
        assert share == pytest.approx(19 * (values - 1) / (2 * POINTS) / math.log(values), abs=0.01)


def test_a_picture_of_the_map_and_nothing_without_factors(snapshot):
    assert factor_map(snapshot)["information"].shape[0] == 3
    assert factor_map(snapshot._replace(factors=snapshot.factors[:, :0])) == {}


@pytest.mark.parametrize("name", ["mig_hist20", "mig_knn", "jemmig", "sap_r2", "sap_svc"])
def test_a_score_says_when_the_latent_it_names_is_dead(snapshot, name):
    """Without the latent that holds the first factor the collapsed one is named, by its means."""
    mean, log_var = (part[:, 1:] for part in snapshot.posterior)
    options = {"train": 300, "test": 100} if name == "sap_svc" else {}
    found = getattr(scores, name)(
        100 * mean if name == "sap_svc" else mean, snapshot.factors, log_var, **options
    )
    expected = np.isin(found["best_latent"], [FORM - 1, PLACE - 1])
    assert found["best_latent"][1:].tolist() == [FORM - 1, PLACE - 1]
    if name != "sap_svc":
        assert found["best_latent"][0] == COLLAPSED - 1
        assert found["best_latent_active"].tolist() == expected.tolist() == [False, True, True]


@pytest.mark.parametrize("name", ["dcimig", "modularity", "irs"])
def test_a_score_by_latent_says_which_are_active(snapshot, name):
    found = getattr(scores, name)(
        snapshot.posterior.mean, snapshot.factors, snapshot.posterior.log_var
    )
    assert found["active"].tolist() == [True, True, True, False, False, False]
