"""Objects that were given in Python, in the places of a run's configuration where a command would
have a constructor call.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from jensen.base.errors import InputError

TARGET = "jensen.run.given.given"
_objects: ContextVar[Mapping[str, object]] = ContextVar("objects", default={})  # noqa: B039 (never changed)


def given(name: str, kind: str) -> object:
    """The object `name`, of the class `kind`, that `giving` holds.

    Raises:
        InputError: it holds none.
    """
    if name not in _objects.get():
        raise InputError(
            f"the {name} of this run was given in Python, {kind}, and no file holds it: expected"
            " it again; read the run by jensen.load(folder, model=..., data=..., objective=...)"
            " with what jensen.fit was called with"
        )
    return _objects.get()[name]


def node(name: str, kind: str) -> dict[str, str]:
    """The words of a configuration for such an object."""
    return {"_target_": TARGET, "name": name, "kind": kind}


@contextmanager
def giving(objects: Mapping[str, object]) -> Iterator[None]:
    """Gives `objects` to whatever is made of a configuration inside."""
    before = _objects.set(objects)
    try:
        yield
    finally:
        _objects.reset(before)
