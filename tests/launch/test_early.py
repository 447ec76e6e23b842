"""Answers of a command that need no torch come before it."""

import subprocess
import sys

import pytest

_ASK = """
import runpy, sys
sys.argv = ["jensen.{command}", *{words!r}]
try:
    runpy.run_module("jensen.{command}", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end
assert not {{"torch", "lightning_fabric", "numpy"}} & {{*sys.modules}}
"""


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("train", ["--cfg", "job", "objective=beta_tcvae"], "tc: 6"),
        ("evaluate", ["--help"], "Any diagnostics on a finished run"),
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
