"""Jobs on a real SLURM: submitted, preempted, timed out, requeued, and equal to those that were
not.
"""

import subprocess
import sys
import time

import pytest
import torch
from runs import scalar, weights
from tiny import TINY

pytestmark = pytest.mark.slurm

SHORT = (
    *TINY,
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=5",
    "trainer.val_check_interval=60",
    "diagnostics=[rate]",
)
PACED = (
    *SHORT,
    "trainer.max_steps=300",
    "+callbacks.pace._target_=pace.Pace",
    "+callbacks.pace.seconds=0.05",
)
TWO = ("--ntasks-per-node=2",)


def assert_same(one, other):
    """The bytes of the weights, the scalars that were logged and the files that are left."""
    expected = weights(one)
    found = weights(other)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    for tag in ("train/loss", "val/elbo"):
        assert scalar(one, tag) == scalar(other, tag)
    files = [
        sorted(path.name for path in (folder / "checkpoints").iterdir()) for folder in (one, other)
    ]
    assert files[0] == files[1] == ["best.ckpt", "last.ckpt", "last.previous.ckpt"]


def started(cluster, job):
    """Whether a process of the job is there."""
    return bool(
        cluster.call("squeue", "--steps", "--noheader", f"--jobs={job}", timeout=60).strip()
    )


def restarts(cluster, job):
    return int(cluster.show(job)["Restarts"])


@pytest.fixture(scope="module")
def whole(one_node):
    """Runs that nothing disturbed, on one rank and on two."""
    jobs = one_node.submit(*PACED), one_node.submit(*PACED, "trainer=ddp", options=TWO)
    for job in jobs:
        one_node.finish(job)
    return [one_node.run_folder(job) for job in jobs]


def test_a_preempted_job_of_two_ranks_is_requeued_and_equals_one_that_was_not(one_node, whole):
    job = one_node.submit(*PACED, "trainer=ddp", options=TWO)
    for count in (1, 2):
        begun = "jensen: training in" if count == 1 else "jensen: continuing in"
        one_node.wait(job, lambda words=begun: words in one_node.log(job))
        time.sleep(5)
        one_node.call("scancel", "--signal=USR1", job)
        one_node.wait(job, lambda at=count: restarts(one_node, job) == at)
    one_node.finish(job)
    log = one_node.log(job)
    assert log.count(f"SLURM job {job} is queued again and continues from there") == 2
    assert log.count(f"continuing in {one_node.run_folder(job)}") == 2
    assert "Traceback" not in log
    assert_same(whole[1], one_node.run_folder(job))


def test_a_signal_while_the_job_starts_is_not_lost(one_node, whole):
    job = one_node.submit(*PACED)
    one_node.wait(job, lambda: started(one_node, job))
    time.sleep(0.5)  # imports take seconds
    one_node.call("scancel", "--signal=USR1", job)
    one_node.finish(job)
    assert restarts(one_node, job) == 1
    assert "stopped by SIGUSR1 at step 0; SLURM job" in one_node.log(job)
    assert_same(whole[0], one_node.run_folder(job))


def test_a_job_that_reaches_its_time_limit_goes_on_in_the_next(one_node, whole):
    job = one_node.submit(
        *PACED, "callbacks.pace.seconds=0.2", options=("--time=1", "--signal=USR1@20")
    )
    one_node.finish(job, seconds=600)
    assert restarts(one_node, job) >= 1
    assert_same(whole[0], one_node.run_folder(job))


def test_two_nodes_give_what_one_gives_and_are_preempted_too(two_nodes, whole):
    job = two_nodes.submit(*PACED, "trainer=ddp", options=("--nodes=2", "--ntasks-per-node=1"))
    two_nodes.wait(job, lambda: "training in" in two_nodes.log(job))
    time.sleep(5)
    two_nodes.call("scancel", "--signal=USR1", job)
    two_nodes.wait(job, lambda: restarts(two_nodes, job) == 1)
    two_nodes.finish(job)
    assert_same(whole[1], two_nodes.run_folder(job))


WRONG = {
    (
        "--ntasks-per-node=2",
        "trainer.devices=1",
    ): "trainer.num_nodes is 1 and trainer.devices 1 but this SLURM job has 1 nodes with 2",
    (
        "--ntasks-per-node=1",
        "trainer=ddp trainer.num_nodes=2",
    ): "submit with --nodes=2 --ntasks-per-node=1, or set trainer.num_nodes=1",
}


@pytest.mark.parametrize(("option", "overrides"), WRONG)
def test_ranks_that_are_not_the_jobs_tasks_are_refused(one_node, option, overrides):
    job = one_node.submit(*SHORT, *overrides.split(), options=(option,))
    with pytest.raises(AssertionError, match="is FAILED"):
        one_node.finish(job)
    assert WRONG[option, overrides] in one_node.log(job)
    assert "Traceback" not in one_node.log(job)


def test_a_sweep_by_submitit_is_preempted_and_ends_with_the_same_bytes(one_node, whole):
    """One job is told while it starts, the other while it trains."""
    launcher = (
        "hydra/launcher=slurm",
        "hydra.launcher.cpus_per_task=1",
        "hydra.launcher.timeout_min=10",
    )
    line = [
        sys.executable,
        "-m",
        "jensen.train",
        "-m",
        *PACED,
        "seed=0,1",
        "hydra.sweep.dir=sweep",
        "hydra.sweep.subdir=${seed}",
        *launcher,
    ]
    sweep = subprocess.Popen(
        line,
        cwd=one_node.folder,
        env=one_node.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        jobs = one_node.array(sweep)
        one_node.wait(jobs[1], lambda: started(one_node, jobs[1]))
        time.sleep(0.5)
        one_node.call("scancel", "--signal=USR1", jobs[1])
        checkpoint = one_node.folder / "sweep" / "0" / "checkpoints" / "last.ckpt"
        one_node.wait(jobs[0], checkpoint.exists)
        one_node.call("scancel", "--signal=USR1", jobs[0])
        out, _ = sweep.communicate(timeout=300)
    finally:
        sweep.kill()
    assert sweep.returncode == 0, out
    assert [restarts(one_node, job) for job in jobs] == [1, 1]
    assert_same(whole[0], one_node.folder / "sweep" / "0")
