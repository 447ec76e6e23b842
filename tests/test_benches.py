"""Parts of scripts/bench that lean on the inside of jensen."""

import importlib.util
from pathlib import Path

import torch

from jensen.data import sprites

BENCH = Path(__file__).resolve().parents[1] / "scripts" / "bench"


def script(name):
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_batches_in_bulk_hold_the_images_of_the_items(monkeypatch, tmp_path):
    monkeypatch.setattr(sprites, "SIZES", (3, 2, 2, 2, 2))
    monkeypatch.setenv("JENSEN_CACHE", str(tmp_path))
    fetch = script("fetch")
    examples = sprites.sprites()
    items = fetch.PerItem(examples)
    one_by_one = next(fetch.per_item(items, len(items), 0, "cpu"))
    at_once = next(fetch.in_bulk(examples, len(items), "cpu"))
    for x in (one_by_one, at_once):
        assert x.shape == (48, 1, 64, 64)
    images = (
        {tuple(image.flatten().nonzero()[:, 0].tolist()) for image in x}
        for x in (one_by_one, at_once)
    )
    assert next(images) == next(images)
    assert torch.equal(one_by_one.unique(), at_once.unique())
