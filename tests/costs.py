"""CPU seconds of the tests, by file: the last lines of a run, and `--costs FILE` for all tests.

Of a worker, what it started and waited for, and what the processes of `ranks.py` used. Machines are
shared and workers wait for another: seconds of the clock say little.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

LISTED = 10
TICKS = os.sysconf("SC_CLK_TCK")


class Costs:
    """What the tests of this process cost; the one that shares them out adds up its workers'."""

    def __init__(self) -> None:
        self.of_test: dict[str, list[float]] = {}
        self.before = 0.0
        self.whole = 0.0

    def pytest_collection_finish(self) -> None:
        self.before += spent()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        yield from self._phase(item, 0)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        yield from self._phase(item, 1)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        yield from self._phase(item, 2)

    def _phase(self, item: pytest.Item, place: int) -> Any:
        start = spent()
        try:
            return (yield)
        finally:
            self.of_test.setdefault(item.nodeid, [0.0, 0.0, 0.0])[place] += spent() - start

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.whole += spent()
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["costs"] = vars(self)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take in a worker's; one that died has none."""
        told = getattr(node, "workeroutput", {}).get("costs")
        if told:
            self.of_test |= told["of_test"]
            self.before += told["before"]
            self.whole += told["whole"]

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        files: Counter[str] = Counter()
        for test, seconds in self.of_test.items():
            files[test.partition("::")[0]] += sum(seconds)
        terminalreporter.section("CPU seconds")
        for file, seconds in files.most_common(LISTED):
            terminalreporter.line(f"{seconds:7.1f} {file}")
        rest = sum(files.values()) - sum(seconds for _, seconds in files.most_common(LISTED))
        terminalreporter.line(f"{rest:7.1f} {max(len(files) - LISTED, 0)} other files")
        terminalreporter.line(f"{self.before:7.1f} imports and collection")
        terminalreporter.line(f"{self.whole:7.1f} in all")
        if config.getoption("costs"):
            Path(config.getoption("costs")).write_text(json.dumps(self.of_test, indent=1))


def spent() -> float:
    """CPU seconds of this process, of its children that have ended, and of those that multiprocessing's
    server has forked for it.
    """
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system + _served()


def _served() -> float:
    server = getattr(forkserver._forkserver, "_forkserver_pid", None)
    if server is None:
        return 0.0
    with suppress(OSError, IndexError):  # elsewhere than on Linux, or gone
        told = os.pread(_stat_of(server), 1024, 0).rpartition(b")")[2].split()
        return sum(map(int, told[11:15])) / TICKS
    return 0.0


@cache
def _stat_of(process: int) -> int:
    return os.open(f"/proc/{process}/stat", os.O_RDONLY)
