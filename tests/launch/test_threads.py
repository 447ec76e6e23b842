"""As many threads as there are cores for this process."""

import json
import os
import subprocess
import sys
from textwrap import dedent

import pytest
import torch
from threadpoolctl import threadpool_info

from jensen.launch import threads


@pytest.fixture
def many():
    """Two threads, whatever this machine has; put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_cores_are_those_that_the_scheduler_gives(monkeypatch):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert threads.cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(("found", "expected"), [("1", 1), ("0", None), ("", None), ("4000", None)])
def test_cores_are_at_most_those_of_a_task_of_slurm(monkeypatch, found, expected):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    here = threads.cores()
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", found)
    assert threads.cores() == (expected or here)


def test_a_command_takes_no_more_threads_than_cores(monkeypatch, many):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "cores", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    threads.take()
    assert torch.get_num_threads() == 1
    assert all(pool["num_threads"] == 1 for pool in threadpool_info() if pool["user_api"] == "blas")


def test_threads_that_were_asked_for_are_left_alone(monkeypatch, many):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(threads, "cores", lambda: 1)
    threads.take()
    assert torch.get_num_threads() == 2


LATER = """
    import json, os
    {how}
    import scipy.linalg, sklearn.cluster
    from threadpoolctl import threadpool_info
    found = {{pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}}
    print(json.dumps([found, os.environ.get("OMP_NUM_THREADS")]))
"""


@pytest.mark.skipif(threads.cores() < 2, reason="of a machine with several cores")
@pytest.mark.parametrize(
    "how",
    [
        "from jensen.launch.threads import take; take()",
        "from jensen.launch.beside import begin; begin(1)",
    ],
)
def test_libraries_that_are_loaded_later_take_no_more_either(how):
    """Ranks of a run share the cores where no OMP_NUM_THREADS is handed on to them."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    ended = subprocess.run(
        [sys.executable, "-c", dedent(LATER.format(how=how))],
        env=environment | {"SLURM_CPUS_PER_TASK": "1"},
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    found, handed_on = json.loads(ended.stdout)
    assert any("scikit" in path or "sklearn" in path for path in found)
    assert {*found.values()} == {1}
    assert handed_on is None
