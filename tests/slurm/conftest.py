"""A SLURM cluster of one machine for the tests of this folder; they are skipped where none can be
made.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "setpriv")


class Cluster:
    """What a user of a cluster does, in a folder of theirs."""

    def __init__(self, folder, state):
        self.folder = folder
        self.state = state
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST", "SLURM"))
        }
        self.environment = environment | {
            "SLURM_CONF": str(state / "slurm.conf"),
            "PATH": f"{HERE}:{environment['PATH']}",  # sacct
            "PYTHONPATH": f"{HERE}:{ROOT / 'src'}",  # pace; and this copy of jensen
            "JENSEN_VENV": sys.prefix,
            "MASTER_ADDR": "127.0.0.1",  # the names of virtual nodes do not resolve
            "OMP_NUM_THREADS": "1",
        }

    def call(self, *line, **options):
        done = subprocess.run(
            line, cwd=self.folder, env=self.environment, capture_output=True, text=True, **options
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, *overrides, options=()):
        """`sbatch scripts/slurm/train.sbatch`; the job's id."""
        script = str(ROOT / "scripts" / "slurm" / "train.sbatch")
        return self.call("sbatch", "--parsable", *options, script, *overrides, timeout=60).strip()

    def show(self, job):
        """SLURM's word on a job, as a dict."""
        words = self.call("scontrol", "--oneliner", "show", "job", job, timeout=60).split()
        return dict(word.partition("=")[::2] for word in words if "=" in word)

    def log(self, job):
        path = self.folder / f"slurm-{job}.out"
        return path.read_text() if path.exists() else ""

    def wait(self, job, until, seconds=240):
        """Until `until()` is true."""
        end = time.monotonic() + seconds
        while not until():
            state = self.show(job)["JobState"]
            assert state not in ("FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"), (
                f"job {job} is {state}:\n{self.log(job)}"
            )
            assert time.monotonic() < end, (
                f"job {job} is {state} ({self.show(job)['Reason']}) after {seconds}"
                f" s:\n{self.log(job)}"
            )
            time.sleep(0.2)

    def finish(self, job, seconds=240):
        self.wait(job, lambda: self.show(job)["JobState"] == "COMPLETED", seconds)

    def array(self, process):
        """The ids of the jobs of the array that a process submits, once they are in the queue."""
        while process.poll() is None:
            lines = self.call(
                "squeue", "--array", "--noheader", "--format=%i", "--name=train", timeout=60
            ).split()
            if len(lines) > 1:
                return sorted(lines)
            time.sleep(0.2)
        raise AssertionError(f"nothing was submitted:\n{process.stdout.read()}")

    def run_folder(self, job):
        return self.folder / "runs" / job


def cluster(folder, nodes):
    """A cluster of `nodes` virtual nodes, and nothing of it afterwards."""
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        pytest.skip(
            f"{', '.join(missing)} not installed: scripts/test --slurm installs them as root on"
            " Debian and Ubuntu"
        )
    if os.geteuid():
        pytest.skip("a cluster of one's own needs root")
    state = Path(tempfile.mkdtemp(prefix="jensen-slurm-"))
    state.chmod(0o755)  # munge is another user
    script = str(HERE / "cluster")
    try:
        subprocess.run([script, "up", str(state), str(nodes)], check=True, timeout=120)
        yield Cluster(folder, state)
    finally:
        subprocess.run([script, "down", str(state)], check=True, timeout=120)
        shutil.rmtree(state)


@pytest.fixture(scope="session")
def one_node(tmp_path_factory):
    yield from cluster(tmp_path_factory.mktemp("one_node"), 1)


@pytest.fixture(scope="session")
def two_nodes(tmp_path_factory):
    yield from cluster(tmp_path_factory.mktemp("two_nodes"), 2)
