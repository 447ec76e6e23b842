"""Commands of jensen as children of this process, `python -m jensen.train ...`, forked from one
that has imported everything instead of importing for seconds themselves.

`Popen` is subprocess's own in all but that: pipes, signals, groups and exit codes are real. A
process that it starts has a nursery too, so that the ranks and jobs that a command starts are
forked likewise. Other programs are started as ever. What differs from a fresh interpreter is what
happens while it imports: a test of that, or of an environment that imports read, uses `subprocess`.

The nursery forks a process that forks the child and ends; the child is then that of the nearest
ancestor that takes in orphans, which the one that asked is for that moment. That is Linux's;
elsewhere the processes are fresh ones.
"""

import atexit
import ctypes
import inspect
import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing import Pipe, forkserver, get_context
from multiprocessing.connection import Connection, arbitrary_address
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from composing import composed, read_once

from jensen.launch import processes

COMMANDS = tuple(f"jensen.{name}" for name in ("train", "evaluate", "encode", "report", "doctor"))
FORKED = (*COMMANDS, "shortly")
SERVER = get_context("forkserver")
SERVER.set_forkserver_preload([*COMMANDS])
UNSAID = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""What Python says nothing of unless it is asked to."""
TAKES_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of prctl
STANDARD = (0, 1, 2)
_Ordinary = subprocess.Popen
_nursery: list[Connection] = []


def fork_server() -> None:
    """Have multiprocessing's server be a fork of this process, which is to have no threads yet and
    has imported everything, where a new one would import for 8 CPU seconds.
    """
    server = forkserver._forkserver  # type: ignore[attr-defined]
    if sys.platform != "linux" or sys.version_info >= (3, 14) or server._forkserver_pid:
        return
    for command in COMMANDS:
        import_module(command)
    address = arbitrary_address("AF_UNIX")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        Path(address).chmod(0o600)
        listener.listen()
        ends, holds = os.pipe()
        if not (number := os.fork()):
            os.close(holds)
            try:
                _forget_pytest()
                forkserver.main(listener.fileno(), ends, [])
            finally:
                os._exit(0)
    os.close(ends)
    server._forkserver_address = address
    server._forkserver_alive_fd = holds
    server._forkserver_pid = number


def _forget_pytest() -> None:
    """Files, warnings and logs as they are where Python has just started."""
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="backslashreplace")
    warnings.resetwarnings()
    for kind in UNSAID:
        warnings.simplefilter("ignore", kind)
    logging.root.handlers.clear()


class Request(NamedTuple):
    """What `python -m MODULE WORDS` is started with."""

    module: str
    words: tuple[str, ...]
    cwd: str
    env: dict[str, str]
    own_session: bool
    group: int


class Popen(_Ordinary):
    def _execute_child(self, *given: Any) -> None:
        asked = inspect.signature(_Ordinary._execute_child).bind(self, *given).arguments
        line = asked["args"]
        fresh = sys.platform != "linux" or asked["preexec_fn"] or isinstance(line, str)
        if fresh or [*line[:2]] != [sys.executable, "-m"] or line[2] not in FORKED:
            super()._execute_child(*given)
            return
        group = asked["process_group"]
        request = Request(
            line[2],
            tuple(line[3:]),
            str(Path(asked["cwd"] or ".").resolve()),
            dict(os.environ if asked["env"] is None else asked["env"]),
            asked["start_new_session"],
            os.getpgrp() if group in (None, -1) else group,
        )
        pipes = [
            asked[f"{name}{end}"] for name in ("p2c", "c2p", "err") for end in ("read", "write")
        ]
        ends = zip(STANDARD, (pipes[0], pipes[3], pipes[5]), strict=True)
        self.pid = _start(request, [own if end == -1 else end for own, end in ends])
        self._child_created = True
        self._close_pipe_fds(*pipes)


def _start(request: Request, files: Sequence[int]) -> int:
    """The child's process number."""
    if not _nursery:  # in the process of the tests, which is no clean one to fork
        ours, theirs = Pipe()
        SERVER.Process(target=_serve, args=(theirs,)).start()
        theirs.close()
        _nursery.append(ours)
        atexit.register(ours.close)  # before multiprocessing waits for it
    (line,) = _nursery
    control = ctypes.CDLL(None).prctl
    control(TAKES_ORPHANS, 1, 0, 0, 0)
    try:
        line.send(request)
        for file in files:
            send_handle(line, file, None)
        number: int = line.recv()
    finally:
        control(TAKES_ORPHANS, 0, 0, 0, 0)
    return number


def _serve(line: Connection) -> NoReturn:
    """Forks what is asked for until the one that asks is gone. Commands that it forks know the
    files of conf/ (`composing`), which reading takes longer than a short run.
    """
    os.setpgid(0, 0)  # a Ctrl-C is not for it, nor a kill of the group
    read_once()
    composed()
    empty = os.open(os.devnull, os.O_RDWR)
    for file in STANDARD:
        os.dup2(empty, file)
    os.close(empty)
    while True:
        try:
            request: Request = line.recv()
            files = [recv_handle(line) for _ in STANDARD]
        except (EOFError, OSError):
            os._exit(0)
        told, tell = os.pipe()
        between = os.fork()
        if not between:
            if os.fork():
                os._exit(0)
            line.close()
            os.close(told)
            _live(request, files, tell)
        os.close(tell)
        for file in files:
            os.close(file)
        os.waitpid(between, 0)
        line.send(int(os.read(told, 20)))
        os.close(told)


def _live(request: Request, files: Sequence[int], tell: int) -> NoReturn:
    """The process: what Python does between its start and its end."""
    if request.own_session:
        os.setsid()
    else:
        os.setpgid(0, request.group)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _nursery[:] = [_own_nursery(tell, *files)]
    os.write(tell, b"%d" % os.getpid())
    os.close(tell)
    for file, standard in zip(files, STANDARD, strict=True):
        os.dup2(file, standard)
        os.close(file)
    os.chdir(request.cwd)
    os.environ.clear()
    os.environ.update(request.env)
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing has closed it
    at_once = bool(request.env.get("PYTHONUNBUFFERED"))
    sys.stdout.reconfigure(line_buffering=os.isatty(1), write_through=at_once)
    places = request.env.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [request.cwd, *filter(None, places)]
    sys.argv = ["-m", *request.words]
    warnings.resetwarnings()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if "ResourceWarning" in request.env.get("PYTHONWARNINGS", ""):
        warnings.filterwarnings("error", category=ResourceWarning)
    _read_the_rank()
    subprocess.Popen = Popen  # type: ignore[misc]
    processes.can_fork = lambda: False  # the jobs of a sweep are of this nursery, too
    sys.modules.pop(request.module, None)  # imported as __main__ alone, as it would be
    status = 0
    try:
        runpy.run_module(request.module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _own_nursery(*files: int) -> Connection:
    """Forked before anything has happened."""
    ours, theirs = Pipe()
    if not os.fork():
        ours.close()
        for file in files:
            os.close(file)
        _serve(theirs)
    theirs.close()
    return ours


def _read_the_rank() -> None:
    """What Lightning reads from the environment at its import, which was before."""
    from lightning_fabric.utilities.rank_zero import _get_rank, rank_zero_only

    rank_zero_only.rank = _get_rank() or 0
