"""The idx files of MNIST and Fashion-MNIST: what is read, and what is refused."""

import gzip
import logging
import random
import shutil
import struct
import tracemalloc
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torchvision.datasets import MNIST

from jensen.base.errors import InputError
from jensen.data import idx

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not (SHARED / "t10k-images-idx3-ubyte.gz").exists(), reason="needs shared/data"
)

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)
LABELS = (np.arange(12) % 10).astype(np.uint8)


def encode(array):
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def put(folder, images=IMAGES, labels=LABELS, name="train", end=""):
    """The two files of a split, raw, or gzipped if `end` is ".gz"."""
    folder.mkdir(parents=True, exist_ok=True)
    for array, kind in ((images, "images-idx3-ubyte"), (labels, "labels-idx1-ubyte")):
        content = encode(array)
        (folder / f"{name}-{kind}{end}").write_bytes(gzip.compress(content) if end else content)


@pytest.mark.parametrize("name", ["file", "file.gz"])
@pytest.mark.parametrize("array", [IMAGES, LABELS])
def test_read_returns_what_was_written(tmp_path, name, array):
    path = tmp_path / name
    path.write_bytes(gzip.compress(encode(array)) if path.suffix else encode(array))
    found = idx.read(path)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), array)


@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_read_refuses_a_file_cut_anywhere(tmp_path, name):
    path = tmp_path / name
    content = gzip.compress(encode(IMAGES)) if path.suffix else encode(IMAGES)
    cuts = random.Random(0).sample(range(len(content)), 60)
    for cut in [*range(20), len(content) - 8, len(content) - 1, *cuts]:
        path.write_bytes(content[:cut])
        with pytest.raises(InputError, match=name):
            idx.read(path)


def test_read_refuses_a_gzip_file_with_a_flipped_byte(tmp_path):
    path = tmp_path / "file.gz"
    content = gzip.compress(encode(IMAGES))
    for place in random.Random(0).sample(
        range(10, len(content)), 60
    ):  # the first 10 bytes hold times and such
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        with pytest.raises(InputError):
            idx.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing: expected 00000801"),
        (b"\0\0\x0d\x03" + bytes(20), "begins with bytes 00000d03"),
        (b"\0\0\x08\x02" + bytes(20), "begins with bytes 00000802"),
        (b"\x1f\x8b\x08\x00" + bytes(20), "begins with bytes 1f8b0800"),
        (b"\0\0\x08\x03" + bytes(11), "ends within its header"),
        (b"\0\0\x08\x03" + bytes(12), r"header for 0 bytes of shape \(0, 0, 0\)"),
        (encode(IMAGES) + b"\0", "header for 9408 bytes .* but more follow"),
        (encode(IMAGES)[:-1], "header for 9408 bytes .* but 9407 follow"),
    ],
)
@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_read_refuses_other_content(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if path.suffix else content)
    with pytest.raises(InputError, match=message):
        idx.read(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip file", gzip.compress(encode(LABELS), mtime=0) + b"more"],
    ids=["empty", "text", "more"],
)
def test_read_refuses_what_is_not_gzip(tmp_path, content):
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"file\.gz"):
        idx.read(path)


def test_read_refuses_what_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "absent", tmp_path / "absent.gz"):
        with pytest.raises(InputError, match="cannot be read"):
            idx.read(path)


@pytest.mark.parametrize("shape", [(1 << 16, 1 << 10, 1 << 10), (0xFFFFFFFF,) * 3, (0xFFFFFFFF,)])
@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_read_allocates_nothing_that_a_header_only_claims(tmp_path, name, shape):
    path = tmp_path / name
    content = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(100)
    path.write_bytes(gzip.compress(content) if path.suffix else content)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="but 100 follow"):
            idx.read(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("source", [idx.mnist, idx.fashion_mnist])
@pytest.mark.parametrize("below", [False, True])
def test_a_source_reads_the_files_of_its_split_only(tmp_path, source, below):
    folder = (
        tmp_path / ("MNIST" if source is idx.mnist else "FashionMNIST") / "raw"
        if below
        else tmp_path
    )
    put(folder)
    examples = source(tmp_path)
    assert examples.stored.shape == (12, 1, 28, 28)
    assert examples.stored.dtype == examples.factors.dtype == torch.uint8
    assert examples.names == ("class",)
    assert examples.sizes == (10,)
    assert np.array_equal(examples.factors[:, 0].numpy(), LABELS)
    decoded = examples.decode(examples.stored)
    assert np.array_equal((decoded[:, 0] * 255).round().byte().numpy(), IMAGES)
    with pytest.raises(InputError, match="lacks t10k-images-idx3-ubyte or t10k-labels-idx1-ubyte"):
        source(tmp_path, split="test")


def test_the_test_split_is_t10k(tmp_path):
    put(tmp_path, name="t10k")
    assert len(idx.mnist(str(tmp_path), split="test")) == 12


def test_pad_adds_zeros_on_each_side(tmp_path):
    put(tmp_path)
    padded = idx.mnist(tmp_path, pad=2).stored
    assert padded.shape == (12, 1, 32, 32)
    assert padded.dtype == torch.uint8
    assert np.array_equal(padded[:, 0, 2:-2, 2:-2].numpy(), IMAGES)
    assert padded.long().sum() == IMAGES.sum()


@pytest.mark.parametrize("option", [{"split": "valid"}, {"split": None}, {"pad": -1}, {"pad": 1.0}])
def test_unknown_options_are_refused(tmp_path, option):
    put(tmp_path)
    with pytest.raises(InputError, match=f"{next(iter(option))} is .*: expected"):
        idx.mnist(tmp_path, **option)


def test_a_source_is_a_partial_target_of_hydra(tmp_path):
    put(tmp_path)
    for name in ("mnist", "fashion_mnist"):
        source = instantiate(
            {
                "_target_": f"jensen.data.idx.{name}",
                "_partial_": True,
                "root": str(tmp_path),
                "pad": 2,
            }
        )
        assert source(split="train").stored.shape == (12, 1, 32, 32)


def test_missing_files_are_named_with_two_remedies(tmp_path):
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError) as caught:
            idx.fashion_mnist(root)
        for part in (
            root,
            root / "FashionMNIST" / "raw",
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
        ):
            assert str(part) in str(caught.value)
        assert "data.download=true" in str(caught.value)
        assert "data=sprites" in str(caught.value)


