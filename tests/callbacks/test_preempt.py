"""A run that is asked to end ends at a step, and the same command continues as if nothing had
been.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from cases import some
from composing import composed
from omegaconf import open_dict
from pytorch_lightning import Callback
from runs import QUICK, scalar, weights

from jensen.base import signals
from jensen.base.signals import Stopped
from jensen.launch.training import train

pytestmark = pytest.mark.usefixtures("_forgotten")
BEFORE = {number: signal.getsignal(number) for number in signals.ASKING}


@pytest.fixture
def _forgotten():
    """The handlers are those of before, whatever a command that ran in this process has left."""
    for number, handler in BEFORE.items():
        signal.signal(number, handler)
    yield
    signals.forget()


class Interrupt(Callback):
    """Sends the process a signal in step `step` (from 1), or in the validation after it."""

    def __init__(self, step, validating, number):
        self.step = step
        self.validating = validating
        self.number = number

    def on_train_batch_start(self, trainer, *_):
        if not self.validating and trainer.global_step + 1 == self.step:
            os.kill(os.getpid(), self.number)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.validating and trainer.global_step == self.step and batch_idx == 0:
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
    train(composed(*QUICK), folder)
    return folder


# amid an epoch of 20 steps, at an epoch's end, where that is and a validation is due, in a
# validation
@some(
    3,
    "place, number",
    [
        ((7, False), signal.SIGUSR1),
        ((20, False), signal.SIGINT),
        ((24, False), signal.SIGUSR1),
        *[((9, False), number) for number in signals.ENDING - {signal.SIGTERM}],  # not under nohup
        ((12, True), signal.SIGINT),
    ],
)
def test_a_preempted_run_equals_an_uninterrupted_one(configure, tmp_path, whole, place, number):
    with pytest.raises(Stopped) as stopped:
        train(interrupted(configure(*QUICK), *place, number), tmp_path)
    assert stopped.value.code == 128 + number
    assert f"stopped by {number.name} at step {place[0]};" in stopped.value.sentence
    results = train(configure(*QUICK), tmp_path)
    expected = weights(whole)
    found = weights(tmp_path)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    for tag in ("train/loss", "val/elbo", "decomposition/mutual_information"):
        assert scalar(whole, tag) == scalar(tmp_path, tag)
    assert (tmp_path / "checkpoints" / "best.ckpt").exists()
    assert "val/elbo" in results
    assert {number: signal.getsignal(number) for number in signals.ASKING} == BEFORE


def test_a_run_at_its_last_step_is_let_finish(configure, tmp_path):
    try:
        assert "val/elbo" in train(
            interrupted(configure(*QUICK), 30, False, signal.SIGTERM), tmp_path
        )
    finally:
        signals.forget()
    assert max(scalar(tmp_path, "val/elbo")) == 30


def test_ctrl_c_after_the_training_ends_and_the_same_command_finishes(configure, tmp_path, whole):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "finished.json").unlink()
    cfg = configure(*QUICK, "callbacks=[checkpoint]")  # in the validation that is made once more
    with pytest.raises(Stopped, match="130"):
        train(interrupted(cfg, 30, True, signal.SIGINT), tmp_path / "run")
    assert not (tmp_path / "run" / "finished.json").exists()
    expected = json.loads((whole / "finished.json").read_text())["results"]
    assert train(configure(*QUICK), tmp_path / "run") == expected


HERE = "from jensen.base import signals; import os, signal; "


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        (
            "signals.listen(); os.kill(os.getpid(), 2); print(signals.asked())",
            0,
            "once more ends it at once",
        ),
        (
            "signals.listen(); os.kill(os.getpid(), 2); os.kill(os.getpid(), 2); print('on')",
            130,
            "once more ends it at once",
        ),
        # A second that comes after the first was acted on, while the process ends; and one that
        # comes amid the first.
        (
            "signals.listen(); os.kill(os.getpid(), 2); signals.forget(); os.kill(os.getpid(), 2);"
            " print('on')",
            130,
            "once more ends it at once",
        ),
        (
            "signals.listen(); write = os.write; os.write = lambda *_: (write(*_),"
            " os.kill(os.getpid(), 2)); "
            "os.kill(os.getpid(), 2); print('on')",
            130,
            "once more ends it at once",
        ),
        (
            "signals.end_at_interrupt(); os.kill(os.getpid(), 2); print('on')",
            130,
            "jensen: stopped by SIGINT",
        ),
        (
            "signals.end_at_interrupt(); signals.unwind_at_interrupt()\n"
            "try: os.kill(os.getpid(), 2)\nfinally: os.write(1, b'2\\n')",
            130,
            "jensen: stopped by SIGINT",
        ),
    ],
)
def test_the_first_ctrl_c_is_told_and_the_second_ends_at_once(program, status, said):
    done = subprocess.run([sys.executable, "-c", HERE + program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (
        status,
        "2\n" if "2\\n" in program or not status else "",
    )
    assert said in done.stderr
    assert len(done.stderr.split("\n")) == 3  # a line break after ^C, the line, the end


@pytest.mark.parametrize(("before", "noted"), [("SIG_DFL", "1\n"), ("SIG_IGN", "0\n")])
def test_a_terminal_that_is_closed_is_heard_unless_nohup_ignores_it(before, noted):
    program = (
        f"import os, signal; signal.signal(signal.SIGHUP, signal.{before}); from jensen.base import"
        " signals; signals.listen(); os.kill(os.getpid(), signal.SIGHUP); print(signals.asked())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, noted, "")


@some(2, "command", ["evaluate", "encode", "report", "doctor", "train"])
def test_ctrl_c_amid_the_imports_is_one_line(tmp_path, command):
    line = [sys.executable, "-m", f"jensen.{command}", *(["-m"] if command == "train" else [])]
    with subprocess.Popen(
        line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        handled = 1 << (signal.SIGINT - 1)
        while not int(caught(process.pid), 16) & handled or not loads_torch(process.pid):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert (out, err) == ("", "\njensen: stopped by SIGINT\n")
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    plan = {"multirun.yaml", "sweep.json", ".lock"}  # a sweep's, and no run's
    assert left == (plan if command == "train" else set())


def caught(process):
    """The mask of signals that it handles."""
    (line,) = [
        line
        for line in Path(f"/proc/{process}/status").read_text().splitlines()
        if line.startswith("SigCgt")
    ]
    return line.split()[1]


def loads_torch(process):
    """Whether it is past the handlers of before, amid the imports that take seconds."""
    return "numpy" in Path(f"/proc/{process}/maps").read_text()


def test_a_signal_before_the_training_ends_it_at_its_first_step(configure, tmp_path):
    signals.listen()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped, match="143"):
        train(configure(*QUICK), tmp_path)
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.slow
def test_a_signal_before_the_first_step_is_not_lost(tmp_path):
    """Sent while the imports are under way: the note is taken in the first line."""
    line = [sys.executable, "-m", "jensen.train", *QUICK, "hydra.run.dir=here"]
    process = subprocess.Popen(
        line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
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
    """Seen on a busy SLURM machine: all was written, and the job failed while the interpreter
    ended.
    """
    listen = "import atexit; from jensen.base import signals; signals.listen(); "
    line = [
        sys.executable,
        "-c",
        listen + ("atexit.register(signals.ignore)" if ignored else "") + LATE,
    ]
    assert subprocess.run(line).returncode == (0 if ignored else -signal.SIGUSR1)
