"""Waiting for other processes, while which other runs of this one may go on."""

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

T = TypeVar("T")


class Sharing(NamedTuple):
    """Runs that share the main thread.

    runs: how many. elsewhere: gives what a function gives, which is called in a thread of its own
        while the others go on.
    """

    runs: int
    elsewhere: Callable[[Callable[[], Any]], Any]


SHARING: ContextVar[Sharing | None] = ContextVar("sharing", default=None)
"""Set where there are several (`launch.together`)."""


def waited(function: Callable[[], T]) -> T:
    """`function()`, which only waits: what it does itself is done in another thread, maybe.

    >>> waited(lambda: 3)
    3
    """
    sharing = SHARING.get()
    found: T = function() if sharing is None else sharing.elsewhere(function)
    return found


def each(iterator: Iterator[T]) -> Iterator[T]:
    """The items of an iterator, for each of which one waits.

    >>> [*each(iter([1, 2]))]
    [1, 2]
    """
    end = object()
    while (found := waited(partial(next, iterator, end))) is not end:
        yield cast(T, found)


def runs() -> int:
    """Number of runs that share this thread, each of which may ask for processes; 1 where it has it alone."""
    sharing = SHARING.get()
    return 1 if sharing is None else sharing.runs
