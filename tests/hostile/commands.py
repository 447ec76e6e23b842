"""A command as a user's shell would see it, in this process: the same main, through Hydra, without
the seconds of importing.
"""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from jensen import train


class Ended(NamedTuple):
    status: int
    out: str
    err: str


def run_here(
    capsys: pytest.CaptureFixture[str], main: Callable[[], object], *overrides: str
) -> Ended:
    """Runs a program of jensen with `overrides`; anything but an exit is the traceback that a user
    would see.
    """
    GlobalHydra.instance().clear()
    line = sys.argv
    status = 0
    level = logging.root.level
    quiet = (
        "hydra/job_logging=disabled" if main is train.main else "hydra.job_logging.root.handlers=[]"
    )
    sys.argv = ["jensen", *overrides, quiet, "hydra/hydra_logging=disabled"]
    capsys.readouterr()
    try:
        with patch.object(
            Hydra, "get_mode", lambda *_, **__: None
        ):  # for which it composes all once more
            main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv = line
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
        logging.root.setLevel(
            level
        )  # Hydra has raised it, and turned the loggers off, for other tests too
        for name in logging.root.manager.loggerDict:
            logging.getLogger(name).disabled = False
    return Ended(status, *capsys.readouterr())


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file below `folder` with its bytes, folders with None; locks, which hold nothing, are
    left out.
    """
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if not path.name.endswith(".lock")
    }


def sentence(err: str) -> str:
    """The one line that a command said about bad input, without what Hydra puts around it."""
    around = (
        "Error executing job",
        "Set the environment variable",
        "See https://hydra.cc",
        "jensen:",
    )
    lines = [line for line in err.splitlines() if line.strip() and not line.startswith(around)]
    assert len(lines) == 1, err
    return lines[0]
