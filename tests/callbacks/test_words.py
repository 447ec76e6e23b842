"""Lines for the person at the terminal, who may be gone."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")
SPEAKS = """
import logging, sys
from jensen.callbacks.words import say
logging.root.addHandler(logging.FileHandler(sys.argv[1]))
sys.stdin.readline()
say("one")
say("two")
print("three")
"""


def a_pipe():
    """Where to read, and where to write."""
    return os.pipe()


@pytest.mark.parametrize("made", [a_pipe, pty.openpty])
def test_a_line_that_nobody_reads_is_in_the_log_and_ends_nothing(tmp_path, made):
    read, write = made()
    with subprocess.Popen(
        [sys.executable, "-c", SPEAKS, tmp_path / "log"],
        stdin=subprocess.PIPE, stdout=write, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        os.close(write)
        os.close(read)
        _, err = process.communicate("on\n", timeout=60)
    assert (process.returncode, err) == (0, "")
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == [
        "nobody reads what is said any more: it is in this log alone", "one", "two"
    ]  # fmt: skip


@pytest.mark.skipif(not FULL.exists(), reason="Linux has it")
def test_a_disk_that_is_full_is_no_reader_that_is_gone(tmp_path):
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", SPEAKS, tmp_path / "log"],
            input="on\n", stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode != 0
    assert "No space left on device" in done.stderr
