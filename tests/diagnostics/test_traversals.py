"""One row a latent: a decoder that shows its z as pixels tells what moved."""

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score
from snapshots import image_snapshot, randn, vector_snapshot, with_posterior

from jensen.diagnostics import traversals as module
from jensen.diagnostics.traversals import traversals

DIM = 4


@pytest.fixture
def shown():
    """A snapshot of 101 codes whose decoder gives z itself as one row of pixels."""
    mean = randn(101, DIM) * torch.tensor([0.2, 1.5, 0.8, 0.4])
    snapshot = with_posterior(image_snapshot(latents=DIM), mean, torch.full((101, DIM), -2.0))
    return snapshot._replace(decode=lambda z: ((z + 5) / 10)[:, None, None])  # (B, 1, 1, DIM)


def pixels(picture, rows, columns):
    """The grey level of each cell's pixels, `(rows, columns, DIM)`: a pixel is enlarged to a
    square, and a gap is 2.
    """
    height = picture.shape[1] // rows
    size = height - 2
    width = size * DIM + 2
    start = picture.shape[2] - columns * width
    down = torch.arange(rows)[:, None, None] * height + size // 2
    across = (
        start + torch.arange(columns)[None, :, None] * width + torch.arange(DIM) * size + size // 2
    )
    return picture[0, down, across]


def expected_pixels(snapshot, image, latents, columns, tail):
    """By loops: `(latents, columns, DIM)`."""
    codes = snapshot.posterior.mean.numpy()
    order = np.argsort(-snapshot.latent_rate.mean(0).numpy())[:latents]
    code = snapshot.encode(snapshot.images[image : image + 1]).mean[0].numpy()
    rows = np.empty((len(order), columns, DIM))
    for row, latent in enumerate(order):
        low, high = np.quantile(codes[:, latent], [tail, 1 - tail])
        for column, value in enumerate(np.linspace(low, high, columns)):
            rows[row, column] = code
            rows[row, column, latent] = value
    return np.rint(255 * np.clip((rows + 5) / 10, 0, 1))


def test_a_decoder_that_draws_is_shown_by_the_chances_of_one_draw(shown):
    drawing = shown._replace(decode=lambda z: torch.rand(len(z), 1, 1, DIM), alike=shown.decode)
    for name, picture in traversals(shown, images=1).items():
        assert torch.equal(traversals(drawing, images=1)[name], picture)


@pytest.mark.parametrize(("latents", "columns", "tail"), [(10, 11, 0.01), (2, 5, 0.1), (3, 2, 0.0)])
def test_the_latent_of_a_row_goes_from_quantile_to_quantile_and_the_others_stay(
    shown, latents, columns, tail
):
    found = traversals(shown, latents=latents, columns=columns, images=3, tail=tail)
    assert list(found) == ["image_0", "image_1", "image_2"]
    for number, picture in enumerate(found.values()):
        expected = expected_pixels(shown, number, latents, columns, tail)
        got = pixels(picture, min(latents, DIM), columns).numpy().astype(float)
        assert np.abs(got - expected).max() <= 1  # half a grey level either way


def test_the_decoder_gets_each_row_with_one_latent_changed(shown):
    seen = []
    traversals(shown._replace(decode=lambda z: seen.append(z) or shown.decode(z)), images=1)
    z = seen[0].unflatten(0, (DIM, 11))
    code = shown.encode(shown.images[:1]).mean[0]
    for row, latent in enumerate(shown.latent_rate.mean(0).argsort(descending=True).tolist()):
        others = [other for other in range(DIM) if other != latent]
        assert torch.equal(z[row][:, others], code[others].expand(11, -1))
        values = shown.posterior.mean[:, latent].sort().values
        assert z[row, 0, latent] == values[1]
        assert z[row, -1, latent].item() == pytest.approx(values[99].item(), rel=1e-6)
        steps = z[row, :, latent].diff()
        assert steps.numpy() == pytest.approx(np.full(10, steps.mean().item()), rel=1e-3)
        assert steps.min() > 0


