"""Images from npz and HDF5 files: under any name, in any order of axes, streamed, and no larger
than what is stored.
"""

import gzip
import os
import sys
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from jensen.base.errors import InputError
from jensen.data import arrays
from jensen.data.images import images

LEVELS = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), np.uint8)
GREY = LEVELS[..., 0]
SHAPE = {"channels": 3, "height": 6, "width": 5}
ONE = SHAPE | {"channels": 1}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JENSEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["npz", "npz packed", "h5", "h5 packed"])
def put(request, tmp_path):
    """Writes arrays by name; the path."""

    def write(**named):
        if request.param.startswith("npz"):
            (np.savez_compressed if "packed" in request.param else np.savez)(
                tmp_path / "data.npz", **named
            )
            return tmp_path / "data.npz"
        with h5py.File(tmp_path / "data", "w") as file:  # told by its content
            for name, array in named.items():
                options = (
                    {"compression": "gzip", "chunks": (3, *array.shape[1:])}
                    if "packed" in request.param
                    else {}
                )
                file.create_dataset(name, data=array, **options)
        return tmp_path / "data"

    return write


def stored(examples):
    return examples.decode(examples.stored).numpy()


@pytest.mark.parametrize("block", [1, 100, 1 << 24])
@pytest.mark.parametrize(
    "array", [LEVELS, np.ascontiguousarray(LEVELS.transpose(0, 3, 1, 2))], ids=["last", "first"]
)
def test_colour_images_are_read_in_either_order_of_axes(put, monkeypatch, array, block):
    monkeypatch.setattr(arrays, "_BLOCK", block)
    examples = images(put(images=array, other=LEVELS), **SHAPE)
    assert examples.stored.dtype == torch.uint8
    assert np.array_equal(examples.stored.numpy(), LEVELS.transpose(0, 3, 1, 2))
    assert np.allclose(stored(examples) * 255, examples.stored.numpy(), atol=1e-4)
    assert examples.names == ()
    assert examples.note.startswith("20 images images in ")


@pytest.mark.parametrize(
    "array", [GREY, GREY[..., None], GREY[:, None]], ids=["none", "last", "first"]
)
def test_grey_images_need_no_axis_of_channels(put, array):
    assert np.array_equal(images(put(images=array), **ONE).stored.numpy(), GREY[:, None])


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_zeros_and_ones_are_black_and_white(put, dtype):
    examples = images(put(imgs=(GREY > 99).astype(dtype)), **ONE)
    assert np.array_equal(stored(examples)[:, 0], (GREY > 99).astype(np.float32))
    assert examples.note.endswith(", of zeros and ones")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8"])
def test_floating_point_numbers_are_taken_as_they_are(put, dtype):
    array = (np.random.default_rng(1).normal(size=(20, 6, 5)) * 100).astype(dtype)
    examples = images(put(images=array), **ONE)
    assert examples.stored.dtype == torch.float32
    assert np.array_equal(stored(examples)[:, 0], array.astype(np.float32))
    assert not examples.bytewise


