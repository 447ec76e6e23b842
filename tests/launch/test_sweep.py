"""Sweeps as people start them."""

import json
import resource
import signal
import subprocess
import time

import pytest
import shell
import torch
from tiny import TINY

from jensen.launch.training import train

SHORT = (
    "trainer.accelerator=cpu",
    "trainer.max_steps=12",
    "trainer.val_check_interval=6",
    "diagnostics=[rate,mig_hist20]",
)
QUICK = (*TINY, *SHORT, "hydra.sweep.dir=sweep", "hydra.sweep.subdir='beta=${objective.beta}'")


def sweep(*overrides, cwd, status=0, setting=QUICK):
    done = shell.run("jensen.train", "-m", *setting, *overrides, cwd=cwd, timeout=400)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep in processes, of a run that is trained and one that fails; its folder and what was
    said.
    """
    folder = tmp_path_factory.mktemp("swept")
    done = sweep(
        "objective.beta=1,-1",
        "hydra/launcher=subprocess",
        "hydra.launcher.n_jobs=2",
        cwd=folder,
        status=1,
    )
    return folder, done


def test_a_sweep_in_processes_leaves_whole_runs_and_lists_what_failed(swept, configure):
    folder, done = swept
    assert "sweep of 2: 1 trained, 1 failed" in done.stdout
    assert (
        "failed      sweep/beta=-1: objective.beta is -1: expected a number of at least 0"
        in done.stdout
    )
    assert "1 of the sweep's runs failed: sweep/beta=-1: objective.beta is -1" in done.stderr
    run = folder / "sweep" / "beta=1"
    scores, marker = (
        json.loads((run / f"{name}.json").read_text()) for name in ("scores", "finished")
    )
    assert scores["step"] == marker["step"] == 12
    assert scores["bound"]["elbo"] == marker["results"]["val/elbo"]
    assert scores["diagnostics"]["mig_hist20"]["mig_hist20"] == pytest.approx(
        marker["results"]["mig_hist20/mig_hist20"]
    )
    assert "val/elbo" in (run / "train.log").read_text()
    assert "objective.beta=1" in (run / ".hydra" / "overrides.yaml").read_text()

    alone = folder / "alone"
    assert train(configure(*TINY, *SHORT, "objective.beta=1"), alone) == pytest.approx(
        marker["results"], rel=1e-5
    )
    assert all(
        torch.allclose(value, weights(alone)[key], atol=1e-6) for key, value in weights(run).items()
    )


def test_the_same_sweep_again_trains_nothing(swept):
    folder, _ = swept
    before = weights(folder / "sweep" / "beta=1")
    done = sweep("objective.beta=1,-1", cwd=folder, status=1)
    assert "sweep of 2: 1 skipped, 1 failed" in done.stdout
    assert "hydra.launcher.retry_failed=true tries again what failed before" in done.stdout
    assert "training in" not in done.stdout
    assert all(
        torch.equal(value, before[key])
        for key, value in weights(folder / "sweep" / "beta=1").items()
    )


@pytest.mark.slow
def test_ranks_in_a_sweep_give_what_one_process_gives(swept):
    folder, _ = swept
    ranks = (
        "trainer=ddp",
        "trainer.devices=2",
        "hydra/launcher=subprocess",
        "hydra.sweep.dir=ranks",
    )
    assert "1 trained" in sweep("objective.beta=1", *ranks, cwd=folder).stdout
    one = weights(folder / "sweep" / "beta=1")
    two = weights(folder / "ranks" / "beta=1")
    assert max((one[key] - two[key]).abs().max() for key in one) < 1e-6
    assert [file.name for file in (folder / "ranks").iterdir() if file.is_dir()] == ["beta=1"]
    done = sweep(
        "objective.beta=1", "hydra.sweep.dir=ranks", cwd=folder
    )  # the number of ranks makes no other run
    assert "1 skipped" in done.stdout


def test_ctrl_c_leaves_a_sweep_that_continues(tmp_path):
    endless = (
        "trainer.max_steps=1000000",
        "objective.beta=1,2,3",
        "hydra/launcher=subprocess",
        "hydra.launcher.n_jobs=2",
    )
    with shell.start(
        "jensen.train", "-m", *QUICK, *endless, cwd=tmp_path, stdout=subprocess.PIPE
    ) as process:
        saved = [
            tmp_path / "sweep" / f"beta={beta}" / "checkpoints" / "last.ckpt" for beta in (1, 2)
        ]
        while process.poll() is None and not all(file.exists() for file in saved):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "sweep of 3: 2 interrupted, 1 not started" in said
    for file in saved:
        assert torch.load(file, weights_only=True)["global_step"] > 0
        assert "stopped by SIGTERM" in (file.parents[1] / "train.log").read_text()
        assert not list(file.parents[1].glob("f*ed.json"))


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_in_turn_with_its_summary(tmp_path):
    endless = ("trainer.max_steps=1000000", "objective.beta=1,2", "diagnostics=[]")
    with shell.start(
        "jensen.train",
        "-m",
        *QUICK,
        *endless,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        saved = tmp_path / "sweep" / "beta=1" / "checkpoints" / "last.ckpt"
        while process.poll() is None and not saved.exists():
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "stopped by SIGINT at step" in said
    assert "sweep of 2: 1 interrupted, 1 not started" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_optuna_maximises_and_goes_on(tmp_path):
    pytest.importorskip(
        "hydra_plugins.hydra_optuna_sweeper", reason="the extra jensen[optuna] is not installed"
    )
    setting = (*TINY, *SHORT, "data.factors=null", "experiment=tune_beta", "hydra.sweep.dir=tuned")
    done = sweep("hydra.sweeper.n_trials=1", cwd=tmp_path, setting=setting)
    assert "sweep of 1: 1 trained" in done.stdout
    done = sweep("hydra.sweeper.n_trials=2", cwd=tmp_path, setting=setting)
    assert "sweep of 1: 1 skipped" in done.stdout
    assert "sweep of 1: 1 trained" in done.stdout
    results = [json.loads(file.read_text())["results"] for file in tmp_path.rglob("finished.json")]
    best = max(each["mig_hist20/mig_hist20"] for each in results)
    (found,) = [
        line
        for line in (tmp_path / "tuned" / "optimization_results.yaml").read_text().splitlines()
        if "value" in line
    ]
    assert float(found.split()[1]) == pytest.approx(best)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("hydra/launcher=nowhere",), "hydra/launcher is nowhere: expected one of"),
        (
            ("hydra/launcher=subprocess", "hydra.launcher.n_jobs=0"),
            "hydra.launcher.n_jobs is 0: expected an integer",
        ),
    ],
)
def test_what_cannot_work_is_said_before_any_run(tmp_path, overrides, sentence):
    done = sweep("objective.beta=1,2", *overrides, cwd=tmp_path, status=1)
    assert sentence in done.stderr
    assert not list(tmp_path.rglob("train.log"))


@pytest.mark.slow
def test_a_disk_without_room_ends_in_a_sentence_and_keeps_what_is_there(tmp_path):
    pipe = subprocess.PIPE
    with shell.start(
        "jensen.train", "-m", *QUICK, "objective.beta=1,2", cwd=tmp_path, stdout=pipe, stderr=pipe
    ) as process:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (200_000, 200_000))
        out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Traceback" not in out + err
    assert "sweep of 2: 2 failed" in out
    assert "File too large" in err
    again = sweep("objective.beta=1,2", "hydra.launcher.retry_failed=true", cwd=tmp_path)
    assert "sweep of 2: 2 retried" in again.stdout
