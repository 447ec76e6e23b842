"""Kinds of jobs that can be trained as one program, and in what one differs from another."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jensen.algorithm.alike import PLAIN

_ABSENT = object()


class Kind(NamedTuple):
    """Equal for jobs that can be trained together.

    Args:
        model: its structure (`algorithm.alike`).
        objective: likewise.
        optimizer: its `_target_`.
        settings: the other keys of the configuration that count, by name, as JSON.
    """

    model: tuple[Any, ...]
    objective: tuple[Any, ...]
    optimizer: str
    settings: str

    def unlike(self, other: "Kind") -> list[str]:
        """Settings that keep them apart, such as `data.batch_size is 6, not 12`."""
        found = [
            _of_parts(key, getattr(self, key), getattr(other, key))
            for key in ("model", "objective")
            if getattr(self, key) != getattr(other, key)
        ]
        if self.optimizer != other.optimizer:
            found.append(f"optimizer is {self.optimizer}, not {other.optimizer}")
        return [*found, *_of_settings(json.loads(self.settings), json.loads(other.settings))]


def _of_parts(key: str, these: tuple[Any, ...], others: tuple[Any, ...]) -> str:
    """The first difference of two structures."""
    for (name, kind, tensors, kept), (name2, kind2, tensors2, kept2) in zip(
        these, others, strict=False
    ):
        place = f"{key}.{name}" if name else key
        if name != name2:
            break
        if kind != kind2:
            return f"{place} is {kind.__name__}, not {kind2.__name__}"
        if tensors != tensors2:
            return f"{place} has {_of_tensors(dict(tensors), dict(tensors2))}"
        if kept != kept2:
            return _of_values(place, dict(kept), dict(kept2))
    return f"{key} has other parts"


def _of_tensors(these: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    for name, shape in these.items():
        other = others.get(name)
        if shape and other and shape[0] != other[0]:
            return f"{name} of shape {shape[0]}, not {other[0]}"
    return "other parameters"


def _of_values(place: str, these: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """The first attribute that differs, with its values where they are plain."""
    name = next(key for key in {**these, **others} if these.get(key) != others.get(key))
    try:
        return f"{place}.{name} is {_plain(these[name])!r}, not {_plain(others[name])!r}"
    except (KeyError, TypeError):
        return f"{place}.{name} is another"


def _plain(value: Any) -> Any:
    """The value that `algorithm.alike` compares so.

    Raises:
        TypeError: it is no plain one.
    """
    kind, given = value
    if kind in PLAIN:
        return given
    if kind in (list, tuple):
        return [_plain(each) for each in given]
    raise TypeError


def _of_settings(these: Any, others: Any, place: str = "") -> Iterator[str]:
    """Each key whose values differ."""
    if not (isinstance(these, dict) and isinstance(others, dict)):
        if these != others:
            yield f"{place} is {_word(these)}, not {_word(others)}"
        return
    for key in {**these, **others}:
        within = f"{place}.{key}" if place else key
        yield from _of_settings(these.get(key, _ABSENT), others.get(key, _ABSENT), within)


def _word(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    if isinstance(value, dict):
        return "made of parts"
    return value if isinstance(value, str) else json.dumps(value)
