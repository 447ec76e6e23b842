"""The original npz file of dSprites: what is read of it, and what is refused."""

import os
import zipfile

import numpy as np
import pytest
import torch

from jensen.base.errors import InputError
from jensen.data import dsprites as reader
from jensen.data import sprites
from jensen.data.dsprites import dsprites

SMALL = (3, 2, 3, 4, 2)
"""A grid of 144 images in place of the 737,280."""


class Payload:
    """Makes the folder `path` when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("JENSEN_CACHE", str(folder))
    return folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(sprites, "SIZES", SMALL)
    monkeypatch.setattr(reader, "_BLOCK", 50)  # two whole blocks and a part of one


def draw():
    return sprites.render(sprites.grid())


def put(path, save=np.savez_compressed, **arrays):
    """An npz file with the members of the original, `arrays` in place of its own; None leaves one
    out.
    """
    payload = np.array(Payload(path.parent / "unpickled"), dtype=object)
    members = {
        "metadata": payload,
        "imgs": draw(),
        "latents_classes": sprites.grid().astype(np.int64),
    } | arrays
    save(path, **{name: array for name, array in members.items() if array is not None})
    return path


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_rows_and_factors_are_those_of_the_sprites(tmp_path, save):
    path = put(tmp_path / "file.npz", save)
    for options in (
        {},
        {"factors": ["posX", "shape"]},
        {"size": 20, "seed": 3},
        {"factors": ["scale", "posY"], "size": 3},
        {"values": {"posX": [1, 3], "shape": [2]}},
    ):
        found = dsprites(str(path), **options)
        expected = sprites.sprites(**options)
        assert torch.equal(found.stored, expected.stored)
        assert torch.equal(found.factors, expected.factors)
        assert (found.names, found.sizes) == (expected.names, expected.sizes)
        assert torch.equal(found.decode(found.stored), expected.decode(expected.stored))


@pytest.mark.usefixtures("small")
def test_the_rows_are_the_files_own(tmp_path):
    images = np.random.default_rng(0).integers(0, 2, (144, 64, 64), np.uint8)
    examples = dsprites(put(tmp_path / "file.npz", imgs=images))
    assert np.array_equal(examples.decode(examples.stored)[:, 0].numpy(), images)
    few = dsprites(tmp_path / "file.npz", size=10)
    rows = np.ravel_multi_index(tuple(few.factors.long().numpy().T), SMALL)
    assert np.array_equal(few.decode(few.stored)[:, 0].numpy(), images[rows])


@pytest.mark.usefixtures("small")
def test_metadata_is_never_unpickled(tmp_path):
    path = put(tmp_path / "file.npz")
    dsprites(path)
    assert not (tmp_path / "unpickled").exists()
    with np.load(path, allow_pickle=True) as file:
        file["metadata"]  # the payload does work
    assert (tmp_path / "unpickled").exists()


@pytest.mark.usefixtures("small")
def test_imgs_of_objects_are_refused_unopened(tmp_path):
    path = put(tmp_path / "file.npz", imgs=np.array(Payload(tmp_path / "unpickled"), dtype=object))
    with pytest.raises(InputError, match="imgs of object"):
        dsprites(path)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.usefixtures("small")
def test_a_second_run_maps_the_cache(tmp_path, cache, monkeypatch):
    path = put(tmp_path / "file.npz")
    first = dsprites(path).stored.clone()
    monkeypatch.setattr(reader, "_blocks", lambda *_: pytest.fail("unpacked again"))
    os.utime(path, (0, 0))
    assert torch.equal(dsprites(path).stored, first)
    assert torch.equal(dsprites(path.rename(tmp_path / "moved.npz")).stored, first)
    assert len(list(cache.glob("dsprites-*.npy"))) == 1


@pytest.mark.usefixtures("small")
def test_an_altered_file_is_another_set(tmp_path):
    path = put(tmp_path / "file.npz")
    dsprites(path)
    put(path, imgs=1 - draw())
    examples = dsprites(path)
    assert np.array_equal(examples.decode(examples.stored)[:, 0].numpy(), 1 - draw())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("imgs", "message"),
    [
        (None, "holds metadata.npy, latents_classes.npy: expected imgs.npy"),
        (
            np.zeros((143, 64, 64), np.uint8),
            r"imgs of uint8 \(143, 64, 64\): expected uint8 \(144, 64, 64\)",
        ),
        (np.zeros((144, 4096), np.uint8), r"imgs of uint8 \(144, 4096\)"),
        (np.zeros((144, 64, 64), bool), "imgs of bool"),
        (np.zeros((144, 64, 64), np.uint8, order="F"), "in Fortran order"),
        (np.full((144, 64, 64), 255, np.uint8), "imgs with the value 255: expected zeros and ones"),
    ],
)
def test_other_arrays_are_refused(tmp_path, cache, imgs, message):
    path = put(tmp_path / "file.npz", imgs=imgs)
    with pytest.raises(InputError, match=f"file.npz .*{message}.*data=sprites"):
        dsprites(path)
    assert not list(cache.glob("*.npy"))
    assert not list(cache.glob("*.partial"))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "without a readable header"),
        (b"\x93NUMPY\x01\x00\xff", "without a readable header"),
        (b"\x93NUMPY\x01\x00\x04\x00 {(\n", "without a readable header"),
        (b"\x93NUMPY\x09\x00", "without a readable header"),
        ("short", "end after image 99: expected 144"),
        ("long", "bytes behind its imgs"),
    ],
)
def test_a_damaged_member_is_refused(tmp_path, content, message):
    header = tmp_path / "imgs.npy"
    np.save(header, np.zeros((144, 64, 64), np.uint8))
    whole = header.read_bytes()
    chosen = {"short": whole[: 128 + 99 * 4096 + 7], "long": whole + b"\0"}.get(content, content)
    with zipfile.ZipFile(tmp_path / "file.npz", "w") as archive:
        archive.writestr("imgs.npy", chosen)
    with pytest.raises(InputError, match=f"file.npz has .*{message}.*data=sprites"):
        dsprites(tmp_path / "file.npz")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_cut_or_altered_file_is_refused(tmp_path, save):
    path = put(tmp_path / "file.npz", save, metadata=None, latents_classes=None)
    content = path.read_bytes()
    random = np.random.default_rng(0)
    for cut in random.integers(0, len(content), 20):
        path.write_bytes(content[:cut])
        with pytest.raises(InputError, match=r"file.npz .*data=sprites"):
            dsprites(path)
    for place in random.integers(200, len(content) - 200, 20):  # within the images
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(InputError, match=r"file.npz .*data=sprites"):
            dsprites(path)


def test_what_is_no_npz_file_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    for path in (tmp_path / "absent.npz", tmp_path, tmp_path / "file"):
        with pytest.raises(InputError, match=f"{path} cannot be read .*data=sprites"):
            dsprites(path)


def test_other_options_are_refused_before_the_file_is_read(tmp_path):
    for options in (
        {"factors": ["colour"]},
        {"factors": []},
        {"size": 0},
        {"size": 737281},
        {"factors": ["shape"], "size": 4},
    ):
        with pytest.raises(InputError, match=f"^{list(options)[-1]} is "):
            dsprites(tmp_path / "absent.npz", **options)


@pytest.mark.slow
def test_a_file_of_full_size(tmp_path):
    path = tmp_path / "file.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("imgs.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(
            member, {"descr": "|u1", "fortran_order": False, "shape": (737280, 64, 64)}
        )
        for block in np.split(sprites.grid(), 90):
            member.write(sprites.render(block).data)
    found = dsprites(path)
    expected = sprites.sprites()
    assert torch.equal(found.stored, expected.stored)
    assert torch.equal(found.factors, expected.factors)
