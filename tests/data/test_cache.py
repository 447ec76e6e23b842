"""The cache of arrays: complete or absent, made once, and mapped ever after."""

import errno
import logging
import os
import resource
import time
from pathlib import Path

import numpy as np
import pytest
from nursery import SERVER

from jensen.base.errors import InputError
from jensen.data import cache
from jensen.data.cache import cached, folder

SHAPE = (70, 3)
ROWS = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("JENSEN_CACHE", str(tmp_path / "below" / "cache"))
    return tmp_path / "below" / "cache"


def blocks():
    yield from np.split(ROWS, [20, 40])


def never():
    raise AssertionError("built again")


def files(place):
    return sorted(path.name for path in place.iterdir() if path.suffix != ".lock")


def test_the_folder_is_named_by_the_environment(monkeypatch):
    assert folder() == Path(os.environ["JENSEN_CACHE"])
    monkeypatch.setenv("JENSEN_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert folder() == Path("/somewhere/jensen")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/nobody")
    assert folder() == Path("/nobody/.cache/jensen")


def test_the_second_call_maps_what_the_first_one_built(place):
    assert np.array_equal(cached("a", SHAPE, blocks), ROWS)
    assert files(place) == ["a.npy"]
    found = cached("a", SHAPE, never)
    assert isinstance(found, np.memmap)
    assert found.dtype == np.uint8
    assert np.array_equal(found, ROWS)


def test_the_first_call_is_mapped_too(place):
    assert isinstance(cached("a", SHAPE, blocks), np.memmap)


def test_the_file_is_a_plain_npy_that_others_can_read(place):
    cached("a", SHAPE, blocks)
    assert np.array_equal(np.load(place / "a.npy", allow_pickle=False), ROWS)
    assert (place / "a.npy").stat().st_mode & 0o777 == 0o644


def test_blocks_need_not_be_contiguous():
    assert np.array_equal(
        cached("a", SHAPE, lambda: iter([ROWS[:, ::-1][:30], ROWS[30:, ::-1]])), ROWS[:, ::-1]
    )


def test_names_are_kept_apart(place):
    cached("a", SHAPE, blocks)
    assert np.array_equal(cached("b-1", SHAPE, lambda: iter([255 - ROWS])), 255 - ROWS)
    assert np.array_equal(cached("a", SHAPE, never), ROWS)
    assert files(place) == ["a.npy", "b-1.npy"]


@pytest.mark.parametrize("error", [RuntimeError, InputError, KeyboardInterrupt])
def test_a_build_that_fails_midway_leaves_no_file(place, error):
    def failing():
        yield ROWS[:20]
        raise error("midway")

    with pytest.raises(error, match="midway"):
        cached("a", SHAPE, failing)
    assert files(place) == []
    assert np.array_equal(cached("a", SHAPE, blocks), ROWS)


def test_a_build_that_cannot_read_its_source_is_not_run_twice_and_blamed_on_the_folder(
    place, caplog
):
    runs = []

    def failing():
        runs.append(1)
        yield ROWS[:20]
        raise FileNotFoundError(errno.ENOENT, "no such source")

    with pytest.raises((FileNotFoundError, InputError), match="no such source"):
        cached("a", SHAPE, failing)
    assert files(place) == []
    assert len(runs) == 1
    assert "cannot be kept" not in caplog.text


def test_a_file_is_seen_only_when_it_is_complete(place):
    def watching():
        for block in blocks():
            assert not (place / "a.npy").exists()
            yield block

    cached("a", SHAPE, watching)
    assert files(place) == ["a.npy"]


def test_a_file_altered_or_cut_anywhere_is_built_again(place):
    cached("a", SHAPE, blocks)
    path = place / "a.npy"
    content = path.read_bytes()
    places = [0, 9, 20, 127, 128, 200, len(content) - 40, len(content) - 20, len(content) - 1]
    altered = [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in places]
    cut = [content[:at] for at in (*places, 31, 32, 33)]
    for damaged in (*altered, *cut, b"", content + b"\0", b"other content"):
        path.write_bytes(damaged)
        assert np.array_equal(cached("a", SHAPE, blocks), ROWS)
        assert path.read_bytes() == content


