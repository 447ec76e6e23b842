"""`kills.py` as a process of its own."""

import os
import sys
import tempfile
from pathlib import Path

from nursery import SERVER


def faults(*arguments: str) -> str:
    """What it said."""
    with tempfile.NamedTemporaryFile() as said:
        process = SERVER.Process(target=_live, args=(arguments, said.name))
        process.start()
        process.join(3000)
        process.kill()
        process.join()
        text = Path(said.name).read_text()
    assert process.exitcode == 0, text
    return text


def _live(arguments: tuple[str, ...], said: str) -> None:
    file = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    import kills

    sys.exit(kills.main(arguments))
