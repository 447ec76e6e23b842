"""A film of traversals: a decoder that shows its z as bars tells what moved, and Pillow reads the
file again.
"""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from snapshots import image_snapshot, randn, vector_snapshot, with_posterior

from jensen.diagnostics.picture import gif, grid
from jensen.diagnostics.snapshot import Film
from jensen.diagnostics.traversal_film import traversal_film

DIM = 4
ALIVE = (1, 2)
"""The latents that vary, by falling rate."""


def bars(values):
    """Images `(B, 1, 9, 20 DIM)`, wide enough for a head."""
    return values[:, None, None].repeat_interleave(20, 3).expand(-1, -1, 9, -1)


@pytest.fixture
def shown():
    """Two of four latents alive; a decoder that gives z itself as four bars."""
    mean = randn(101, DIM) * torch.tensor([0.0, 1.5, 0.8, 0.0])
    log_var = torch.tensor([0.0, -2.0, -2.0, 0.0]).expand(101, DIM)
    snapshot = with_posterior(image_snapshot(latents=DIM), mean, log_var)
    return snapshot._replace(decode=lambda z: bars((z + 5) / 10))


def test_live_latents_go_there_and_back_and_the_others_stay(shown):
    seen = []
    watched = shown._replace(decode=lambda z: seen.append(z) or shown.decode(z))
    film = traversal_film(watched, steps=5, images=3, tail=0.1)["film"]
    z = seen[0].unflatten(0, (3, len(ALIVE), 5))
    codes = shown.encode(shown.images[:3]).mean
    for image in range(3):
        for column, latent in enumerate(ALIVE):
            expected = codes[image].repeat(5, 1).numpy()
            values = shown.posterior.mean[:, latent].numpy()
            expected[:, latent] = np.linspace(*np.quantile(values, [0.1, 0.9]), 5)
            np.testing.assert_allclose(z[image, column], expected, rtol=1e-5)
    assert len(film.frames) == 8
    for frame, step in enumerate([0, 1, 2, 3, 4, 3, 2, 1]):
        cells = shown.decode(z[:, :, step].flatten(0, 1)).unflatten(0, (3, len(ALIVE)))
        alone = grid(cells)
        assert torch.equal(film.frames[frame][:, -alone.shape[1] :], alone)  # below the heads
    above = film.frames[:, 0, : -alone.shape[1]]
    assert above.min() < 60
    assert torch.equal(above, above[:1].expand_as(above))


def test_where_every_latent_is_dead_they_are_shown_all_the_same():
    snapshot = image_snapshot(latents=DIM)
    still = with_posterior(snapshot, torch.zeros(101, DIM), torch.zeros(101, DIM))
    assert traversal_film(still, steps=2)["film"].frames.shape[0] == 2


def test_the_file_holds_the_frames_and_begins_again_at_its_end():
    frames = (256 * torch.rand(5, 1, 12, 17, generator=torch.Generator().manual_seed(0))).byte()
    film = Film(frames.expand(-1, 3, -1, -1), 0.12)
    with Image.open(io.BytesIO(gif(film))) as read:
        assert (read.format, read.n_frames, read.size) == ("GIF", 5, (17, 12))
        assert read.info["loop"] == 0
        for number, frame in enumerate(frames):
            read.seek(number)
            assert read.info["duration"] == 120
            assert np.abs(np.array(read.convert("L")).astype(int) - frame[0].numpy()).max() <= 1


def test_vectors_have_none():
    assert traversal_film(vector_snapshot()) == {}
