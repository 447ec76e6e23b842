"""Jobs as processes: how many at a time, on which GPUs, and that none outlives its sweep. They are
small scripts, not runs.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from jensen.base import signals
from jensen.base.errors import InputError
from jensen.launch import optuna, parent, processes, slurm
from jensen.launch.job import Job
from jensen.launch.parent import ENDS_WITH_PARENT

SLOTS = {
    ((), 1, None): [None],
    ((), 1, 3): [None] * 3,
    (("0", "1"), 1, None): [("0",), ("1",)],
    (("0", "1"), 1, 1): [("0",)],
    (("0", "1", "2", "3", "4"), 2, None): [("0", "1"), ("2", "3")],
    (("0", "1"), 0, None): [("0", "1")],
    (("0", "0"), 1, 2): [("0",), ("0",)],
}


@pytest.mark.parametrize("case", SLOTS)
def test_each_job_has_a_share_of_the_gpus(case):
    assert processes.slots(*case) == SLOTS[case]


REFUSED = {
    ((), 1, 0): "hydra.launcher.n_jobs is 0: expected an integer of at least 1",
    (
        ("0", "1"),
        1,
        3,
    ): "hydra.launcher.n_jobs is 3 and a job takes 1 of 2 GPUs: expected at most 2; lower it",
    (("0",), 2, None): "hydra.launcher.n_jobs is 1 and a job takes 2 of 1 GPUs: expected at most 0",
}


@pytest.mark.parametrize("case", REFUSED)
def test_more_than_the_gpus_serve_is_refused(case):
    with pytest.raises(InputError, match=REFUSED[case]):
        processes.slots(*case)


def job(folder, accelerator="cpu", devices=1):
    return Job(
        (), OmegaConf.create({"trainer": {"accelerator": accelerator, "devices": devices}}), folder
    )


def test_which_gpus_there_are(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-a")
    assert processes.visible([job(tmp_path, "auto")], "auto") == ["4", "GPU-a"]
    assert processes.visible([job(tmp_path, "auto")], [1, 1]) == ["1", "1"]
    assert processes.visible([job(tmp_path, "cpu")], "auto") == []
    with pytest.raises(
        InputError, match=r"hydra.launcher.devices is all: expected auto, or a list"
    ):
        processes.visible([job(tmp_path, "auto")], "all")
    for devices in (None, -1, 0, float("nan"), 1e300, [], True, [True], [-1], [""]):
        with pytest.raises(
            InputError, match=r"hydra.launcher.devices is .*: expected auto, or a list"
        ):
            processes.visible([job(tmp_path, "cpu")], devices)


def test_how_many_a_job_takes(tmp_path):
    assert [
        processes.width(job(tmp_path, devices=each).cfg)
        for each in (1, "2", [0, 3], "0,3", "auto", -1)
    ] == [
        1,
        2,
        2,
        2,
        0,
        0,
    ]


def test_what_a_job_is_told_of_the_sweeps_own_command_line():
    kept = ["hydra.verbose=true"]
    dropped = ["hydra/launcher=subprocess", "hydra.sweep.dir=x", "+hydra.sweeper.params=1"]
    dropped += ["hydra.sweep.subdir=${hydra.job.num}"]  # which has no value here
    sources = [{"provider": "main", "path": "/conf"}, {"provider": "command-line", "path": "/mine"}]
    hydra = {
        "overrides": {"hydra": dropped + kept},
        "runtime": {"config_sources": sources},
        "job": {"config_name": "train", "num": "???"},
    }
    told = processes.common(OmegaConf.create({"hydra": hydra}))
    assert told == [
        "--config-name",
        "train",
        "--config-dir",
        "/mine",
        *kept,
        "hydra/job_logging=stdout",
    ]


@pytest.fixture
def script(monkeypatch):
    """`script(text)`: what each job's process does, in its folder, instead of training."""

    def use(text):
        start = subprocess.Popen

        def popen(line, **options):
            folder = Path(line[-1].partition("=")[2].strip("'"))
            return start([sys.executable, "-c", text], cwd=folder, **options)

        monkeypatch.setattr(subprocess, "Popen", popen)

    return use


def test_so_many_at_a_time_and_each_on_its_own_gpu(script, tmp_path):
    script(
        "import os, pathlib, time; here = pathlib.Path('..') / os.environ['CUDA_VISIBLE_DEVICES']\n"
        "here.mkdir()\n"  # fails if another job holds it
        "time.sleep(.3); here.rmdir(); print('done')"
    )
    jobs = [job(tmp_path / f"job{number}") for number in range(5)]
    processes.run(jobs, [("0",), ("7",)], [])
    assert [processes.log(each).read_text() for each in jobs] == ["done\n"] * 5
    assert not any(each.problem for each in jobs)


