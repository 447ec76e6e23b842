"""Leave to fetch data: a run's own command says so, the folder of a run does not."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from jensen.base.errors import InputError

_allowed = ContextVar("allowed", default=True)


@contextmanager
def downloads(allowed: bool) -> Iterator[None]:
    """Allow or refuse downloads in the context, whatever a configuration says; what is refused
    stays so further in.
    """
    token = _allowed.set(allowed and _allowed.get())
    try:
        yield
    finally:
        _allowed.reset(token)


def check_download(what: str) -> None:
    """Refuse to fetch `what` where downloads are not allowed."""
    if not _allowed.get():
        raise InputError(
            f"{what} would be downloaded, as the run's configuration says: expected files that are"
            " there; put them there, or add download=true"
        )