def test_factors_are_numbered_by_their_values_in_order(put):
    rng = np.random.default_rng(2)
    labels = np.stack(
        [rng.choice([-30.0, 0.5, 30.0], 20), np.arange(20) % 7, rng.choice([0.1, 0.2], 20)], 1
    )
    path = put(images=LEVELS, labels=labels, classes=np.arange(1, 21) // 2)
    examples = images(path, **SHAPE, factors="labels")
    assert examples.names == ("labels_0", "labels_1", "labels_2")
    assert examples.sizes == (3, 7, 2)
    for column, values in enumerate(([-30.0, 0.5, 30.0], range(7), [0.1, 0.2])):
        assert [[*values][place] for place in examples.factors[:, column]] == labels[
            :, column
        ].tolist()
    assert images(path, **SHAPE, factors="labels", names=["a", "b", "c"]).names == ("a", "b", "c")
    single = images(path, **SHAPE, factors="classes")
    assert (single.names, single.sizes) == (("classes",), (11,))
    assert single.factors[:, 0].tolist() == (np.arange(1, 21) // 2).tolist()


def test_the_only_array_of_the_shape_is_found(put):
    path = put(pictures=LEVELS, labels=np.arange(20), masks=GREY)
    assert len(images(path, **SHAPE)) == 20
    assert images(path, **ONE).note.startswith("20 images masks in ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            r"holds a uint8 \(20, 6, 5, 3\), b uint8 \(20, 6, 5, 3\), .*c .*: expected one array"
            r" .*set data.images to its name",
        ),
        ({"images": "imgs"}, r"images is 'imgs' but .* holds a uint8 .*: expected the name of one"),
        (
            {"images": "a", "height": 7},
            r"has a uint8 \(20, 6, 5, 3\): expected \(N, 7, 5, 3\) or .*set data.x_shape",
        ),
        ({"images": "wide"}, r"has wide uint16 .*: expected uint8, bool or floating"),
        ({"images": "a", "factors": "d"}, "factors is 'd': expected one of a, b"),
        ({"images": "a", "factors": "short"}, r"has short int64 \(19,\): expected factors \(20,\)"),
        ({"images": "a", "factors": "b"}, r"has b uint8 .*: expected factors"),
        (
            {"images": "a", "factors": "nan"},
            r"has a factor nan of 20 values, 0.0 to nan: expected at most 1000, all finite",
        ),
        (
            {"images": "a", "factors": "c", "names": ["x", "y"]},
            r"names is \['x', 'y'\] but c has 1 columns",
        ),
        ({"images": "a", "factors": "c", "names": 7}, "names is 7: expected a list"),
        ({"channels": 0}, "channels is 0: expected an integer"),
    ],
)
def test_what_does_not_fit_is_refused_and_what_is_there_is_named(put, options, message):
    numbers = np.arange(20.0)
    path = put(
        a=LEVELS,
        b=LEVELS,
        c=np.arange(20),
        short=np.arange(19),
        wide=LEVELS.astype(np.uint16),
        nan=np.where(numbers > 18, np.nan, numbers),
    )
    with pytest.raises(InputError, match=message):
        images(path, **(SHAPE | options))


def test_measurements_are_no_factors(put, monkeypatch):
    path = put(images=np.zeros((1500, 6, 5, 3), np.uint8), labels=np.arange(1500) / 7)
    with pytest.raises(InputError, match="has a factor labels of 1500 values"):
        images(path, **SHAPE, factors="labels")


def test_it_is_read_once_and_again_when_it_changes(put, cache, monkeypatch):
    path = put(images=LEVELS)
    images(path, **SHAPE)
    read = []
    stream = arrays.stream
    monkeypatch.setattr(
        "jensen.data.images.stream", lambda *names: read.append(names) or stream(*names)
    )
    images(path, **SHAPE)
    assert not read
    os.utime(path, ns=(0, 1))
    images(path, **SHAPE)
    assert len(read) == 1
    assert len([*cache.glob("images-*.npy")]) == 2


