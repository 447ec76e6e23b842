"""Questions to the device that are nearly always answered with no.

To answer one the host waits for the device, and no CUDA graph may hold it. Within `presuming` the
answer is no, and whoever entered that asks for all of them at once, later.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_presumed: ContextVar[list[Tensor] | None] = ContextVar("presumed", default=None)


def unlikely(flag: Tensor) -> bool:
    """The flag `()`; within `presuming` False.

    >>> import torch
    >>> with presuming() as flags:
    ...     unlikely(torch.tensor(True))
    False
    >>> flags
    [tensor(True)]
    """
    flags = _presumed.get()
    if flags is None:
        return bool(flag)
    flags.append(flag)
    return False


def presumes() -> bool:
    """Tell whether questions are put off here."""
    return _presumed.get() is not None


@contextmanager
def presuming() -> Iterator[list[Tensor]]:
    """Answer no, and keep the flags: where one of them holds, what was computed is of no use."""
    flags: list[Tensor] = []
    token = _presumed.set(flags)
    try:
        yield flags
    finally:
        _presumed.reset(token)