def test_images_and_labels_come_from_one_folder(tmp_path):
    put(tmp_path)
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "train-labels-idx1-ubyte").rename(
        tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    )
    put(tmp_path, name="train9")  # and no other set stands in where only labels are missing
    with pytest.raises(InputError, match="expected both in one folder"):
        idx.mnist(tmp_path)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[:, :27], LABELS, r"shape \(12, 27, 28\): expected images of 28 x 28"),
        (LABELS, LABELS, r"shape \(12,\): expected images"),
        (IMAGES, LABELS[:-1], r"shape \(11,\): expected \(12,\)"),
        (IMAGES, IMAGES, r"shape \(12, 28, 28\): expected \(12,\)"),
        (IMAGES, LABELS + np.uint8(1), r"has the label 10: expected labels in 0..9"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, images, labels, message):
    put(tmp_path, images, labels)
    with pytest.raises(InputError, match=message):
        idx.mnist(tmp_path)


def test_a_gzipped_file_of_a_published_name_must_be_the_published_one(tmp_path):
    put(tmp_path, end=".gz")
    with pytest.raises(
        InputError,
        match=r"train-images-idx3-ubyte.gz has the md5 .* for MNIST: it is damaged, .* or gunzip it",
    ):
        idx.mnist(tmp_path)
    put(tmp_path)  # a raw file beside it changes nothing: the one that can be verified goes first
    with pytest.raises(InputError, match="md5"):
        idx.mnist(tmp_path)


@needs_shared
def test_the_published_test_split():
    examples = idx.mnist(SHARED, split="test")
    assert examples.stored.shape == (10000, 1, 28, 28)
    assert examples.factors[:5, 0].tolist() == [7, 2, 1, 0, 4]
    assert torch.bincount(examples.factors[:, 0]).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]


@needs_shared
def test_mnist_is_not_taken_for_fashion_mnist():
    with pytest.raises(InputError, match="for FashionMNIST: it is damaged, or of another data set"):
        idx.fashion_mnist(SHARED, split="test")


@needs_shared
def test_the_first_ten_thousand_stand_in_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING, logger="jensen"):
        examples = idx.mnist(SHARED)
    assert len(examples) == 10000
    assert examples.factors[:5, 0].tolist() == [5, 0, 4, 1, 9]
    assert "train10k-images-idx3-ubyte.gz" in caplog.text
    assert "10000 images" in caplog.text


@pytest.mark.parametrize("end", ["", ".gz"])
def test_one_other_file_stands_in_with_a_warning(tmp_path, caplog, end):
    put(tmp_path, name="train5k", end=end)
    (tmp_path / "train6k-images-idx3-ubyte").write_bytes(encode(IMAGES))  # it has no labels
    (tmp_path / "train7k-images-idx3-ubyte.part").write_bytes(encode(IMAGES))
    assert len(idx.mnist(tmp_path)) == 12
    assert f"train5k-images-idx3-ubyte{end}" in caplog.text
    assert "12 images" in caplog.text


def test_nothing_is_said_of_the_published_name(tmp_path, caplog):
    put(tmp_path)
    put(tmp_path, name="train5k")
    idx.mnist(tmp_path)
    assert not caplog.records


def test_several_other_files_are_refused(tmp_path):
    put(tmp_path, name="train5k")
    put(tmp_path / "MNIST" / "raw", name="train6k", end=".gz")
    with pytest.raises(
        InputError,
        match=r"train5k-images-idx3-ubyte, MNIST/raw/train6k-images-idx3-ubyte.gz: expected one",
    ):
        idx.mnist(tmp_path)


