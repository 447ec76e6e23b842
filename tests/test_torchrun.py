"""torchrun restarts a run of which a rank died, and the restarted one ends with the bytes of one that was not disturbed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pytorch_lightning import Callback
from resume import differences
from test_train import QUICK

LINE = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1", "-m", "jensen.train")
RUN = (*QUICK, "diagnostics=[rate]", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")


class DieOnce(Callback):
    """Kills rank 1 in the middle of step 18, unless `file` says that it was done."""

    def __init__(self, file):
        self.file = Path(file)

    def on_before_optimizer_step(self, trainer, *_):
        if trainer.global_rank == 1 and trainer.global_step == 17 and not self.file.exists():
            self.file.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def run(folder, *overrides):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    environment |= {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, *LINE, *RUN, f"hydra.run.dir={folder.name}", *overrides]
    done = subprocess.run(line, cwd=folder.parent, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_a_restart_by_torchrun_continues_bit_for_bit(tmp_path):
    whole = run(tmp_path / "whole")
    callback = ("+callbacks.die._target_=test_torchrun.DieOnce", f"+callbacks.die.file={tmp_path / 'died'}")
    restarted = run(tmp_path / "restarted", *callback)
    assert (tmp_path / "died").exists()
    assert "continuing in" not in whole.stdout
    assert f"continuing in {tmp_path / 'restarted'}" in restarted.stdout
    assert not differences(tmp_path / "whole", tmp_path / "restarted")
