"""Disks that are full or read-only: one sentence, and what was there is there still."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from commands import contents, run_here, sentence
from conftest import QUICK

from jensen import encode, evaluate
from jensen import train as training
from jensen.base.errors import InputError
from jensen.data.cache import cached
from jensen.launch.training import train


@pytest.fixture
def disk(tmp_path):
    """`disk(size)` is a file system of its own; skipped where it may not be mounted."""
    mounted = []

    def mount(size):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def read_only(disk, run):
    """The finished run on a disk that cannot be written."""
    folder = disk("20m")
    subprocess.run(["cp", "-r", run, folder / "run"], check=True)
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    return folder / "run"


def refused(capsys, main, *words):
    ended = run_here(capsys, main, *words)
    assert ended.status == 1
    return sentence(ended.err)


def test_evaluating_on_a_read_only_disk(capsys, read_only):
    assert "cannot be written" in refused(
        capsys, evaluate.main, f"run={read_only}", "diagnostics=[rate]"
    )


def test_scores_of_a_read_only_run_go_elsewhere(capsys, read_only, tmp_path):
    ended = run_here(
        capsys,
        evaluate.main,
        f"run={read_only}",
        "diagnostics=[rate]",
        f"out={tmp_path / 'scores.json'}",
    )
    assert ended.status == 0, ended.err
    assert (tmp_path / "scores.json").exists()


def test_encoding_onto_a_read_only_disk(capsys, read_only):
    said = refused(capsys, encode.main, f"run={read_only}", f"out={read_only.parent / 'codes.npz'}")
    assert "codes.npz cannot be written (Read-only file system)" in said


def test_training_on_a_read_only_disk(configure, read_only):
    before = contents(read_only)
    with pytest.raises(
        InputError, match=r"cannot be written \(Read-only file system\): expected a folder of yours"
    ):
        train(configure(*QUICK, "trainer.max_steps=9"), read_only)
    assert contents(read_only) == before


@pytest.mark.parametrize("room", ["4k", "200k", "900k"])
def test_training_on_a_full_disk(capsys, disk, room):
    folder = disk(room)
    assert refused(capsys, training.main, *QUICK, f"hydra.run.dir={folder / 'run'}")
    assert not list(folder.rglob("*.partial"))
    assert not (folder / "run" / "finished.json").exists()


def test_a_run_goes_on_once_there_is_room(capsys, disk, run):
    folder = disk("20m")
    here = folder / "run"
    subprocess.run(["cp", "-r", run, here], check=True)
    (here / "finished.json").unlink()
    filled = subprocess.run(
        ["dd", "if=/dev/zero", f"of={folder / 'filler'}", "bs=4k"], capture_output=True, text=True
    )
    assert "No space left" in filled.stderr
    before = contents(here / "checkpoints")
    longer = [*QUICK[:-3], "trainer.max_steps=9", *QUICK[-2:]]
    assert refused(capsys, training.main, *longer, f"hydra.run.dir={here}")
    assert contents(here / "checkpoints") == before
    (folder / "filler").unlink()
    assert run_here(capsys, training.main, *longer, f"hydra.run.dir={here}").status == 0


def test_codes_on_a_full_disk(capsys, disk, run):
    folder = disk("4k")
    assert "No space left" in refused(
        capsys, encode.main, f"run={run}", f"out={folder / 'codes.npz'}"
    )
    assert not contents(folder).get("codes.npz")
    assert not list(folder.rglob("*.partial"))


def test_a_cache_on_a_full_disk(disk, monkeypatch):
    monkeypatch.setenv("JENSEN_CACHE", str(disk("64k")))
    with pytest.raises(
        InputError,
        match=r"rows.npy could not be written \(No space left on device\): expected 1 MB of free disk",
    ):
        cached("rows", (1000, 1000), lambda: iter(np.zeros((10, 100, 1000), np.uint8)))
    assert not list(Path(disk("4k")).rglob("*.partial"))


def test_a_cache_on_a_read_only_disk_is_made_in_memory(disk, monkeypatch):
    folder = disk("64k")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    monkeypatch.setenv("JENSEN_CACHE", str(folder / "cache"))
    assert cached("rows", (2, 3), lambda: iter([np.ones((2, 3), np.uint8)])).sum() == 6