def fetch(url, root, filename, md5):
    """torchvision's `download_url`, without a network."""
    if "down" in url:
        raise URLError("no answer")
    if "wrong" in url:
        (root / filename).write_bytes(b"other content")
        raise RuntimeError("File not found or corrupted.")
    shutil.copy(SHARED / filename, root / filename)


@needs_shared
def test_download_fetches_the_split_from_the_first_mirror_that_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", ["https://down/", "https://up/"])
    monkeypatch.setattr(idx, "download_url", fetch)
    put(tmp_path / "root", name="t10k5")  # does not stand in: a whole set was asked for
    for _ in range(2):
        assert len(idx.mnist(tmp_path / "root", split="test", download=True)) == 10000
        monkeypatch.setattr(MNIST, "mirrors", [])  # the second time nothing is missing
    raw = tmp_path / "root" / "MNIST" / "raw"
    expected = ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]
    assert sorted(path.name for path in raw.iterdir() if path.name != ".lock") == expected


def test_a_failed_download_is_one_sentence_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", ["https://down/", "https://wrong/"])
    monkeypatch.setattr(idx, "download_url", fetch)
    with pytest.raises(
        InputError,
        match=r"train-images-idx3-ubyte.gz could not be downloaded \(.*down.*wrong.*data=sprites",
    ):
        idx.mnist(tmp_path, download=True)
    assert [
        path.name for path in (tmp_path / "MNIST" / "raw").iterdir() if path.name != ".lock"
    ] == []


def test_a_download_into_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "MNIST").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        idx.mnist(tmp_path, download=True)


NAMES = [
    ("{}-images.idx3-ubyte", "{}-labels.idx1-ubyte"),
    ("{}-images-idx3-ubyte", "{}-labels.idx1-ubyte"),
    ("{0}-images-idx3-ubyte/{0}-images-idx3-ubyte", "{0}-labels-idx1-ubyte/{0}-labels-idx1-ubyte"),
    ("{0}-images.idx3-ubyte/{0}-images.idx3-ubyte", "{0}-labels-idx1-ubyte"),
]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("names", NAMES)
def test_the_names_that_archivers_give_are_read_without_a_word(tmp_path, caplog, names, zipped):
    for name, array in zip(names, (IMAGES, LABELS), strict=True):
        for split in ("train", "t10k"):
            path = tmp_path / name.format(split)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(
                gzip.compress(encode(array)) if zipped else encode(array)
            )  # gzipped under a plain name
    for split in ("train", "test"):
        examples = idx.mnist(tmp_path, split)
        assert np.array_equal(examples.stored[:, 0].numpy(), IMAGES)
        assert np.array_equal(examples.factors[:, 0].numpy(), LABELS)
    assert not caplog.records


def test_a_file_that_was_unpacked_and_kept_its_name_is_read(tmp_path):
    path = tmp_path / "some.gz"
    path.write_bytes(encode(IMAGES))
    assert np.array_equal(idx.read(path).numpy(), IMAGES)


@needs_shared
@pytest.mark.parametrize("separator", ["-", "."])
def test_an_archive_that_was_packed_again_is_known_by_what_is_inside(tmp_path, separator):
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        content = gzip.decompress((SHARED / f"t10k-{kind}.gz").read_bytes())
        path = tmp_path / f"t10k-{kind.replace('-idx', f'{separator}idx')}.gz"
        path.write_bytes(gzip.compress(content, 1, mtime=1))
    assert torch.bincount(idx.mnist(tmp_path, "test").factors[:, 0]).tolist()[:3] == [
        980,
        1135,
        1032,
    ]
    with pytest.raises(InputError, match="for FashionMNIST: it is damaged, or of another data set"):
        idx.fashion_mnist(tmp_path, "test")
    path.write_bytes(gzip.compress(content[:-1] + b"\0"))
    with pytest.raises(InputError, match="and so is what is packed in it"):
        idx.mnist(tmp_path, "test")


def test_images_without_labels_are_data_without_factors_and_it_is_said(tmp_path):
    put(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    examples = idx.mnist(tmp_path)
    assert np.array_equal(examples.stored[:, 0].numpy(), IMAGES)
    assert examples.names == examples.sizes == ()
    assert examples.factors.shape == (12, 0)
    assert (
        examples.note
        == f"12 images in {tmp_path / 'train-images-idx3-ubyte'}, without labels: none are beside it"
    )


@pytest.mark.parametrize("kind", ["emnist-letters", "qmnist"])
def test_files_of_another_set_are_named_with_the_choice_that_reads_them(tmp_path, kind):
    put(tmp_path, name=f"{kind}-train")
    expected = rf"lacks train-images-idx3-ubyte .*; {kind}-train-images-idx3-ubyte is there, which data={kind.split('-')[0]} reads"
    with pytest.raises(InputError, match=expected):
        idx.mnist(tmp_path)


def test_labels_of_another_set_under_the_names_of_mnist_are_told_by_their_range(tmp_path):
    put(tmp_path, labels=np.arange(1, 13, dtype=np.uint8))
    with pytest.raises(
        InputError, match=r"has the label 12: expected labels in 0\.\.9; .* set data=emnist"
    ):
        idx.mnist(tmp_path)
