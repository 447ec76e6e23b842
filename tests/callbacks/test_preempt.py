"""A run that is asked to end ends at a step, and the same command continues as if nothing had been."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import open_dict
from pytorch_lightning import Callback
from test_train import QUICK, scalar, weights

from jensen.core import signals
from jensen.core.signals import Stopped
from jensen.program import conf_folder
from jensen.train import train

BEFORE = {number: signal.getsignal(number) for number in signals.ASKING}


class Interrupt(Callback):
    """Sends the process a signal in step `step` (from 1), or in the validation after it."""

    def __init__(self, step, validating, number):
        self.step, self.validating, self.number = step, validating, number

    def on_train_batch_start(self, trainer, *_):
        if not self.validating and trainer.global_step + 1 == self.step:
            os.kill(os.getpid(), self.number)

    def on_validation_batch_start(self, trainer, *_):
        if self.validating and trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


def interrupted(cfg, step, validating, number):
    with open_dict(cfg):
        cfg.callbacks.interrupt = {
            "_target_": f"{__name__}.Interrupt", "step": step, "validating": validating, "number": int(number)
        }  # fmt: skip
    return cfg


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        train(compose("train", list(QUICK)), folder)
    return folder


# amid an epoch of 20 steps, at an epoch's end, where that is and a validation is due, in a validation
@pytest.mark.parametrize("place", [(7, False), (20, False), (24, False), (12, True)])
def test_a_preempted_run_equals_an_uninterrupted_one(configure, tmp_path, whole, place):
    with pytest.raises(Stopped) as stopped:
        train(interrupted(configure(*QUICK), *place, signal.SIGUSR1), tmp_path)
    assert stopped.value.code == 128 + signal.SIGUSR1
    assert f"stopped by SIGUSR1 at step {place[0]};" in stopped.value.sentence
    results = train(configure(*QUICK), tmp_path)
    expected, found = weights(whole), weights(tmp_path)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    for tag in ("train/loss", "val/elbo", "rate/active_units"):
        assert scalar(whole, tag) == scalar(tmp_path, tag)
    assert (tmp_path / "checkpoints" / "best.ckpt").exists()
    assert "val/elbo" in results
    assert {number: signal.getsignal(number) for number in signals.ASKING} == BEFORE


def test_a_run_at_its_last_step_is_let_finish(configure, tmp_path):
    try:
        assert "val/elbo" in train(interrupted(configure(*QUICK), 30, False, signal.SIGTERM), tmp_path)
    finally:
        signals.forget()
    assert max(scalar(tmp_path, "val/elbo")) == 30


def test_a_signal_before_the_first_step_is_not_lost(tmp_path):
    """Sent while the imports are under way: the note is taken in the first line."""
    line = [sys.executable, "-m", "jensen.train", *QUICK, "hydra.run.dir=here"]
    process = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "stopped by SIGTERM at step 0; the same command continues" in out
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.ckpt"))


LATE = """
import os, signal

class Late:
    def __del__(self, kill=os.kill, process=os.getpid(), number=signal.SIGUSR1):
        kill(process, number)

late = Late()  # is deleted when the interpreter has taken its handlers back
"""


@pytest.mark.parametrize("ignored", [False, True])
def test_a_signal_after_the_end_does_not_fail_a_run_that_is_finished(ignored):
    """Seen on a busy SLURM machine: all was written, and the job failed while the interpreter ended."""
    listen = "import atexit; from jensen.core import signals; signals.listen(); "
    line = [sys.executable, "-c", listen + ("atexit.register(signals.ignore)" if ignored else "") + LATE]
    assert subprocess.run(line).returncode == (0 if ignored else -signal.SIGUSR1)
