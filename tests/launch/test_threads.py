"""As many threads as there are cores for this process."""

import os

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
