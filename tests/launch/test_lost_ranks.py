"""Two ranks of one command, of which both or one alone cannot go on: one of them says why."""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import shell
from pytorch_lightning import Callback
from ranks import together
from tiny import TINY
from torch import nn

from jensen.base.errors import InputError
from jensen.model import MLPEncoder
from jensen.run import peers

RUN = (
    *TINY, "trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_steps=8",
    "trainer.val_check_interval=4", "trainer.num_sanity_val_steps=0", "diagnostics=[rate]",
)  # fmt: skip
SENTENCE = "the tide is 7: expected less; wait"


class End(Callback):
    """Ends a rank after step 6, by SIGKILL or for bad input; once, where a `file` is to say that it did."""

    def __init__(self, killed, file=None, rank=1):
        self.killed = killed
        self.rank = rank
        self.file = file and Path(file)

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_rank == self.rank and trainer.global_step == 6:
            if self.file and self.file.exists():
                return
            if self.file:
                self.file.touch()
            if self.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise InputError(SENTENCE)


def command(rank, folder, overrides):
    """`python -m jensen.train` as one rank; `folder` has its status, and what it printed."""
    peers.PATIENCE = 1.0
    for stream in (sys.stdout, sys.stderr):
        file = (folder / f"said{rank}").open("a", buffering=1)
        os.dup2(file.fileno(), stream.fileno())
    from jensen import train

    sys.argv = ["jensen.train", *RUN, *overrides, f"hydra.run.dir={folder / 'run'}"]
    status = 0
    try:
        train.main()
    except SystemExit as end:
        status = end.code
    (folder / f"status{rank}").write_text(str(status))


def go(folder, *overrides):
    """The status of each rank that lived, and what each printed."""
    with suppress(AssertionError):  # one may be killed
        together(2, command, folder, overrides, timeout=60)
    files = [folder / f"status{rank}" for rank in range(2)]
    said = ["".join(told(folder / f"said{rank}")) for rank in range(2)]
    return [int(file.read_text()) if file.exists() else None for file in files], said


def told(file):
    """What a rank printed, but for Lightning's word that it is there."""
    lines = file.read_text().splitlines(keepends=True)
    return [line for line in lines if not line.startswith("Initializing distributed")]


def error(folder):
    return json.loads((folder / "run" / "failed.json").read_text())["error"]


def test_a_refusal_that_all_ranks_find_is_printed_once(tmp_path):
    statuses, said = go(tmp_path, "algorithm.steps_per_call=7")
    assert statuses == [1, 1]
    assert "algorithm.steps_per_call is 7 but trainer.strategy" in said[0]
    assert not said[1]
    assert error(tmp_path).startswith("algorithm.steps_per_call is 7")


class Idle(MLPEncoder):
    """An encoder of which a part has no say."""

    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.idle = nn.Linear(3, 3)


def test_a_parameter_without_a_part_in_the_loss_is_named(tmp_path):
    idle = "model.encoder._target_=test_lost_ranks.Idle"
    statuses, said = go(tmp_path, idle)
    assert statuses == [1, 1]
    names = "model.encoder.idle.weight, model.encoder.idle.bias"
    assert f"{names} had no part in the loss of the first step: expected" in said[0]
    assert "Traceback" not in said[0]
    assert not said[1]
    statuses, _ = go(tmp_path, idle, "trainer.strategy=ddp_find_unused_parameters_true")
    assert statuses == [0, 0]


def test_bad_input_that_one_rank_finds_is_one_sentence_and_the_reason(tmp_path):
    end = ("+callbacks.end._target_=test_lost_ranks.End", "+callbacks.end.killed=false")
    statuses, said = go(tmp_path, *end)
    assert statuses == [1, 1]
    assert said[1] == f"{SENTENCE}\n"
    assert "Traceback" not in said[0]
    assert "gloo" not in said[0]
    assert error(tmp_path) == SENTENCE
    assert f"failed: {SENTENCE}" in (tmp_path / "run" / "train.log").read_text()


def test_a_run_of_which_a_rank_is_killed_goes_on(tmp_path):
    end = ("+callbacks.end._target_=test_lost_ranks.End", "+callbacks.end.killed=true")
    statuses, said = go(tmp_path, *end)
    assert statuses == [peers.LOST, None]
    assert "the same command goes on from step 4" in said[0]
    assert "Traceback" not in said[0]
    assert not (tmp_path / "run" / "failed.json").exists()
    statuses, said = go(tmp_path)
    assert statuses == [0, 0]
    assert "continuing in" in said[0]


def test_the_rank_that_is_left_says_that_rank_zero_was_killed(tmp_path):
    end = ("+callbacks.end._target_=test_lost_ranks.End", "+callbacks.end.killed=true")
    statuses, said = go(tmp_path, *end, "+callbacks.end.rank=0")
    assert statuses == [None, peers.LOST]
    assert "jensen: a rank of the run ended (" in said[1]
    assert "the same command goes on from step 4" in said[1]
    assert said[1].count("\n") == 1
    assert not (tmp_path / "run" / "failed.json").exists()
    statuses, _ = go(tmp_path)
    assert statuses == [0, 0]


@pytest.mark.slow
def test_a_sweep_goes_on_with_a_run_of_which_a_rank_is_killed(tmp_path):
    once = (f"+callbacks.end.file={tmp_path / 'killed'}", "+callbacks.end.killed=true")
    line = (
        "-m", *RUN, "+callbacks.end._target_=test_lost_ranks.End", *once, "trainer=ddp", "trainer.devices=2",
        "hydra/launcher=subprocess", "hydra.sweep.dir=sweep", "objective.beta=1,2",
    )  # fmt: skip
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    first = shell.run("jensen.train", *line, cwd=tmp_path, env=path)
    assert "sweep of 2: 1 interrupted, 1 trained" in first.stdout, first.stdout + first.stderr
    assert first.returncode == 1
    assert "was stopped: the same command continues" in first.stderr
    assert not [*tmp_path.rglob("failed.json")]
    assert not [file for file in tmp_path.rglob("train.log") if "Traceback" in file.read_text()]
    again = shell.run("jensen.train", *line, cwd=tmp_path, env=path)
    assert "sweep of 2: 1 continued, 1 skipped" in again.stdout, again.stdout + again.stderr
    assert again.returncode == 0
