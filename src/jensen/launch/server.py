"""Jobs forked from a process that has imported what they need: 5 CPU seconds each are theirs no
more.

The process is multiprocessing's fork server, which is asked for one job after another. It imports
and does nothing else, so nothing of CUDA, of threads or of a person's own modules is in a job
before it begins. A job is what `python -m jensen.train` would be: the leader of a group, with an
environment, standard input and log of its own; its code is that of the sweep's start.
"""

import atexit
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from jensen.base import signals
from jensen.launch.kept import end_kept

_CONTEXT = get_context("forkserver") if sys.platform == "linux" else None
MODULE = "jensen.train"


def can_fork() -> bool:
    """Tell whether jobs are forked here: elsewhere than on Linux, what is imported may not be."""
    return _CONTEXT is not None


class Forked:
    """`python -m jensen.train WORDS` that was forked: the part of `subprocess.Popen` that a sweep
    asks for.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        assert _CONTEXT is not None
        _CONTEXT.set_forkserver_preload(["jensen.launch.warm"])
        log.open("ab").close()  # where it cannot be, whoever asks is told
        theirs, self.stdin = Pipe(duplex=False)
        given = (tuple(words), dict(environment), str(Path.cwd()), str(log), theirs)
        self._process = _CONTEXT.Process(target=_live, args=given)
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Raises:
        TimeoutExpired: it has not ended by then.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(MODULE, timeout or 0.0)
        return self._process.exitcode


def _live(
    words: Sequence[str], environment: Mapping[str, str], cwd: str, log: str, stdin: Connection
) -> NoReturn:
    """The job: what Python does between its start and its end."""
    os.setpgid(0, 0)
    with Path(log).open("ab") as output:
        for source, standard in ((stdin, 0), (output, 1), (output, 2)):
            os.dup2(source.fileno(), standard)
    stdin.close()
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="backslashreplace")
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    if environment.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)
    _take_threads(environment)
    sys.argv = [MODULE, *words]
    for number in (signal.SIGINT, *signals.HELD):
        signal.signal(number, signal.SIG_DFL)
    signals.hold(False)
    status = _run()
    end_kept()
    atexit._run_exitfuncs()
    sys.exit(status)


def _take_threads(environment: Mapping[str, str]) -> None:
    """Obey OMP_NUM_THREADS, which the libraries have read at their import."""
    told = environment.get("OMP_NUM_THREADS", "")
    if told.isdigit() and int(told):
        import torch
        from threadpoolctl import threadpool_limits

        threadpool_limits(int(told))
        torch.set_num_threads(int(told))


def _run() -> int:
    """The status with which the module ends."""
    sys.modules.pop(MODULE, None)  # imported as __main__ alone, as it would be
    try:
        runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
