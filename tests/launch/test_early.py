"""Answers of a command that need no torch come before it."""

import subprocess
import sys

import pytest
import shell
from runs import QUICK

from jensen.launch.commands import COMMANDS, purpose

_ASK = """
import runpy, sys
sys.argv = ["jensen.{command}", *{words!r}]
try:
    runpy.run_module("jensen.{command}", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end
heavy = {{"torch", "lightning_fabric", "numpy"}} & {{*sys.modules}}
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("train", ["--cfg", "job", "objective=beta_tcvae"], "tc: 6"),
        *((command, ["--help"], purpose(command)[:30]) for command in COMMANDS),
    ],
)
def test_help_and_configuration_import_nothing_that_trains(command, words, said):
    done = subprocess.run(
        [sys.executable, "-c", _ASK.format(command=command, words=words)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_torch_cannot_make_is_one_sentence(command, tmp_path):
    (tmp_path / "file").touch()
    folder = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "file" / "kernels")}
    done = shell.run(f"jensen.{command}", cwd=tmp_path, env=folder)
    assert done.returncode == 1
    assert done.stderr == (
        f"TORCHINDUCTOR_CACHE_DIR is {tmp_path}/file/kernels, which cannot be made (Not a directory):"
        " expected a folder that can be written; set another, or unset it\n"
    )


@pytest.mark.parametrize("command", ["evaluate", "encode", "report"])
@pytest.mark.parametrize("name", ["RANK", "SLURM_PROCID"])
def test_another_rank_than_zero_of_one_process_is_one_sentence(command, name, tmp_path):
    done = shell.run(f"jensen.{command}", cwd=tmp_path, env={name: "1", "WORLD_SIZE": "2"})
    assert done.returncode == 1
    assert done.stderr == (
        f"{name} is 1 in the environment, but jensen.{command} is one process, rank 0: expected no other;"
        f" unset {name}, or start one process alone\n"
    )


def test_a_sweep_and_a_run_that_are_finished_import_nothing_that_trains(tmp_path):
    words = [*QUICK, "trainer.max_steps=10", "diagnostics=[]", "objective.beta=2"]
    sweep = ["-m", f"hydra.sweep.dir={tmp_path / 'sweep'}", *words]
    trained = shell.run("jensen.train", *sweep, cwd=tmp_path)
    assert not trained.returncode, trained.stderr
    (marker,) = tmp_path.glob("sweep/*/finished.json")
    run = [f"hydra.run.dir='{marker.parent}'", *words]
    for asked, said in ((sweep, "sweep of 1: 1 skipped"), (run, "is finished: nothing to do")):
        done = subprocess.run(
            [sys.executable, "-c", _ASK.format(command="train", words=asked)],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    assert "val/elbo" in done.stdout