@pytest.mark.parametrize("shape", [(35, 6), (71, 3), (210,), (70, 3, 1)])
def test_a_file_of_another_shape_is_built_again(place, shape):
    size = int(np.prod(shape))
    cached("a", shape, lambda: iter([np.arange(size).astype(np.uint8).reshape(shape)]))
    assert np.array_equal(cached("a", SHAPE, blocks), ROWS)
    assert np.array_equal(cached("a", SHAPE, never), ROWS)


@pytest.mark.parametrize(
    "wrong", [ROWS[:-1], ROWS[:-20], np.concatenate([ROWS, ROWS])], ids=["short", "shorter", "long"]
)
def test_a_build_of_another_size_is_refused_and_never_served(wrong):
    with pytest.raises(InputError, match="does not read back as it was written"):
        cached("a", SHAPE, lambda: iter([wrong]))
    assert np.array_equal(cached("a", SHAPE, blocks), ROWS)


def test_leftovers_of_a_killed_process_are_removed(place):
    place.mkdir(parents=True)
    (place / "a.k3j2.partial").write_bytes(b"half")
    (place / "a.x.partial").write_bytes(b"")
    (place / "b.x.partial").write_bytes(b"another array's")
    cached("a", SHAPE, blocks)
    assert files(place) == ["a.npy", "b.x.partial"]


def test_writing_to_the_array_does_not_change_the_file(place):
    array = cached("a", SHAPE, blocks)
    content = (place / "a.npy").read_bytes()
    array[:] = 0
    array.flush()
    assert (place / "a.npy").read_bytes() == content
    assert np.array_equal(cached("a", SHAPE, never), ROWS)


@pytest.mark.parametrize("at", [".", "below", "below/cache"])
def test_where_the_folder_cannot_be_written_the_array_is_built_in_memory_with_a_warning(
    tmp_path, monkeypatch, caplog, at
):
    """A file stands in the folder's way, since nothing is unwritable to root."""
    way = tmp_path / "in_the_way" if at == "." else tmp_path / at
    way.parent.mkdir(exist_ok=True)
    way.write_text("a file")
    if at == ".":
        monkeypatch.setenv("JENSEN_CACHE", str(way / "deep" / "cache"))
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(cached("a", SHAPE, blocks), ROWS)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "a.npy cannot be kept" in record.getMessage()
    assert way.read_text() == "a file"


def test_a_folder_in_the_place_of_the_file_is_no_reason_to_fail(place):
    (place / "a.npy").mkdir(parents=True)
    assert np.array_equal(cached("a", SHAPE, blocks), ROWS)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_with_a_remedy(place, monkeypatch, code):
    def full(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(
        InputError,
        match=rf"a\.npy could not be written \({os.strerror(code)}\): .* free some, or set JENSEN_CACHE",
    ):
        cached("a", SHAPE, blocks)
    monkeypatch.undo()
    assert files(place) == []


def test_a_file_beyond_the_limit_of_the_process_is_refused_and_leaves_nothing(place):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    megabyte = np.zeros((1 << 10, 1 << 10), np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(InputError, match="expected 4 MB of free disk"):
            cached("a", (1 << 12, 1 << 10), lambda: iter([megabyte] * 4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(place) == []


def build_slowly(folder, log):
    """Run in a process of its own."""
    os.environ["JENSEN_CACHE"] = str(folder)

    def slow():
        with Path(log).open("a") as file:
            file.write("built\n")
        for block in blocks():
            time.sleep(0.2)
            yield block

    assert np.array_equal(cached("a", SHAPE, slow), ROWS)


def test_two_processes_at_once_build_once(place, tmp_path):
    processes = [
        SERVER.Process(target=build_slowly, args=(place, tmp_path / "log")) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "log").read_text() == "built\n"
    assert files(place) == ["a.npy"]
