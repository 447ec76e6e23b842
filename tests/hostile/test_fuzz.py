"""The readers of files, fed with anything: a valid result or an InputError, in little memory, and
never another exception.
"""

import gzip
import io
import resource
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jensen.base.errors import InputError
from jensen.callbacks import durable
from jensen.data import codes, dsprites, idx, sprites
from jensen.data.cache import cached
from jensen.diagnostics.from_codes import read_codes

MEMORY = 1 << 29
"""Bytes by which the peak of the process may grow over one test."""


@pytest.fixture(autouse=True)
def little_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


def an_idx():
    rows = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    return b"\0\0\x08\x03" + struct.pack(">3I", *rows.shape) + rows.tobytes()


def an_npz(compressed, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def a_checkpoint():
    file = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.ones(30)}, "global_step": 3, "events": {}}, file)
    return file.getvalue()


CODES = {
    "codes": np.ones((4, 2), np.float32),
    "factors": np.zeros((4, 1), int),
    "names": np.array(["a"]),
}
IMAGES = {"imgs": np.zeros((2, 64, 64), np.uint8)}
SEEDS = {
    "idx": [an_idx()],
    "idx.gz": [gzip.compress(an_idx(), mtime=0)],
    "codes.npz": [an_npz(False, **CODES), an_npz(True, **CODES)],
    "scored.npz": [an_npz(False, **CODES), an_npz(True, **CODES)],
    "dsprites.npz": [an_npz(False, **IMAGES), an_npz(True, **IMAGES)],
    "last.ckpt": [a_checkpoint()],
}
READERS = {
    "idx": idx.read,
    "idx.gz": idx.read,
    "codes.npz": lambda path: codes.codes(str(path)),
    "scored.npz": read_codes,
    "dsprites.npz": lambda path: dsprites.dsprites(path),
    "last.ckpt": durable.read,
}


@st.composite
def damaged(draw, wholes):
    """Anything, or a whole file that is cut, has bytes changed, a stretch repeated or another file
    behind it.
    """
    whole = draw(st.sampled_from(wholes))
    place = st.integers(0, len(whole) - 1)
    match draw(st.integers(0, 5)):
        case 0:
            return draw(st.binary(max_size=200))
        case 1:
            return whole[: draw(place)]
        case 2:
            content = bytearray(whole)
            for at, value in draw(
                st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=4)
            ):
                content[at] = value
            return bytes(content)
        case 3:
            start, end = sorted((draw(place), draw(place)))
            return whole[:end] + whole[start:]
        case 4:
            start = draw(place)
            big = draw(
                st.sampled_from([b"\xff" * 4, b"\x7f" + b"\xff" * 7, b"999999999999", bytes(4)])
            )
            return whole[:start] + big + whole[start + len(big) :]
        case _:
            return whole + draw(st.binary(min_size=1, max_size=50))


def survives(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    said = ""
    try:
        READERS[name](path)
    except InputError as error:
        said = str(error)
    if said:
        assert str(path) in said
        assert ": expected" in said or ", expected" in said
        assert "\n" not in said
    assert path.read_bytes() == content


def fuzzed(examples):
    def test(name, data, tmp_path, monkeypatch):
        monkeypatch.setenv("JENSEN_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(sprites, "SIZES", (1, 1, 1, 1, 2))
        survives(tmp_path, name, data.draw(damaged(SEEDS[name])))

    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    quiet = settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=checks,
    )
    return pytest.mark.parametrize("name", SEEDS)(quiet(given(data=st.data())(test)))


test_any_file_is_read_or_refused = fuzzed(50)
test_many_files_are_read_or_refused = pytest.mark.slow(fuzzed(5000))


@pytest.mark.parametrize("name", SEEDS)
def test_the_whole_files_are_read(tmp_path, monkeypatch, name):
    monkeypatch.setenv("JENSEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sprites, "SIZES", (1, 1, 1, 1, 2))
    for content in SEEDS[name]:
        (tmp_path / name).write_bytes(content)
        assert READERS[name](tmp_path / name) is not None


@pytest.mark.parametrize(
    "shape",
    ["(1000000000000,)", "(1000000, 1000000)", "(9223372036854775807, 2)", "(-5, 2)", "(1 << 60,)"],
)
@pytest.mark.parametrize("name", ["codes.npz", "scored.npz", "dsprites.npz"])
def test_an_array_that_only_claims_to_be_large(tmp_path, monkeypatch, name, shape):
    monkeypatch.setenv("JENSEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sprites, "SIZES", (1, 1, 1, 1, 2))
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(100)
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for part in ("codes", "factors", "imgs"):
            archive.writestr(f"{part}.npy", member)
    with pytest.raises(InputError):
        READERS[name](tmp_path / name)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_damaged_cache_is_made_again(data, tmp_path, monkeypatch):
    monkeypatch.setenv("JENSEN_CACHE", str(tmp_path))
    rows = np.arange(60, dtype=np.uint8).reshape(10, 6)
    path = Path(tmp_path, "rows.npy")
    path.unlink(missing_ok=True)
    cached("rows", rows.shape, lambda: iter([rows]))
    path.write_bytes(data.draw(damaged([path.read_bytes()])))
    assert np.array_equal(cached("rows", rows.shape, lambda: iter([rows])), rows)


@pytest.mark.parametrize("shape", [(10, 5), (9, 6), (60,)])
def test_a_stale_cache_of_another_size_is_made_again(tmp_path, monkeypatch, shape):
    monkeypatch.setenv("JENSEN_CACHE", str(tmp_path))
    cached("rows", shape, lambda: iter([np.zeros(shape, np.uint8)]))
    assert cached("rows", (10, 6), lambda: iter([np.ones((10, 6), np.uint8)])).sum() == 60
