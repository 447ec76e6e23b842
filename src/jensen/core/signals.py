"""Signals that ask a run to end: noted when they come, acted on where a run can stop without loss (`callbacks/preempt.py`).

This file imports nothing that takes time: a command listens in its first line, before the imports that take seconds.
`python -m jensen.core.signals COMMAND` runs a command for which the signals wait from the start, until it lets them through.
"""

import os
import signal
import sys
import threading
from types import FrameType

ASKING = {getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)}
"""SIGTERM is what docker, Kubernetes and scancel send; SIGUSR1 (SLURM) and SIGUSR2 (submitit) come ahead of the end."""

_noted: list[int] = []


class Stopped(SystemExit):
    """A run ended because it was asked to, at a step from which the same command continues.

    sentence: what happened, for the person at the terminal. code: of the process, 128 + the signal as in a shell.
    """

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(code)
        self.sentence = sentence


def listen() -> None:
    """From now on the asking signals are noted, and nothing else. Only a process's main thread can, and any other need not."""
    if threading.current_thread() is threading.main_thread():
        for number in ASKING:
            signal.signal(number, _note)


def asked() -> int:
    """The first signal that was noted, 0 if none was."""
    return _noted[0] if _noted else 0


def forget() -> None:
    """What was noted has been acted on."""
    _noted.clear()


def hold(held: bool) -> None:
    """Keeps the asking signals waiting, or lets them through: while others set handlers of their own."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK if held else signal.SIG_UNBLOCK, ASKING)


def ignore() -> None:
    """For `atexit`: the interpreter ends without handlers, and a signal would make a failure of a run that is finished."""
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)


def _note(number: int, frame: FrameType | None) -> None:
    _noted.append(number)


if __name__ == "__main__":
    hold(True)
    os.execvp(sys.argv[1], sys.argv[1:])
