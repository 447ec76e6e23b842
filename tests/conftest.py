"""What several tests share."""

import gc
import logging
import os
import signal
from collections.abc import Callable, Generator, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from omegaconf import DictConfig

CHARTS = ("tests/diagnostics", "tests/reports", "tests/test_readme", "tests/test_tour")
"""Where charts are looked at."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--costs", metavar="FILE", help="write the CPU seconds of each test as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Prepare a process that runs tests, which one that shares them out between workers is not."""
    if config.option.markexpr != "slurm":
        # Before torch: a fork of a process that has computed with several threads waits for them for ever.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    from costs import Costs

    config.pluginmanager.register(Costs())
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    from composing import read_once

    from jensen.data import sprites
    from jensen.diagnostics import picture
    from jensen.launch import processes

    read_once()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as behind nohup: some tests interrupt
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Which of all sprites a small set has is asked by each run of a test.
    sprites.permutation = lru_cache(maxsize=4)(sprites.permutation)  # type: ignore[assignment]
    picture.pixels = _drawn(picture.pixels)
    processes.can_fork = lambda: False  # but in launch/test_server.py


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Skip what needs zuko where it is not installed."""
    from jensen.base.errors import InputError

    try:
        return (yield)
    except InputError as error:
        if "which needs zuko" in str(error) and not _has_zuko():
            pytest.skip("zuko is not installed: pip install 'jensen[flows]'")
        raise


def _has_zuko() -> bool:
    try:
        import zuko  # noqa: F401
    except ImportError:
        return False
    return True


def pytest_collection_finish() -> None:
    """Whatever is there now stays: who looks for what can be freed need not look through it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _drawn(draw: Callable[..., Any]) -> Callable[..., Any]:
    """`picture.pixels`, of which laying out is most: left out where a chart is a by-product of a run."""

    def pixels(figure: Any) -> Any:
        if not os.environ.get("PYTEST_CURRENT_TEST", "").startswith(CHARTS):
            figure.set_layout_engine("none")
        return draw(figure)

    return pixels


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of all tests, which the workers share."""
    return _cache(tmp_path_factory)


def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"


@pytest.fixture(scope="session", autouse=True)
def _of_all_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test makes lands in the user's cache, and no file waits for the disk: a run of a
    test saves at every step, and the machine does not lose its power amid it. The processes that
    tests start are of one that is forked here, before the first.
    """
    from nursery import fork_server

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("JENSEN_CACHE", str(_cache(tmp_path_factory)))
        patched.setattr(os, "fsync", lambda _: None)
        fork_server()
        yield


@pytest.fixture(autouse=True)
def _loggers_speak() -> None:
    """A command that an earlier test ran in this process may have had Hydra turn them off."""
    for name in logging.root.manager.loggerDict:
        if name.startswith("jensen"):
            logging.getLogger(name).disabled = False


@pytest.fixture
def configure() -> "Iterator[Callable[..., DictConfig]]":
    """`configure("data=sprites", ...)` composes `conf/train.yaml` with overrides."""
    from composing import composed
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from jensen.run.conf import conf_folder

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        yield composed


@pytest.fixture
def shared_data() -> Path:
    """The folder of small real data sets beside the repository; the test is skipped where there is
    none.
    """
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: this test compares with real data")
    return folder
