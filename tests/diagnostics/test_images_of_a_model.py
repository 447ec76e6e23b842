"""Reconstructions and samples: what is shown is what the model decodes."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from snapshots import image_snapshot, randn, vector_snapshot

from jensen.diagnostics import samples as samples_module
from jensen.diagnostics.embedding import embedding
from jensen.diagnostics.interpolation import interpolation
from jensen.diagnostics.reconstructions import reconstructions
from jensen.diagnostics.samples import samples
from jensen.diagnostics.traversal_film import traversal_film
from jensen.diagnostics.traversals import traversals


def cells(picture, rows, columns, size):
    """`(rows, columns, 3, size, size)` of a picture's right part, each followed by a gap of 2."""
    cell = size + 2
    images = picture[:, :, picture.shape[2] - columns * cell :]
    return (
        images.unflatten(1, (rows, cell))
        .unflatten(3, (columns, cell))
        .permute(1, 3, 0, 2, 4)[..., :size, :size]
    )


def grey(image):
    """`(C, H, W)` in [0, 1] to uint8 `(3, H, W)`."""
    return np.rint(255 * np.clip(np.broadcast_to(image.numpy(), (3, *image.shape[1:])), 0, 1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 10])
def test_reconstructions_are_data_then_decoded_codes_then_their_difference(channels, count):
    snapshot = image_snapshot(channels=channels)
    picture = reconstructions(snapshot, count)["images"]
    times = (picture.shape[1] // 3 - 2) // 16  # low images are enlarged beside labels
    found = cells(picture, 3, count, 16 * times)[..., ::times, ::times].numpy()
    for column in range(count):
        x = snapshot.images[column]
        decoded = snapshot.decode(snapshot.encode(x[None]).mean)[0]
        for row, expected in enumerate((x, decoded, (x - decoded).abs())):
            assert np.abs(found[row, column] - grey(expected)).max() <= 1


def test_fewer_images_than_asked_for_are_all_of_them():
    few, many = (reconstructions(image_snapshot(count=count))["images"] for count in (3, 10))
    assert many.shape[2] - few.shape[2] == 7 * few.shape[1] // 3


def test_vectors_have_no_reconstructions():
    assert reconstructions(vector_snapshot()) == {}


@pytest.mark.parametrize(("count", "across"), [(64, 8), (1, 1), (10, 3)])
def test_samples_are_decoded_draws_of_the_prior_in_a_square(count, across):
    snapshot = image_snapshot()
    picture = samples(snapshot, count)["images"]
    assert picture.shape == (3, across * 18, across * 18)
    decoded = snapshot.decode(snapshot.draw(count))
    found = cells(picture, across, across, 16).numpy()
    for number in range(across * across):
        assert np.abs(found[number // across, number % across] - grey(decoded[number])).max() <= 1


def test_samples_are_the_same_every_time():
    snapshot = image_snapshot()
    assert torch.equal(samples(snapshot)["images"], samples(snapshot)["images"])


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_of_vectors_the_first_two_coordinates_are_drawn(dim, monkeypatch):
    snapshot = vector_snapshot(dim=dim)
    assert samples(snapshot)["points"].shape == (3, 500, 500)
    axes = Figure().add_subplot()
    monkeypatch.setattr(samples_module, "chart", lambda draw, *size: draw(axes))
    samples(snapshot, 30)
    data, decoded = (scatter.get_offsets() for scatter in axes.collections)
    second = min(1, dim - 1)
    assert np.asarray(data) == pytest.approx(snapshot.images[:, [0, second]].numpy())
    assert np.asarray(decoded) == pytest.approx(
        snapshot.decode(snapshot.draw(30))[:, [0, second]].numpy()
    )


def test_a_linear_models_samples_have_its_covariance(monkeypatch):
    """Draws are standard normal: E[x|z] = W z + m scatters by W W'."""
    snapshot = vector_snapshot()
    weight = randn(2, 3)
    start = torch.tensor([1.0, -2.0])
    snapshot = snapshot._replace(decode=lambda z: z @ weight.T + start)
    axes = Figure().add_subplot()
    monkeypatch.setattr(samples_module, "chart", lambda draw, *size: draw(axes))
    samples(snapshot, 20_000)
    points = np.asarray(axes.collections[1].get_offsets())
    assert points.mean(0) == pytest.approx(start.numpy(), abs=0.05)
    assert np.cov(points.T) == pytest.approx((weight @ weight.T).numpy(), abs=0.15)


SHOWN = {
    "reconstructions": lambda snapshot: reconstructions(snapshot)["images"],
    "samples": lambda snapshot: samples(snapshot)["images"],
    "interpolation": lambda snapshot: interpolation(snapshot)["images"],
    "traversals": lambda snapshot: traversals(snapshot)["image_1"],
    "traversal_film": lambda snapshot: traversal_film(snapshot)["film"].frames,
    "embedding": lambda snapshot: embedding(snapshot)["codes"].thumbnails,
}


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 255.0), (-3.0, -2.0)])
def test_data_that_are_no_brightness_are_shown_by_their_range(name, low, high):
    """The same images in other units make the same picture."""
    plain = image_snapshot()
    least, most = plain.images.aminmax()
    plain = plain._replace(images=(plain.images - least) / (most - least))
    other = plain._replace(
        images=low + (high - low) * plain.images,
        encode=lambda x: plain.encode((x - low) / (high - low)),
        decode=lambda z: low + (high - low) * plain.decode(z),
    )
    one, two = (SHOWN[name](each).int() for each in (plain, other))
    assert one.float().std() > 1
    assert (one - two).abs().max() <= 1


def test_a_missing_pixel_is_half_grey():
    snapshot = image_snapshot()
    holed = snapshot.images.index_fill(3, torch.tensor(0), torch.nan)
    picture = reconstructions(snapshot._replace(images=holed), 1)["images"]
    times = (picture.shape[1] // 3 - 2) // 16
    found = cells(picture, 3, 1, 16 * times)[0, 0, 0, ::times, ::times]
    assert (found[:, 0] == 128).all()
    assert (found[:, 1:] != 128).any()
