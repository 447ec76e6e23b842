"""The other ranks of a run, for one that cannot go on without them.

A rank whose own failure it is writes `failed.json` before its connections close, so that whoever
loses it finds the reason. Where there is none, the rank was ended from outside, and the same
command goes on.
"""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jensen.base.errors import InputError

LOST = 75
"""The status of a process that lost another rank: EX_TEMPFAIL, after which one tries again."""
PATIENCE = 2.0
"""Seconds in which ranks that find one failure all come to it."""
_LOOK = 0.05
_KINDS = ("DistBackendError", "DistNetworkError", "DistStoreError")
_WORDS = re.compile(
    r"connection|broken pipe|remote ?(peer|process|error)|aborted|time(d )?out", re.I
)
"""Words of torch's errors on a rank that is gone, and not of ranks that are set up wrongly."""


def lost(error: BaseException) -> str:
    """The words of torch on a lost rank where that is behind an error; empty where it is not, as where
    this rank's own failure came first.
    """
    found = ""
    for each in _chain(error):
        if _is_loss(each):
            found = str(each)
        elif found and isinstance(each, InputError):
            return ""
    return re.sub(r"^\[[^]]*\] ", "", found.strip()).partition(". This is")[0].partition("\n")[0]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, and what caused that."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_loss(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError):
        return False
    distributed: Any = sys.modules.get("torch.distributed")  # importing it takes seconds
    kinds = tuple(getattr(distributed, name) for name in _KINDS if hasattr(distributed, name))
    return "gloo/transport/" in str(error) or (
        isinstance(error, kinds) and _WORDS.search(str(error)) is not None
    )


def wait_for_word(
    word: Callable[[], str], started: Callable[[], Sequence[subprocess.Popen[Any]]]
) -> str:
    """The word of a rank that failed, for as long as one may be on its way; empty where there is none.

    Args:
        started: the ranks that this process has started, as far as it has.
    """
    until = time.monotonic() + PATIENCE
    # Lightning ends this process a few seconds after one of those: what they had to say is there.
    while time.monotonic() < until and all(each.poll() is None for each in started()):
        if found := word():
            return found
        time.sleep(_LOOK)
    return word()


def is_first(said: Path) -> bool:
    """Tell whether this rank is the first to make a file that the ranks left share."""
    try:
        said.touch(exist_ok=False)
    except OSError:
        return False
    return True


def ended(started: Sequence[subprocess.Popen[Any]]) -> str:
    """Name the ranks that ended, and how; empty where this process started none of them."""
    codes = {rank: each.poll() for rank, each in enumerate(started, 1)}
    return " and ".join(f"rank {rank} {_how(code)}" for rank, code in codes.items() if code)


def _how(code: int) -> str:
    if code > 0:
        return f"ended with status {code}"
    killed = " (as where memory is short)" if code == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{killed}"
