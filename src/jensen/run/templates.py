"""Files of settings that differ in plain values alone, such as those of a sweep, in a tenth of the
time: the third of them and all others are read as the second, with their own values.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import yaml

from jensen.run.reading import Loader, parse

_WORD = r"""(?:[\w/]|-?\.?\d)[\w./=,+@~$()\[\]{}'"-]*"""
_QUOTED = r"'[ !-&(-~]*'"
_LINE = re.compile(rf"(?m)^( *(?:- )*(?:[\w.@/-]+: )?)({_WORD}|{_QUOTED})$")
"""A line that ends with a value, which YAML reads as one whatever it is: a word, where no brackets
are open, or what is in quotes.
"""

Place = tuple[int, int]
"""Line and column, from zero."""


class Templates:
    """Reads texts of YAML, and knows the templates of those that it has read."""

    def __init__(self) -> None:
        self._known: dict[bytes, Any] = {}

    def parse(self, text: str) -> Any:
        """Do as `reading.parse`.

        Raises:
            YAMLError, ValueError: as there.
        """
        if "\0" in text:
            return parse(text)
        outline = hashlib.sha256(_LINE.sub(r"\1\0", text).encode()).digest()
        if outline not in self._known:
            self._known[outline] = None
            return parse(text)
        if self._known[outline] is None:
            self._known[outline] = _template(text)
        template = self._known[outline]
        if isinstance(template, _None):
            return parse(text)
        return _filled(template, [_value(found[2]) for found in _LINE.finditer(text)])


class _Slot(NamedTuple):
    """A value: its place among those of a text, and its characters."""

    number: int
    size: int


class _None:
    """There is no template: what looks like a value is another thing."""


def _template(text: str) -> Any:
    """The tree of a text with slots for its values."""
    starts = [0, *(found.end() for found in re.finditer("\n", text))]
    lines = {start: line for line, start in enumerate(starts)}
    slots = {
        (lines[found.start()], found.start(2) - found.start()): _Slot(number, len(found[2]))
        for number, found in enumerate(_LINE.finditer(text))
    }
    left = dict(slots)
    tree = parse(text)  # which refuses what is odd
    try:
        made = _with_slots(yaml.compose(text, Loader=Loader), tree, left)
    except _OddError:
        return _None()
    return _None() if left else made


class _OddError(Exception):
    """A text that is written as jensen.train writes none."""


def _with_slots(node: Any, tree: Any, slots: dict[Place, _Slot]) -> Any:
    """A tree in which each value that stands where a slot is, and is as long, is that slot; which is taken
    from `slots`.
    """
    if isinstance(node, yaml.ScalarNode):
        place = node.start_mark.line, node.start_mark.column
        slot = slots.get(place)
        whole = slot and (place[0], place[1] + slot.size)
        return slots.pop(place) if whole == (node.end_mark.line, node.end_mark.column) else tree
    if node.flow_style and node.start_mark.line != node.end_mark.line:
        raise _OddError
    children = list(_children(node))
    if len(children) != len(tree):
        raise _OddError
    if isinstance(tree, list):
        return [_with_slots(child, each, slots) for child, each in zip(children, tree, strict=True)]
    return {
        key: _with_slots(child, each, slots)
        for child, (key, each) in zip(children, tree.items(), strict=True)
    }


def _children(node: Any) -> Iterator[Any]:
    for each in node.value:
        if isinstance(each, tuple) and not isinstance(each[0], yaml.ScalarNode):
            raise _OddError
        yield each[1] if isinstance(each, tuple) else each


def _filled(template: Any, values: list[Any]) -> Any:
    if isinstance(template, _Slot):
        return values[template.number]
    if isinstance(template, dict):
        return {key: _filled(each, values) for key, each in template.items()}
    if isinstance(template, list):
        return [_filled(each, values) for each in template]
    return template


@lru_cache(1 << 14)
def _value(word: str) -> Any:
    return yaml.load(word, Loader=Loader)
