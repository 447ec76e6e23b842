"""torchrun restarts a run of which a rank died, and the restarted one ends with the bytes of one
that was not disturbed.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pytorch_lightning import Callback
from resume import differences
from runs import QUICK
from torch import distributed

from jensen.launch.elastic import count_attempt

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--max-restarts", "1")
TRAIN = ("-m", "jensen.train")
RUN = (*QUICK, "diagnostics=[rate]", "trainer=ddp", "trainer.accelerator=cpu")


class DieOnce(Callback):
    """Kills rank 1 in the middle of step 18, unless `file` says that it was done: then rank 0 is
    late to the restart.
    """

    def __init__(self, file):
        self.file = Path(file)
        if self.file.exists() and os.environ["RANK"] == "0":
            time.sleep(5)

    def on_before_optimizer_step(self, trainer, *_):
        if trainer.global_rank == 1 and trainer.global_step == 17 and not self.file.exists():
            self.file.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def run(folder, machines, *overrides):
    """Two ranks under an agent of torchrun each, as on two machines, or both under one; what the
    agents printed.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))
    }
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    if machines == 1:
        where = ("--standalone", "--nproc-per-node", "2")
        devices = ("trainer.devices=2",)
    else:
        meeting = f"--nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:{free_port()}"
        where = tuple(meeting.split())
        devices = ("trainer.devices=1", "trainer.num_nodes=2")
    line = [*TORCHRUN, *where, *TRAIN, *RUN, *devices, f"hydra.run.dir={folder.name}", *overrides]
    settings = {
        "cwd": folder.parent,
        "env": environment,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    agents = [subprocess.Popen(line, **settings) for _ in range(machines)]
    said = [agent.communicate(timeout=300) for agent in agents]
    assert [agent.returncode for agent in agents] == [0] * machines, said
    return "".join(out for out, _ in said)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_a_restart_by_torchrun_continues_bit_for_bit(machines, tmp_path):
    callback = (
        "+callbacks.die._target_=test_torchrun.DieOnce",
        f"+callbacks.die.file={tmp_path / 'died'}",
    )
    (tmp_path / "died").touch()
    whole = run(tmp_path / "whole", machines, *callback)
    (tmp_path / "died").unlink()
    restarted = run(tmp_path / "restarted", machines, *callback)
    assert (tmp_path / "died").exists()
    assert "continuing in" not in whole
    assert f"continuing in {tmp_path / 'restarted'}" in restarted
    assert not differences(tmp_path / "whole", tmp_path / "restarted")


def test_ranks_agree_on_which_start_this_is_whatever_dead_ones_left():
    """The second start finds the first one's names in the store, and the third those of a start
    that rank 0 did not see.
    """
    store = distributed.HashStore()
    with ThreadPoolExecutor(3) as ranks:
        for attempt in (1, 2, 3):
            assert [*ranks.map(lambda rank: count_attempt(store, rank, 3), range(3))] == [
                attempt
            ] * 3
            for rank in (1, 2):
                store.set(f"jensen/rank/{rank}", f"died before it was answered, {attempt}")
