"""Checkpoints on the disk: whole or not there, and never taken for whole when they are not."""

import io
import os
import pickle
import random
import resource
import signal
import time

import pytest
import torch

from jensen.base.errors import InputError
from jensen.base.files import write
from jensen.callbacks.durable import Durable, read

SAVED = {
    "state_dict": {"weight": torch.arange(300.0), "bias": torch.ones(3)},
    "global_step": 7,
    "names": ["a", "b"],
}


def content(saved) -> bytes:
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    return buffer.getvalue()


def same(found) -> bool:
    tensors = all(
        torch.equal(found["state_dict"][name], SAVED["state_dict"][name])
        for name in SAVED["state_dict"]
    )
    return tensors and found["global_step"] == 7 and found["names"] == ["a", "b"]


def test_what_is_saved_is_read(tmp_path):
    Durable().save_checkpoint(SAVED, tmp_path / "new" / "last.ckpt")
    assert same(read(tmp_path / "new" / "last.ckpt"))
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_is_stopped_amid_a_file_leaves_none(tmp_path, stop):
    def stopped(file):
        file.write(b"half")
        raise stop

    with pytest.raises(stop):
        write(tmp_path / "codes.npz", stopped)
    assert not [*tmp_path.iterdir()]


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path):
    whole = content(SAVED)
    path = tmp_path / "last.ckpt"
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"last.ckpt cannot be read \("):
            read(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch, of a flipped one
def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path):
    """torch.load alone takes most of these files and gives other weights."""
    whole = content(SAVED)
    path = tmp_path / "last.ckpt"
    chance = random.Random(0)
    silent = 0
    for place in range(0, len(whole), 5):
        changed = bytearray(whole)
        changed[place] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            found = read(path)
        except InputError:
            silent += loads(path)
            continue
        assert same(found), place
    assert silent > 100  # so the check is needed


def loads(path) -> bool:
    try:
        torch.load(path, weights_only=True)
    except Exception:
        return False
    return True


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("was-run",)


@pytest.mark.parametrize(
    "saved", [Malicious(), {"state_dict": {}, "global_step": Malicious()}, [1], {"state_dict": {}}]
)
def test_anything_else_is_refused_and_not_run(tmp_path, monkeypatch, saved):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.ckpt"
    path.write_bytes(content(saved))
    with pytest.raises(InputError, match="expected a whole checkpoint"):
        read(path)
    path.write_bytes(pickle.dumps(saved))
    with pytest.raises(InputError, match="expected a whole checkpoint"):
        read(path)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "last.ckpt"
    Durable().save_checkpoint(SAVED, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(
            InputError, match=r"last.ckpt cannot be written \(.*what was there is kept"
        ):
            Durable().save_checkpoint(SAVED | {"global_step": 8}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same(read(path))
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_process_that_is_killed_while_it_writes_leaves_one_or_the_other(tmp_path):
    path = tmp_path / "last.ckpt"
    chance = random.Random(0)
    seen = set()
    whole = [
        content(SAVED | {"global_step": step}) * 200 for step in range(2)
    ]  # some 1 MB, in parts
    write(path, lambda file: file.write(whole[0]))
    for _ in range(20):
        if not (child := os.fork()):
            for step in range(10_000):
                write(
                    path,
                    lambda file, step=step: [
                        file.write(whole[step % 2][part : part + 4096])
                        for part in range(0, 10**6, 4096)
                    ],
                )
        time.sleep(chance.uniform(0.01, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = path.read_bytes()
        assert found[: 10**6] in (whole[0], whole[0][: 10**6], whole[1][: 10**6])
        seen.add(found[: 10**6] == whole[1][: 10**6])
    assert seen == {True, False}
