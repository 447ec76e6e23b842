"""A process that a sweep started ends with that sweep, however the sweep was ended.

The sweep holds the other end of a pipe that is the process's standard input. When it is gone, by
SIGKILL too, the pipe closes.
"""

import os
import signal
import stat
import sys
import threading

ENDS_WITH_PARENT = "JENSEN_ENDS_WITH_PARENT"
"""Set in the environment of such a process."""


def hold() -> None:
    """Kills this process's whole group, ranks and all, when the pipe closes; does nothing in a
    process of another origin.
    """
    if os.environ.pop(ENDS_WITH_PARENT, None) and stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)
