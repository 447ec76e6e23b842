"""What a command makes of its arguments."""

import errno
import shlex
import signal
import subprocess
import sys

import pytest
import shell
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException

from jensen.launch.console import one_sentence, quoted, readable


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        (
            "run=runs/sweep/beta=4_seed=0",
            "runs/sweep/beta=4_seed=0",
        ),  # a folder of a sweep, as the shell completes it
        ("data.path=/tmp/it's=here", "/tmp/it's=here"),
        ("data.root=a,b", None),
        ("data.root=choice(a,b)", None),
        ("objective.beta='a=b'", None),
        ("run='runs/beta=4'", "runs/beta=4"),
        ("objective.beta=4", 4),
        ("objective=beta", "beta"),
        ("data.factors=[shape,scale]", ["shape", "scale"]),
    ],
)
def test_a_path_need_not_be_quoted(argument, value):
    if value is None:  # quotes of its own are left alone
        assert readable(argument) == argument
    else:
        assert OverridesParser.create().parse_override(readable(argument)).value() == value


NAMES = (
    "beta=1_hidden=[8]",
    "a,b",
    "it's",
    'say "x"',
    "two words",
    "{x}",
    "Ünïcode_日本",
    "a(b)",
    "c:d",
    "x#y",
    "trailing ",
    "back\\slash",
    "back\\'quote",
    "ends\\",
    "~h",
    "$HOME",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "key", ["run", "codes", "out", "sweep", "hydra.run.dir", "data.root", "data.path"]
)
def test_a_folder_of_any_name_is_read_as_it_is_from_a_shell(key, name):
    argument = f"{key}=/tmp/runs/{name}"
    if "," in name and key.startswith("data."):  # which names two
        argument = f"{key}={quoted(argument.partition('=')[2])}"
    line = f"printf %s {shlex.quote(argument)}"
    given = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout
    assert OverridesParser.create().parse_override(readable(given)).value() == f"/tmp/runs/{name}"
    assert OverridesParser.create().parse_override(f"{key}={quoted(name)}").value() == name


def test_what_is_read_is_read_the_same_again():
    once = readable("run=runs/beta=4")
    assert readable(once) == once
    assert readable("--config-dir=here") == "--config-dir=here"


def test_a_full_disk_is_a_sentence_wherever_it_is_met():
    with (
        pytest.raises(CompactHydraException, match=r"^runs/x cannot be written \(No space left"),
        one_sentence(),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", "runs/x")
    with pytest.raises(FileNotFoundError), one_sentence():  # a defect of ours keeps its traceback
        raise FileNotFoundError(errno.ENOENT, "No such file", "x")


KILLED = """
import multiprocessing, os, signal
from jensen.callbacks.words import say
from jensen.launch.console import program

def main(cfg):
    say("begun")
    os.kill(os.getpid(), signal.SIGKILL)

multiprocessing.set_start_method("forkserver")  # as it is of jobs of a sweep
program("report")(main)()
"""


@pytest.mark.parametrize(
    ("command", "rest"),
    [
        ("evaluate", ", or sweep=FOLDER for all runs of a sweep; leave -m out"),
        ("encode", "; leave"),
    ],
)
def test_many_runs_are_of_train_alone(tmp_path, command, rest):
    done = shell.run(f"jensen.{command}", "-m", "run=a,b", cwd=tmp_path)
    assert done.returncode == 1
    assert f"expected one thing to do at a time{rest}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not [*tmp_path.iterdir()]


def test_a_command_that_is_killed_leaves_nothing_that_python_warns_of(tmp_path):
    words = ("sweep=x", f"hydra.run.dir={tmp_path}")
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, *words], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL
    assert (ended.stdout, ended.stderr) == ("jensen: begun\n", "")
