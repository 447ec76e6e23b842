"""What a run makes of a rank that is gone: without a word it is interrupted, with one it failed."""

import json
import subprocess
import sys

import pytest
import torch
from hydra.utils import instantiate
from torch import distributed

from jensen.base.errors import InputError, SaidError
from jensen.base.signals import Stopped
from jensen.run import folder as folders
from jensen.run import peers
from jensen.run.fingerprint import fingerprint
from jensen.run.folder import FAILED, LOST, open_run, standing

PLACE = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] "
CLOSED = RuntimeError(f"{PLACE}Connection closed by peer [::1]:7. This is typically a crash. GLHF!")
LOSSES = (
    CLOSED,
    RuntimeError(f"{PLACE}Read error [::1]:7: Connection reset by peer"),
    RuntimeError(f"Gloo connectFullMesh failed with {PLACE}connect [::1]:7: Connection refused"),
    distributed.DistBackendError("NCCL error: remote process exited or there was a network error"),
    distributed.DistNetworkError("The client socket has timed out after 600000ms"),
    distributed.DistStoreError("Timed out after 601 seconds waiting for clients. 1/2 joined."),
)
OTHERS = (
    RuntimeError("boom"),
    ConnectionRefusedError("Connection refused"),  # a logger's
    distributed.DistBackendError("ncclInvalidUsage: duplicate GPU detected"),
    distributed.DistNetworkError("The server socket has failed to listen: EADDRINUSE"),
)


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch):
    monkeypatch.setattr(peers, "PATIENCE", 0.2)


@pytest.fixture
def cfg(configure):
    return configure("data=blobs", "model=linear", "latent_dim=2", "trainer.max_steps=20")


@pytest.fixture
def lead(monkeypatch):
    """`lead(False)`: this is another rank than zero."""
    return lambda leads: monkeypatch.setattr(folders, "leads", lambda: leads)


def raised(error, cause=None, context=None):
    """An error with what is behind it."""
    error.__context__ = context
    if cause is not None:  # or the context would be hidden
        error.__cause__ = cause
    return error


def go(folder, cfg, error, word=""):
    """An attempt in which a rank may leave a word before this one meets an error."""
    with open_run(folder, cfg) as this:
        this.claim()
        if word:
            (folder / FAILED).unlink(missing_ok=True)
            leave_word(folder, word)
        raise error


def leave_word(folder, sentence):
    (folder / FAILED).write_text(json.dumps({"error": sentence}))


def errors(folder):
    return json.loads((folder / FAILED).read_text())["error"]


@pytest.mark.parametrize("error", LOSSES, ids=str)
def test_a_lost_rank_is_told_wherever_it_is_in_the_chain(error):
    what = peers.lost(error)
    assert what
    assert "GLHF" not in what
    assert peers.lost(raised(RuntimeError("step failed"), cause=error)) == what
    assert peers.lost(raised(InputError("it cannot"), cause=error)) == what
    first = raised(RuntimeError(str(error)), context=KeyError("aside"))
    assert bool(peers.lost(first)) == ("gloo/" in str(error))


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_another_error_is_no_lost_rank(error):
    assert not peers.lost(error)


def test_a_failure_of_ones_own_is_the_reason_though_a_rank_is_lost_after_it():
    assert not peers.lost(raised(RuntimeError(str(CLOSED)), context=InputError("beta is -1")))


def test_a_run_that_lost_a_rank_without_a_word_is_interrupted(cfg, tmp_path, capsys):
    with open_run(tmp_path, cfg) as this:
        this.begin(instantiate(cfg.data))
    (tmp_path / "checkpoints").mkdir()
    torch.save({"global_step": 7}, tmp_path / "checkpoints" / "last.ckpt")
    leave_word(tmp_path, "of the attempt before")
    with pytest.raises(Stopped) as stopped:
        go(tmp_path, cfg, CLOSED)
    assert stopped.value.code == peers.LOST
    said = (
        "a rank of the run ended (Connection closed by peer [::1]:7), and the others cannot go on"
    )
    assert said in capsys.readouterr().out
    assert not (tmp_path / FAILED).exists()
    assert standing(tmp_path, cfg, lambda: fingerprint(instantiate(cfg.data))) == "interrupted"


def test_of_ranks_that_lost_another_one_says_so(cfg, tmp_path, lead, capsys, monkeypatch):
    monkeypatch.setattr(peers, "PATIENCE", 0.1)
    (tmp_path / LOST).touch()  # of the attempt before
    with pytest.raises(Stopped):
        go(tmp_path, cfg, CLOSED)
    lead(False)
    with pytest.raises(Stopped):
        go(tmp_path, cfg, CLOSED)
    assert capsys.readouterr().out.count("the others cannot go on") == 1
    (tmp_path / LOST).unlink()
    for _ in range(2):  # where rank zero is the one that is lost
        with pytest.raises(Stopped):
            go(tmp_path, cfg, CLOSED)
    assert capsys.readouterr().out.count("the others cannot go on") == 1


@pytest.mark.parametrize("leads", [True, False])
def test_a_run_that_lost_a_rank_with_a_word_failed_for_that_reason(cfg, tmp_path, lead, leads):
    lead(leads)
    with pytest.raises(SaidError, match="beta is -1"):
        go(tmp_path, cfg, CLOSED, word="beta is -1")
    assert errors(tmp_path) == "beta is -1"


def test_a_rank_that_fails_alone_leaves_its_word(cfg, tmp_path, lead):
    lead(False)
    with pytest.raises(InputError) as found:
        go(tmp_path, cfg, InputError("beta is -1"))
    assert not isinstance(found.value, SaidError)
    assert errors(tmp_path) == "beta is -1"
    assert standing(tmp_path, cfg, lambda: "") == "failed"
    assert [each.name for each in tmp_path.iterdir()] == [FAILED]


def test_of_ranks_that_all_fail_the_leading_one_says_so(cfg, tmp_path, lead):
    lead(False)
    leave_word(tmp_path, "of the attempt before")
    with pytest.raises(SaidError, match="beta is -1"):
        go(tmp_path, cfg, InputError("beta is -1"), word="beta is -1")


def test_ranks_that_this_process_started_are_named():
    started = [
        subprocess.Popen([sys.executable, "-c", f"import os, sys; {end}"])
        for end in ("sys.exit(3)", "os.kill(os.getpid(), 9)", "sys.exit()")
    ]
    for each in started:
        each.wait()
    assert peers.ended(started) == (
        "rank 1 ended with status 3 and rank 2 was ended by SIGKILL (as where memory is short)"
    )
