"""The script of the README's lead picture, on snapshots in the place of a run."""

import importlib.util
import io
from pathlib import Path

import pytest
from PIL import Image
from snapshots import image_snapshot, vector_snapshot

from jensen.base.errors import InputError

SCRIPT = Path(__file__).parents[2] / "scripts" / "lead_picture.py"


@pytest.fixture
def script(monkeypatch):
    """`script(snapshot)`: the script's module, for which every run is of that snapshot."""
    spec = importlib.util.spec_from_file_location("lead_picture", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def of(snapshot):
        def on_run(run, split, checkpoint, diagnostics):
            return [each(snapshot) for each in diagnostics.values()]

        monkeypatch.setattr(module, "on_run", on_run)
        return module

    return of


def test_the_lead_picture_moves_and_has_a_column_a_latent(script):
    pictures = [
        Image.open(io.BytesIO(script(image_snapshot()).drawn(Path(), latents=count, steps=4)))
        for count in (1, 2)
    ]
    assert [picture.n_frames for picture in pictures] == [6, 6]
    assert all(picture.info["loop"] == 0 for picture in pictures)
    one, two = (picture.width for picture in pictures)
    assert 1.5 * one < two < 2.5 * one


def test_a_run_without_images_has_no_lead_picture(script):
    with pytest.raises(InputError, match="holds no model of images: expected one, whose trav"):
        script(vector_snapshot()).drawn(Path("here"))


def test_a_lead_picture_that_loads_slowly_is_refused(script, monkeypatch):
    module = script(image_snapshot())
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    with pytest.raises(InputError, match="bytes: expected at most 100; fewer --steps or --images"):
        module.drawn(Path())