def test_rows_are_labelled_with_latent_and_rate_in_falling_order(shown, monkeypatch):
    labels = []
    monkeypatch.setattr(module, "grid", lambda rows, names: labels.append(names))
    traversals(shown, latents=3, images=1)
    rates = shown.latent_rate.mean(0).tolist()
    expected = sorted(((rate, latent) for latent, rate in enumerate(rates)), reverse=True)[:3]
    assert labels == [[f"z{latent}\n{rate:.2f} nats" for rate, latent in expected]]


def test_a_row_that_tells_a_factor_is_labelled_with_it_too(shown, monkeypatch):
    """One latent is a factor with little noise, the others know none; I(z; v) / H(v) by
    scikit-learn.
    """
    generator = torch.Generator().manual_seed(4)
    factors = torch.stack([torch.arange(2000) % 3, torch.arange(2000) % 4], 1)[
        torch.randperm(2000, generator=generator)
    ]
    mean = torch.randn(2000, DIM, generator=generator)
    mean[:, 2] = factors[:, 1] + 0.01 * mean[:, 2]
    snapshot = with_posterior(shown, mean, torch.zeros(2000, DIM))._replace(
        z=mean, factors=factors, names=("form", "size")
    )
    labels = []
    monkeypatch.setattr(module, "grid", lambda rows, names: labels.extend(names))
    traversals(snapshot, images=1)
    assert sorted(label.split("\n")[0] for label in labels) == ["z0", "z1", "z2", "z3"]
    for label in labels:
        lines = label.split("\n")
        latent = int(lines[0][1:])
        bins = np.digitize(mean[:, latent], np.histogram_bin_edges(mean[:, latent], 20)[1:-1])
        shares = [
            mutual_info_score(factors[:, factor], bins)
            / mutual_info_score(factors[:, factor], factors[:, factor])
            for factor in range(2)
        ]
        assert lines[2:] == (["size"] if latent == 2 else [])
        assert (max(shares) > 0.05) == (latent == 2)


def test_what_few_points_tell_by_chance_is_no_label(shown, monkeypatch):
    """Of 101 points, 20 bins tell most of the entropy of 32 values that have nothing to do with them."""
    count = len(shown.z)
    place = torch.randint(32, (count, 1), generator=torch.Generator().manual_seed(5))
    lit = torch.arange(count)[:, None] % 2
    mean = torch.randn(count, DIM, generator=torch.Generator().manual_seed(6))
    mean[:, 1] += 6 * lit[:, 0]
    snapshot = with_posterior(shown, mean, torch.zeros(count, DIM))._replace(
        z=mean, factors=torch.cat([place, lit], 1), names=("place", "lit")
    )
    bins = np.digitize(mean[:, 0], np.histogram_bin_edges(mean[:, 0], 20)[1:-1])
    assert mutual_info_score(place[:, 0], bins) > 0.3 * np.log(32)
    labels = []
    monkeypatch.setattr(module, "grid", lambda rows, names: labels.extend(names))
    traversals(snapshot, images=1)
    told = {label.split("\n")[0]: label.split("\n")[2:] for label in labels}
    assert told == {"z0": [], "z1": ["lit"], "z2": [], "z3": []}


@pytest.mark.parametrize("channels", [1, 3, 2])
def test_pictures_of_real_images_hold_every_cell_beside_the_labels(channels):
    snapshot = image_snapshot(channels=channels)
    found = traversals(snapshot)
    assert list(found) == ["image_0", "image_1"]
    for picture in found.values():
        cell = picture.shape[1] // 4
        assert picture.dtype == torch.uint8
        assert picture.shape[:2] == (3, 4 * cell)
        assert (cell - 2) % 16 == 0  # low images are enlarged beside labels
        assert 30 < picture.shape[2] - 11 * cell < 150


def test_the_same_images_every_time():
    snapshot = image_snapshot()
    first = traversals(snapshot)
    again = traversals(snapshot)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["image_0"], first["image_1"])


def test_vectors_have_none():
    assert traversals(vector_snapshot()) == {}


def test_one_held_out_example_is_enough():
    found = traversals(image_snapshot(count=1))
    assert list(found) == ["image_0"]
