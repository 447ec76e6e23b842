"""A command as a user's shell runs it, `python -m jensen.train ...`, in a process of its own,
without the seconds of importing (`nursery.py`).
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nursery import Popen


def start(
    module: str, *words: str, cwd: Path, env: Mapping[str, str] | None = None, **more: Any
) -> Popen:
    """`python -m MODULE WORDS` in the folder `cwd`, begun; `env` is added to the environment, less
    pytest's own.
    """
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))
    }
    line = [sys.executable, "-m", module, *words]
    return Popen(line, cwd=cwd, env=own | dict(env or {}), text=True, **more)


def run(
    module: str, *words: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """The same, to its end, with what it said."""
    pipe = subprocess.PIPE
    with start(
        module, *words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
    ) as process:
        try:
            said = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess([module, *words], process.returncode, *said)
