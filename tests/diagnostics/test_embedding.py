"""Codes with their labels and thumbnails, for the PROJECTOR."""

import pytest
import torch
from snapshots import image_snapshot, vector_snapshot

from jensen.base.random import fold, permutation
from jensen.diagnostics.embedding import embedding


def test_an_embedding_is_rows_of_the_codes_with_their_own_labels():
    snapshot = image_snapshot()
    factors = torch.arange(2 * 101).reshape(101, 2)
    found = embedding(snapshot._replace(factors=factors, names=("a", "b")), points=10)["codes"]
    rows = permutation(fold(0, "embedding"), 101)[:10]
    assert torch.equal(found.codes, snapshot.posterior.mean[rows])
    assert found.columns == ("a", "b", "distortion", "rate")
    for row, label in zip(rows.tolist(), found.labels, strict=True):
        assert label[:2] == [str(2 * row), str(2 * row + 1)]
        assert float(label[3]) == pytest.approx(snapshot.bound.rate[row].item(), abs=0.006)
    decoded = snapshot.decode(found.codes)
    assert found.thumbnails.shape == (10, 3, 16, 16)  # no larger than the image
    assert (found.thumbnails.float() / 255 - decoded).abs().max() < 0.5 / 255 + 1e-6


def test_thumbnails_are_means_over_pixels():
    snapshot = image_snapshot(channels=3)
    found = embedding(snapshot, points=4, side=8)["codes"]
    decoded = snapshot.decode(found.codes)
    small = torch.stack(
        [decoded[..., down::2, across::2] for down in (0, 1) for across in (0, 1)]
    ).mean(0)
    assert (found.thumbnails.float() / 255 - small).abs().max() < 0.5 / 255 + 1e-6


def test_vectors_have_no_thumbnails():
    found = embedding(vector_snapshot())["codes"]
    assert found.thumbnails is None
    assert len(found.codes) == len(found.labels) == 101
