"""Work side by side ends with its last item, and with Ctrl-C, whatever its processes have started."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jensen.launch.threads import cores

SCRIPT = """
import os, pathlib, sys, time
from joblib import Parallel, cpu_count, delayed
from jensen.launch.beside import beside

def task(item):
    Parallel(2)(delayed(time.sleep)(0.01) for _ in range(4))  # joblib keeps two processes for later
    pathlib.Path(sys.argv[1], f"{item}").touch()
    time.sleep(float(sys.argv[2]))
    return os.getpid(), cpu_count()

if __name__ == "__main__":
    print([done for done in beside(task, [1, 2, 3], 2)])
"""


def started(folder: Path, seconds: float) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def of_joblib(script: Path) -> list[int]:
    """The processes that joblib has started for a script's."""
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            mine = f"JENSEN_TEST={script}".encode() in place.read_bytes()
            line = (place.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if mine and b"popen_loky" in line:
            found.append(int(place.parent.name))
    return found


@pytest.fixture
def mark(tmp_path, monkeypatch):
    monkeypatch.setenv("JENSEN_TEST", str(tmp_path))
    return tmp_path


def test_the_end_waits_for_no_process_that_joblib_keeps(mark):
    process = started(mark, 0)
    out, err = process.communicate(timeout=120)  # it took five minutes more
    assert process.returncode == 0, err
    done = ast.literal_eval(out)
    assert sorted(item for item, _ in done) == [1, 2, 3]
    assert {count for _, (_, count) in done} == {max(1, cores() // 2)}  # each has its share
    assert {each.name for each in mark.iterdir()} >= {"1", "2", "3"}
    assert not of_joblib(mark)


def test_processes_end_with_a_parent_that_was_killed(mark):
    process = started(mark, 600)
    while not {"1", "2"} <= {each.name for each in mark.iterdir()}:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.kill()
    process.communicate(timeout=60)  # the pipes, which all of them hold, are closed
    assert not of_joblib(mark)


@pytest.mark.slow
def test_ctrl_c_ends_what_joblib_has_started(mark):
    process = started(mark, 600)
    while not {"1", "2"} <= {each.name for each in mark.iterdir()}:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    assert of_joblib(mark)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while of_joblib(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not of_joblib(mark)
