"""The size of a configuration once its interpolations are resolved, without resolving any: a few
lines may fill memory.

`b: ${a}${a}`, `c: ${b}${b}` and so on double at each line.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

from jensen.base.errors import InputError

MOST = 1 << 22
"""Characters and nodes of a resolved configuration. One of jensen.train's has some 20,000."""
_NAME = re.compile(r"[\w.\[\]-]+")
_PLAIN = re.compile(r"\s*[\w.\[\]-]+\s*[:}]")
_ASKS = re.compile(r"\boc\.(?!env:)[\w.]+:")
_ASKED = re.compile(r"\s*[\w.\[\]-]+\s*[,}]")

Path = tuple[str, ...]


def check(tree: Any, name: object) -> None:
    """Refuse a `tree` of mappings, lists and values, as written, that says more than `MOST` once it
    is resolved.

    Raises:
        InputError: it does, or that cannot be told; `name` is the file that it is of.
    """
    for text in _leaves(tree):
        if isinstance(text, str) and "${" in text and not _is_plain(text):
            raise InputError(
                f"{name} has the interpolation {text[:80]!r}: expected the plain name of a key in"
                " it; write it out"
            )
    try:
        size = _Sizes(tree).of(())
    except RecursionError:
        size = math.inf
    if size > MOST:
        raise InputError(
            f"{name} says {size:.0e} characters once its interpolations are resolved: expected at"
            f" most {MOST:,}, since more fills the memory; take another folder"
        )


def _is_plain(text: str) -> bool:
    """Tell whether the keys that the interpolations of a text lead to are known without resolving
    any: no name is made by one.
    """
    asked = (_ASKED.match(text, found.end()) for found in _ASKS.finditer(text))
    return all(_PLAIN.match(part) for part in text.split("${")[1:]) and all(asked)


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict | list):
        for child in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(child)
    else:
        yield tree


def _of_another_kind(node: dict[Any, Any], part: str) -> Any:
    """The value at a key that is no text, such as a number."""
    return next((value for key, value in node.items() if str(key) == part), None)


class _Sizes:
    """Sizes of the nodes of a tree, by path, in characters and nodes, each found once; any may be
    less, none more.
    """

    def __init__(self, tree: Any) -> None:
        self._tree = tree
        self._known: dict[Path, float] = {}

    def of(self, path: Path) -> float:
        if path not in self._known:
            self._known[path] = 0  # of what leads back to itself OmegaConf says more
            node = self._at(path)
            if isinstance(node, dict | list):
                keys = node if isinstance(node, dict) else range(len(node))
                self._known[path] = 1 + sum(self.of((*path, str(key))) for key in keys)
            else:
                text = str(node)
                self._known[path] = len(text) + sum(
                    self.of(other) for other in self._led_to(text, path)
                )
        return self._known[path]

    def _led_to(self, text: str, path: Path) -> Iterator[Path]:
        """The nodes that a text may name in its interpolations."""
        if "${" not in text:
            return
        for word in _NAME.findall(text):
            name = word.lstrip(".")
            up = len(word) - len(name)
            start = path[: len(path) - up] if up else ()
            found = (*start, *(part for part in re.split(r"[.\[\]]", name) if part))
            if found and self._at(found) is not None:
                yield found

    def _at(self, path: Path) -> Any:
        node = self._tree
        for part in path:
            if isinstance(node, dict):
                node = node[part] if part in node else _of_another_kind(node, part)
            elif isinstance(node, list) and part.isdecimal() and int(part) < len(node):
                node = node[int(part)]
            else:
                return None
        return node
