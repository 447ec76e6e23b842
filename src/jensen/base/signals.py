"""Signals that ask a run to end: noted when they come, acted on where a run can stop without loss
(`callbacks/preempt.py`).

This file imports nothing that takes time: a command listens in its first line, before the imports
that take seconds. `python -m jensen.base.signals COMMAND` runs a command for which the signals wait
from the start, until it lets them through.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

ENDING = {
    number
    for name in ("SIGTERM", "SIGHUP")
    if (number := getattr(signal, name, None)) and signal.getsignal(number) != signal.SIG_IGN
}
"""SIGTERM is what docker, Kubernetes and scancel send; SIGHUP comes where a terminal is closed or a
connection breaks, and is ignored under nohup.
"""
HELD = ENDING | {getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)}
"""SIGUSR1 (SLURM) and SIGUSR2 (submitit) come ahead of the end."""
ASKING = HELD | {signal.SIGINT}
"""SIGINT is Ctrl-C; the second one ends the process at once."""

_noted: list[int] = []
_interrupted: list[int] = []
_process: list[int] = []


class Stopped(SystemExit):
    """A run ended because it was asked to, at a step from which the same command continues.

    sentence: what happened, for the person at the terminal; empty if it was said. code: of the
        process, 128 + the signal.
    """

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(code)
        self.sentence = sentence


def listen() -> None:
    """From now on the asking signals are noted, and nothing else. Only a process's main thread can,
    and any other need not.
    """
    if threading.current_thread() is threading.main_thread():
        if not _noted:  # a new run in the process of one that was stopped
            _interrupted.clear()
        for number in ASKING:
            signal.signal(number, _note)


def end_at_interrupt() -> None:
    """From now on Ctrl-C ends the process with one line: for imports, in which an exception may be
    swallowed.
    """
    if threading.current_thread() is threading.main_thread():
        _process.append(os.getpid())
        signal.signal(signal.SIGINT, _end)


def unwind_at_interrupt() -> None:
    """After `end_at_interrupt`, unless the process listens: Ctrl-C raises `Stopped`, so that no
    file is left half written.
    """
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, _unwind)


@contextmanager
def importing() -> Iterator[None]:
    """Imports that take seconds after `unwind_at_interrupt`: Ctrl-C ends the process again, since an
    exception amid them may be swallowed or come out as another.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not _unwind:
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    _interrupt("stopped by SIGINT")
    os._exit(128 + number)


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    if os.getpid() not in _process:  # a worker, forked from it
        raise KeyboardInterrupt
    _interrupt("stopped by SIGINT")
    raise Stopped("", 128 + number)


def _interrupt(sentence: str) -> None:
    """Says that the first Ctrl-C was heard; the second ends the process."""
    _interrupted.append(signal.SIGINT)  # before anything else: the second may come amid this
    if len(_interrupted) > 1:
        os._exit(128 + signal.SIGINT)
    if os.environ.get("LOCAL_RANK", "0") == "0":  # print() may not be called amid print()
        os.write(2, f"\njensen: {sentence}\n".encode())


def asked() -> int:
    """The first signal that was noted, 0 if none was."""
    return _noted[0] if _noted else 0


def forget() -> None:
    """Forget what was noted, which has been acted on; a further Ctrl-C still ends the process at
    once.
    """
    _noted.clear()


def note(number: int) -> None:
    """Have a signal asked again, of another run in this process; nothing where one is asked."""
    if not _noted:
        _noted.append(number)


def hold(held: bool) -> None:
    """Keeps the asking signals waiting, or lets them through: while others set handlers of their
    own; of SIGINT none do.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK if held else signal.SIG_UNBLOCK, HELD)


def ignore() -> None:
    """For `atexit`: the interpreter ends without handlers, and a signal would make a failure of a
    run that is finished.
    """
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)


def _note(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        _interrupt("SIGINT: it ends after this step; once more ends it at once, without saving")
    _noted.append(number)


if __name__ == "__main__":
    hold(True)
    os.execvp(sys.argv[1], sys.argv[1:])
