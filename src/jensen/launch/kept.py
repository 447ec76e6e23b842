"""Processes that joblib keeps for its next call, for five minutes.

They hold all files of the process that started them, so also the pipe by whose end its own end is
known: whoever waits for that would wait as long.
"""

import sys


def end_kept() -> None:
    """End those of this process; joblib starts others where it needs them."""
    module = sys.modules.get("joblib.externals.loky.reusable_executor")
    executor = getattr(module, "_executor", None)
    if executor is not None:
        executor.shutdown(wait=True, kill_workers=True)
