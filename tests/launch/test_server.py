"""Jobs that are forked from a process that has imported all: what each is, is what a fresh one is."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from ranks import together
from runs import QUICK

from jensen.launch import processes, server

WORDS = (*QUICK, "diagnostics=[]", "trainer.max_steps=4", "trainer.val_check_interval=2")
LONG = (*WORDS, "trainer.max_steps=1000000", "trainer.val_check_interval=1000000")


@pytest.fixture(autouse=True)
def _forked(monkeypatch):
    """By the tests' own server, whose modules are more."""
    monkeypatch.setattr(processes, "can_fork", server.can_fork)
    monkeypatch.setattr(server._CONTEXT, "set_forkserver_preload", lambda _: None)


def job(folder, *words):
    return SimpleNamespace(folder=folder, overrides=words, problem="")


@pytest.fixture
def started(tmp_path):
    """`started(*words, at_once=1)`: a job in `tmp_path/run`, which no test leaves behind."""
    begun = []

    def start(*words, at_once=1, slot=None):
        begun.append(processes.start(job(tmp_path / "run", *words), slot, [], at_once))
        return begun[-1]

    yield start
    for process in begun:
        processes.end(process)


def training(folder):
    """Waits until steps are taken."""
    for _ in range(1200):
        if "training in" in (folder / "train.log").read_text():
            return
        time.sleep(0.05)
    pytest.fail((folder / "train.log").read_text())


def test_jobs_are_whole_runs_and_a_failing_one_stops_no_other(tmp_path):
    jobs = [
        job(tmp_path / "a run", *WORDS, "seed=1"),
        job(tmp_path / "bad", *WORDS, "data.batch_size=-1"),
    ]
    processes.run(jobs, [None], ["hydra/job_logging=stdout"])
    done = json.loads((tmp_path / "a run" / "finished.json").read_text())
    assert done["step"] == 4
    said = (tmp_path / "a run" / "train.log").read_text()
    assert f"training in {tmp_path / 'a run'}" in said
    assert "Warning" not in said
    assert [each.problem for each in jobs] == [
        "",
        f"ended with status 1, see {tmp_path / 'bad' / 'train.log'}",
    ]
    said = (tmp_path / "bad" / "train.log").read_text()
    assert "data.batch_size is -1" in said
    assert "Traceback" not in said


def test_the_end_of_a_job_waits_for_no_process_that_joblib_keeps(tmp_path, started):
    words = [word for word in WORDS if not word.startswith("diagnostics=")]
    process = started(*words, "diagnostics=[dci_boost20]", "+diagnostics.dci_boost20.jobs=2")
    assert process.wait(120) == 0, (tmp_path / "run" / "train.log").read_text()
    assert (
        "dci_boost20/dci_boost20"
        in json.loads((tmp_path / "run" / "finished.json").read_text())["results"]
    )


def test_a_job_that_is_asked_to_stop_saves_itself(tmp_path, started):
    process = started(*LONG)
    training(tmp_path / "run")
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    said = (tmp_path / "run" / "train.log").read_text()
    assert "stopped by SIGTERM at step" in said
    assert "the same command continues" in said


def test_a_job_ends_with_its_sweep_or_by_a_kill(tmp_path, started):
    ends = (
        lambda process: process.stdin.close(),
        lambda process: os.killpg(process.pid, signal.SIGKILL),
    )
    for end in ends:
        process = started(*LONG)
        training(tmp_path / "run")
        end(process)
        assert process.wait(60) == -signal.SIGKILL
        (tmp_path / "run" / "train.log").unlink()


OWN = """
import os, torch
from pytorch_lightning import Callback

class Tell(Callback):
    def on_train_start(self, *_):
        told = [os.environ[name] for name in ("LOKY_MAX_CPU_COUNT", "CUDA_VISIBLE_DEVICES")]
        print("told", torch.get_num_threads(), *told, os.getpgrp() == os.getpid())
"""


def test_a_job_has_threads_and_gpus_of_its_own_and_modules_of_the_folder(
    tmp_path, started, monkeypatch
):
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(processes, "cores", lambda: 6)
    process = started(*WORDS, "+callbacks.tell._target_=own.Tell", at_once=2, slot=("1", "5"))
    assert process.wait(120) == 0, (tmp_path / "run" / "train.log").read_text()
    assert "told 3 3 1,5 True" in (tmp_path / "run" / "train.log").read_text()


WARNING = """
import sys, warnings
from pytorch_lightning import Callback

class Warns(Callback):
    def on_train_start(self, *_):
        assert "__mp_main__" in sys.modules  # it was forked, from a server of the command's own
        warnings.warn("mine is odd", RuntimeWarning)
"""


@pytest.mark.skipif(not server.can_fork(), reason="jobs are forked on Linux alone")
def test_a_job_says_its_own_warnings_and_none_of_its_being_forked(tmp_path):
    """By a command of its own: here there is no `__main__` that multiprocessing runs again."""
    (tmp_path / "own.py").write_text(WARNING)
    words = (*WORDS, "+callbacks.own._target_=own.Warns", "hydra/launcher=subprocess")
    ended = subprocess.run(
        [sys.executable, "-m", "jensen.train", "-m", *words, "hydra.sweep.dir=s", "seed=1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(tmp_path)])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    (log,) = (tmp_path / "s").glob("*/train.log")
    assert "RuntimeWarning: mine is odd" in log.read_text()
    assert log.read_text().count("Warning:") == 1


def asks_for_no_gpu(rank):
    import jensen.launch.warm  # noqa: F401

    assert not torch.cuda.is_initialized()
    assert torch.cuda._cached_device_count is None
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert {signal.SIGTERM, signal.SIGUSR1} <= blocked


def test_nothing_of_cuda_is_in_the_server_and_what_asks_to_end_waits():
    together(1, asks_for_no_gpu)
