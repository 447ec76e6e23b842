"""The PROJECTOR's files: of the last validation, however many there were."""

import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from jensen.callbacks.projector import project, sprite
from jensen.diagnostics.snapshot import Embedding


@pytest.fixture
def found():
    codes = torch.arange(10.0).reshape(5, 2) / 7
    thumbnails = torch.arange(5)[:, None, None, None].expand(5, 3, 4, 6).to(torch.uint8)
    return Embedding(codes, ("a", "b"), [[str(row), "x"] for row in range(5)], thumbnails)


def config(folder) -> ProjectorConfig:
    return text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())


def test_the_files_hold_the_embedding(tmp_path, found):
    project(tmp_path, "embedding/codes", found)
    (named,) = config(tmp_path).embeddings
    rows = [
        [float(value) for value in line.split("\t")]
        for line in (tmp_path / named.tensor_path).read_text().splitlines()
    ]
    assert torch.allclose(torch.tensor(rows), found.codes, rtol=1e-5)
    labels = [
        line.split("\t") for line in (tmp_path / named.metadata_path).read_text().splitlines()
    ]
    assert labels == [["a", "b"], *found.labels]
    assert [*named.sprite.single_image_dim] == [6, 4]  # width, height
    with Image.open(tmp_path / named.sprite.image_path) as picture:
        assert picture.size == (3 * 6, 3 * 4)


def test_a_single_column_has_no_header(tmp_path, found):
    project(tmp_path, "one", found._replace(columns=("a",), labels=[["x"]] * 5))
    assert (tmp_path / "projector" / "one" / "metadata.tsv").read_text() == "x\n" * 5


def test_without_thumbnails_there_is_no_sprite(tmp_path, found):
    project(tmp_path, "embedding/codes", found._replace(thumbnails=None))
    assert not config(tmp_path).embeddings[0].HasField("sprite")


def test_writing_again_does_not_grow(tmp_path, found):
    project(tmp_path, "embedding/codes", found)
    before = {path: path.stat().st_size for path in tmp_path.rglob("*")}
    for _ in range(3):
        project(tmp_path, "embedding/codes", found)
    assert {path: path.stat().st_size for path in tmp_path.rglob("*")} == before
    project(tmp_path, "other/codes", found)
    assert [each.tensor_name for each in config(tmp_path).embeddings] == [
        "embedding_codes",
        "other_codes",
    ]


def test_thumbnails_stand_in_a_square_by_rows(found):
    assert sprite(found.thumbnails)[0, ::4, ::6].tolist() == [[0, 1, 2], [3, 4, 0], [0, 0, 0]]