def test_a_failing_process_stops_no_other(script, tmp_path):
    script("import pathlib, sys; sys.exit(3 * (pathlib.Path.cwd().name == '0'))")
    jobs = [job(tmp_path / str(number)) for number in range(2)]
    processes.run(jobs, [None], [])
    assert [each.problem for each in jobs] == [
        f"ended with status 3, see {tmp_path / '0' / 'train.log'}",
        "",
    ]


def test_a_rank_does_not_outlive_its_leader(script, tmp_path):
    script(
        "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time;"
        " time.sleep(60)']).pid)"
    )
    processes.run([job(tmp_path / "0")], [None], [])
    rank = int((tmp_path / "0" / "train.log").read_text())
    assert gone(rank)


def gone(pid):
    for _ in range(100):
        status = Path(f"/proc/{pid}/status")
        if not status.exists() or "State:\tZ" in status.read_text():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("stop", sorted({signal.SIGINT} | signals.ENDING))
def test_a_sweep_that_is_stopped_has_its_jobs_save_themselves(script, tmp_path, stop):
    script(
        "import os, pathlib, signal, sys, time\n"
        "def save(*_): pathlib.Path('saved').touch(); sys.exit()\n"
        "signal.signal(signal.SIGTERM, save)\n"
        f"if pathlib.Path.cwd().name == '1': os.kill(os.getppid(), {int(stop)})\n"
        "time.sleep(60)"
    )
    jobs = [job(tmp_path / str(number)) for number in range(3)]
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        processes.run(jobs, [None, None], [])
    for _ in range(100):
        if (tmp_path / "1" / "saved").exists():
            break
        time.sleep(0.05)
    assert not (tmp_path / "2").exists()


def test_a_job_that_does_not_stop_is_killed(script, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.2)
    script(
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        " print(os.getpid(), flush=True)\n"
        "os.kill(os.getppid(), signal.SIGINT); time.sleep(60)"
    )
    with pytest.raises(KeyboardInterrupt):
        processes.run([job(tmp_path / "0")], [None], [])
    assert gone(int((tmp_path / "0" / "train.log").read_text()))


PARENT = Path(parent.__file__)


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for the process in /proc")
def test_a_job_ends_with_a_sweep_that_is_killed(tmp_path):
    child = f"import os, runpy, time; runpy.run_path({str(PARENT)!r})['hold'](); print(os.getpid(), flush=True); time.sleep(60)"
    parent = (
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE,"
        " process_group=0,"
        " env=os.environ | {'JENSEN_ENDS_WITH_PARENT': '1'}, stdout=subprocess.PIPE, text=True)\n"
        "print(child.stdout.readline(), flush=True); child.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        pid = int(killed.stdout.readline())
        assert not Path(f"/proc/{pid}/status").read_text().count("State:\tZ")
        killed.kill()
    assert gone(pid)


def test_a_process_of_another_origin_is_not_tied_to_its_input():
    line = f"import runpy, time; runpy.run_path({str(PARENT)!r})['hold'](); time.sleep(.3); print('alive')"
    environment = {
        name: value for name, value in os.environ.items() if name != "JENSEN_ENDS_WITH_PARENT"
    }
    done = subprocess.run(
        [sys.executable, "-c", line], input="", env=environment, capture_output=True, text=True
    )
    assert done.stdout == "alive\n"


def test_a_missing_extra_is_one_sentence(monkeypatch):
    monkeypatch.setitem(
        sys.modules, "hydra_plugins.hydra_submitit_launcher.submitit_launcher", None
    )
    monkeypatch.setitem(sys.modules, "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper", None)
    with pytest.raises(
        InputError,
        match=r"hydra/launcher=slurm needs .*: expected hydra-submitit-launcher; pip install 'jensen\[slurm\]'",
    ):
        slurm.launch(None, [], None, {})
    with pytest.raises(
        InputError,
        match=r"hydra/sweeper=maximise needs .*: expected hydra-optuna-sweeper; pip install 'jensen\[optuna\]'",
    ):
        optuna.sweeper({})


def test_a_job_ends_with_its_sweep_amid_its_imports(tmp_path):
    """Its first import of another package never ends here."""
    (tmp_path / "hydra").mkdir()
    (tmp_path / "hydra" / "__init__.py").write_text("import time; time.sleep(1000)")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    line = [sys.executable, "-m", "jensen.train"]
    environment = os.environ | {ENDS_WITH_PARENT: "1", "PYTHONPATH": path}
    with subprocess.Popen(line, stdin=subprocess.PIPE, env=environment, process_group=0) as process:
        process.stdin.close()
        try:
            assert process.wait(60) == -signal.SIGKILL
        finally:
            process.kill()
