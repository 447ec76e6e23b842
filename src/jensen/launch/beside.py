"""Work on many runs, side by side in processes that have imported all once."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import TypeVar

import torch

from jensen.base.errors import InputError
from jensen.data.source import shared
from jensen.launch.kept import end_kept
from jensen.launch.threads import cores, limit

Item = TypeVar("Item")
Result = TypeVar("Result")
_SHARED = ExitStack()


def beside(
    task: Callable[[Item], Result], items: Sequence[Item], jobs: int
) -> Iterator[tuple[Item, Result]]:
    """Each item with what `task`, a function of a module, makes of it, as they come; `jobs` at a time.

    Data that several read are read once in each process.

    Raises:
        InputError: a process was killed.
    """
    context = get_context("forkserver" if sys.platform == "linux" else "spawn")
    jobs = min(jobs, len(items))
    threads = max(1, cores() // jobs)
    with ProcessPoolExecutor(jobs, context, begin, (threads,)) as pool:
        asked = {pool.submit(task, item): item for item in items}
        try:
            for future in as_completed(asked):
                yield asked[future], future.result()
        except BrokenExecutor as error:
            raise InputError(
                f"one of {jobs} processes was killed, as a system without memory does: expected"
                " room for all; lower jobs, and run the same command again, it does what is left"
            ) from error
        finally:
            processes = [*(pool._processes or {}).values()]
            pool.shutdown(wait=False, cancel_futures=True)
            if not all(map(Future.done, asked)):
                for process in processes:
                    kill(process)


def kill(process: BaseProcess) -> None:
    """Kill a process that has begun by `begin`, and those that it has started."""
    try:
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has not begun yet
        process.kill()


def begin(threads: int = 1) -> None:
    """Prepare a process for one item after another, with so many threads; it ends with the one that
    started it, and with it all that it has started.
    """
    os.setpgrp()
    _end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends them to all processes
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(threads)
    limit(threads)
    os.environ["LOKY_MAX_CPU_COUNT"] = str(threads)  # joblib's count of cores
    Finalize(None, end_kept, exitpriority=100)
    _SHARED.enter_context(shared())


def _end_with_parent() -> None:
    # Not `os.getppid`: that is multiprocessing's server, which stays as long as its children do.
    started_by = parent_process()
    if started_by is None:
        return

    def watch() -> None:
        wait([started_by.sentinel])
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
