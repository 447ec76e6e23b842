"""EMNIST and QMNIST under the names, types and orders that they are published in."""

import gzip
import struct

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from jensen.base.errors import InputError
from jensen.data import idx
from jensen.data.nist import SUBSETS, emnist, qmnist

IMAGES = np.random.default_rng(0).integers(0, 256, (130, 28, 28), np.uint8)


def encode(array, code=8):
    return (
        bytes([0, 0, code, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def put(path, array, code=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = encode(array, code)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("below", [".", "gzip", "EMNIST/raw"])
@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("subset", SUBSETS)
def test_the_parts_of_emnist_stand_upright_and_count_from_zero(tmp_path, subset, end, below):
    first = 1 if subset == "letters" else 0
    classes = (np.arange(130) % SUBSETS[subset]).astype(np.uint8)
    for split in ("train", "test"):
        stem = f"emnist-{subset}-{split}"
        put(
            tmp_path / below / f"{stem}-images-idx3-ubyte{end}",
            np.ascontiguousarray(IMAGES.transpose(0, 2, 1)),
        )
        put(tmp_path / below / f"{stem}-labels-idx1-ubyte{end}", classes + np.uint8(first))
        examples = emnist(tmp_path, split, subset)
        assert np.array_equal(examples.stored[:, 0].numpy(), IMAGES)
        assert (examples.names, examples.sizes) == (("class",), (SUBSETS[subset],))
        assert np.array_equal(examples.factors[:, 0].numpy(), classes)


@pytest.mark.parametrize(
    ("label", "subset"), [(0, "letters"), (27, "letters"), (10, "digits"), (62, "byclass")]
)
def test_a_label_that_a_part_does_not_have_is_refused(tmp_path, label, subset):
    labels = np.full(130, 5, np.uint8)
    labels[17] = label
    put(tmp_path / f"emnist-{subset}-train-images-idx3-ubyte", IMAGES)
    put(tmp_path / f"emnist-{subset}-train-labels-idx1-ubyte", labels)
    with pytest.raises(InputError, match=f"has the label {label}: expected labels in"):
        emnist(tmp_path, subset=subset)


@pytest.mark.parametrize("name", ["qmnist-train-labels-idx2-int", "qmnist-train-labels.idx2-int"])
@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("below", [".", "QMNIST/raw"])
def test_of_qmnists_eight_columns_the_first_is_the_class(tmp_path, below, name, end):
    columns = np.random.default_rng(1).integers(0, 1 << 30, (130, 8)).astype(">i4")
    columns[:, 0] = np.arange(130) % 10
    put(tmp_path / below / f"qmnist-train-images-idx3-ubyte{end}", IMAGES)
    put(tmp_path / below / f"{name}{end}", columns, code=12)
    assert np.array_equal(idx.read(tmp_path / below / f"{name}{end}").numpy(), columns)
    examples = qmnist(tmp_path, pad=2)
    assert examples.stored.shape == (130, 1, 32, 32)
    assert np.array_equal(examples.stored[:, 0, 2:-2, 2:-2].numpy(), IMAGES)
    assert examples.factors[:, 0].tolist() == columns[:, 0].tolist()
    assert examples.factors.dtype == torch.uint8


def test_integers_are_bounded_by_what_the_file_holds(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(encode(np.zeros((3, 8), ">i4"), 12)[:-1])
    with pytest.raises(InputError, match=r"header for 96 bytes of shape \(3, 8\) but 95 follow"):
        idx.read(path)
    path.write_bytes(bytes([0, 0, 12, 2]) + struct.pack(">2I", 1 << 31, 1 << 31) + bytes(10))
    with pytest.raises(InputError, match="but 10 follow"):
        idx.read(path)


def test_images_without_labels_and_missing_ones(tmp_path):
    with pytest.raises(
        InputError,
        match=r"lacks emnist-balanced-train-images-idx3-ubyte or .* and so does .*gzip and .*raw",
    ):
        emnist(tmp_path)
    put(tmp_path / "emnist-balanced-train-images-idx3-ubyte", IMAGES)
    assert emnist(tmp_path).names == ()
    with pytest.raises(InputError, match="lacks qmnist-test-images-idx3-ubyte"):
        qmnist(tmp_path, "test")


@pytest.mark.parametrize("option", [{"split": "valid"}, {"pad": -1}, {"subset": "letter"}])
def test_other_options_are_refused(tmp_path, option):
    with pytest.raises(InputError, match=f"{next(iter(option))} is .*: expected"):
        emnist(tmp_path, **option)


def test_their_choices_compose(configure, tmp_path):
    put(tmp_path / "emnist-letters-train-images-idx3-ubyte", IMAGES)
    cfg = configure(
        "data=emnist", "data.subset=letters", f"data.root={tmp_path}", "data.validation=10"
    )
    assert instantiate(cfg.data).show(3).shape == (3, 1, 28, 28)
    put(tmp_path / "qmnist-train-images-idx3-ubyte", IMAGES)
    assert (
        len(instantiate(configure("data=qmnist", f"data.root={tmp_path}").data).examples("train"))
        == 130
    )
