"""Lines for the person at the terminal, which the run's log keeps."""

import logging
import sys

from lightning_utilities.core.rank_zero import rank_zero_only
from tqdm import tqdm


def leads() -> bool:
    """Tell whether this process is rank zero, the one that writes; of ranks that are yet to be
    started, it is the first.
    """
    return getattr(rank_zero_only, "rank", 0) == 0  # Lightning's, unset until that is loaded


def say(line: str) -> None:
    """One line for the person at the terminal, from one rank, above a bar where there is one; the
    run's log keeps it.
    """
    if not leads():
        return
    tqdm.write(f"jensen: {line}", file=sys.stdout)
    sys.stdout.flush()
    note(line)


def note(line: str, error: BaseException | None = None) -> None:
    """One line for the files that Hydra logs this run to (train.log), with the traceback of
    `error`; the terminal does not show it.
    """
    if not leads():
        return
    info = (type(error), error, error.__traceback__) if error is not None else None
    record = logging.LogRecord("jensen", logging.INFO, __file__, 0, line, (), info)
    for handler in logging.root.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
