"""Cases of which the quick run tries some, and the slow run the rest."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

_slow = pytest.mark.slow


def slow(*values: Any, **more: Any) -> Any:
    """A case of `pytest.mark.parametrize` that is tried by `scripts/test --slow`."""
    return pytest.param(*values, marks=_slow, **more)


def some(
    count: int, names: str | Sequence[str], cases: Iterable[Any], **more: Any
) -> pytest.MarkDecorator:
    """`pytest.mark.parametrize` with `count` of the cases, spread evenly over them, and the others
    for the slow run.

    names: as parametrize takes them; of several, each case is a tuple.
    """
    listed: Sequence[Any] = [*cases]
    quick = {round(place * (len(listed) - 1) / max(count - 1, 1)) for place in range(count)}
    alone = isinstance(names, str) and "," not in names
    rest = [case if place in quick else _later(case, alone) for place, case in enumerate(listed)]
    return pytest.mark.parametrize(names, rest, **more)


def _later(case: Any, alone: bool) -> Any:
    if hasattr(case, "marks"):  # a pytest.param
        return pytest.param(*case.values, id=case.id, marks=(*case.marks, _slow))
    return slow(case) if alone else slow(*case)