def test_a_file_cut_anywhere_is_one_sentence(put, cache):
    path = put(images=LEVELS, labels=np.arange(20))
    content = path.read_bytes()
    for cut in [0, 1, 7, 8, 100, *range(200, len(content) - 1, len(content) // 9)]:
        path.write_bytes(content[:cut])
        with pytest.raises(InputError, match=f"{path.name} (cannot be read|has|holds)"):
            images(path, **SHAPE, factors="labels")


@pytest.mark.parametrize("content", [b"", b"no file of arrays", b"\x80\x04cos\nsystem\n."])
def test_another_file_is_one_sentence(tmp_path, content):
    (tmp_path / "data").write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    for name in ("data", "absent", ".", "pipe"):
        with pytest.raises(InputError, match=r"cannot be read \(.*: expected a whole npz or HDF5"):
            images(tmp_path / name)


def test_an_npy_file_and_a_packed_one_are_told_what_to_do(tmp_path):
    array = np.zeros((2, 8, 8, 3), np.uint8)
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(
        InputError,
        match=r"x.npy is one array without a name: expected an npz .* save it with numpy.savez",
    ):
        images(tmp_path / "x.npy", 3, 8, 8)
    np.savez(tmp_path / "x.npz", array)
    (tmp_path / "x.npz").write_bytes(gzip.compress((tmp_path / "x.npz").read_bytes()))
    with pytest.raises(
        InputError, match=r"x.npz is packed by gzip: expected the npz .* unpack it with gunzip"
    ):
        images(tmp_path / "x.npz", 3, 8, 8)


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "data.npz", images=np.array([{"a": 1}] * 20, dtype=object), pictures=LEVELS)
    with pytest.raises(InputError, match=r"has images object \(20,\): expected"):
        images(tmp_path / "data.npz", **SHAPE)
    assert len(images(tmp_path / "data.npz", **SHAPE, images="pictures")) == 20


def test_images_in_fortran_order_are_refused(tmp_path):
    np.savez(tmp_path / "data.npz", images=np.asfortranarray(LEVELS))
    with pytest.raises(InputError, match="in Fortran order: expected C order"):
        images(tmp_path / "data.npz", **SHAPE)


def claim(path, kind):
    """A small file whose header claims 3 TB of images."""
    shape = (1 << 35, 6, 5, 3)
    if kind == "npz":
        with zipfile.ZipFile(path, "w") as archive, archive.open("images.npy", "w") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": shape}
            )
            file.write(bytes(1000))
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("images", shape, "u1", chunks=(100, 6, 5, 3), compression="gzip")


@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_an_array_that_is_only_claimed_is_refused_before_anything_is_written(tmp_path, cache, kind):
    claim(tmp_path / "data", kind)
    tracemalloc.start()
    try:
        with pytest.raises(
            InputError,
            match=r"has a images of 3,092,376 MB packed in .*: expected at most 250 times",
        ):
            images(tmp_path / "data", **SHAPE)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert not [*cache.glob("*.npy")]


def test_a_bomb_of_zeros_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "data.npz", images=np.zeros((60_000, 6, 5, 3), np.uint8))
    with pytest.raises(
        InputError, match=r"has a images of 5 MB packed in .* save it without compression"
    ):
        images(tmp_path / "data.npz", **SHAPE)


def test_no_other_file_is_read_through_an_hdf5_file(tmp_path):
    (tmp_path / "secret").write_bytes(LEVELS.tobytes())
    with h5py.File(tmp_path / "other", "w") as file:
        file["images"] = LEVELS
    with h5py.File(tmp_path / "data", "w") as file:
        file.create_dataset(
            "a", LEVELS.shape, "u1", external=[(tmp_path / "secret", 0, LEVELS.nbytes)]
        )
        layout = h5py.VirtualLayout(LEVELS.shape, "u1")
        layout[:] = h5py.VirtualSource(tmp_path / "other", "images", LEVELS.shape)
        file.create_virtual_dataset("b", layout)
        file["c"] = h5py.ExternalLink(tmp_path / "other", "images")
    for name in ("a", "b"):
        with pytest.raises(InputError, match=f"has a {name} that lies in other files"):
            images(tmp_path / "data", **SHAPE, images=name)
    with pytest.raises(InputError, match="images is 'c' but"):
        images(tmp_path / "data", **SHAPE, images="c")


def test_without_h5py_an_npz_file_is_read_and_an_hdf5_file_names_the_extra(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["images"] = LEVELS
    np.savez(tmp_path / "data.npz", images=LEVELS)
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert len(images(tmp_path / "data.npz", **SHAPE)) == 20
    with pytest.raises(InputError, match=r"needs h5py, .*pip install 'jensen\[hdf5\]'"):
        images(tmp_path / "data.h5", **SHAPE)


def test_its_choice_composes(configure, put):
    path = put(images=LEVELS, labels=np.arange(20) % 4)
    cfg = configure(
        "data=images",
        f"data.path={path}",
        "data.x_shape=[3,6,5]",
        "data.factors=labels",
        "data.validation=5",
    )
    data = instantiate(cfg.data)
    assert data.show(2).shape == (2, 3, 6, 5)
    assert data.examples("train").sizes == (4,)
