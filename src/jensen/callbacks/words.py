"""Lines for the person at the terminal, which the run's log keeps."""

import errno
import logging
import os
import sys
from contextvars import ContextVar

from lightning_utilities.core.rank_zero import rank_zero_only
from tqdm import tqdm

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Variables that Lightning reads a rank from, in its order."""

_GONE = (errno.EPIPE, errno.EIO)
"""Numbers of an OSError of a pipe that nobody reads, and of a terminal that is closed."""

SPEAKER: ContextVar[str] = ContextVar("speaker", default="")
"""The name of the run that says a line, where several are trained at once."""


def rank() -> str:
    """The number of this process among the ranks; of ranks that are yet to be started, it is the
    first.
    """
    told = next((os.environ[name] for name in RANKS if name in os.environ), "0")
    return str(getattr(rank_zero_only, "rank", told))  # Lightning's, unset until it is loaded


def leads() -> bool:
    """Tell whether this process is rank zero, the one that writes."""
    return rank() == "0"


def say(line: str) -> None:
    """One line for the person at the terminal, from one rank, above a bar where there is one; the
    run's log keeps it.
    """
    if not leads():
        return
    speaker = SPEAKER.get()
    show(f"jensen: {speaker}{': ' if speaker else ''}{line}")
    note(line)


def show(words: str) -> None:
    """Words on standard output, above a bar where there is one. A terminal that is closed, or a pipe
    that nobody reads any more (`| head`), ends no run.
    """
    try:
        tqdm.write(words, file=sys.stdout)
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in _GONE:
            raise
        _hush()
        note("nobody reads what is said any more: it is in this log alone")


def _hush() -> None:
    """Have what is left for standard output, and what is yet to come, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


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


def numbers(metrics: dict[str, float], tag: str = "val") -> str:
    """The bound in nats per example, the active latents and the scores, as far as they are there.

    >>> numbers({"val/elbo": -60.1234, "val/rate": 12.0, "rate/active_units": 5.0, "sap/sap": 0.1})
    'elbo -60.12, rate 12.00, 5 latents active, sap 0.100'
    """
    bound = [
        f"{name} {metrics[f'{tag}/{name}']:.2f}"
        for name in ("elbo", "distortion", "rate")
        if f"{tag}/{name}" in metrics
    ]
    active = metrics.get("rate/active_units")
    latents = [] if active is None else [f"{active:.0f} latent{'s' * (active != 1)} active"]
    scores = [
        f"{name} {value:.3f}"
        for name, _, key, value in ((*tag.partition("/"), value) for tag, value in metrics.items())
        if name == key
    ]
    return ", ".join([*bound, *latents, *scores])
