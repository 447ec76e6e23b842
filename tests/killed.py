"""`kills.py` as a process of its own."""

import subprocess
import sys
from pathlib import Path

KILLS = Path(__file__).with_name("kills.py")


def faults(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(KILLS), *arguments], capture_output=True, text=True, timeout=3000
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
