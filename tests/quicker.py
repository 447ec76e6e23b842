"""OmegaConf's own work in fewer steps, of which a configuration has thousands: it was a third of the
time of a short command.

Nothing that it does is done otherwise: `test_composing.py` compares with OmegaConf alone.
"""

import copy
import dataclasses
import sys
from abc import ABCMeta
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

import attr
from omegaconf import _utils
from omegaconf.base import Metadata, Node
from omegaconf.nodes import AnyNode, BooleanNode, FloatNode, IntegerNode, StringNode, ValueNode

ANNOTATIONS = (
    "is_union_annotation",
    "is_dict_annotation",
    "is_list_annotation",
    "is_tuple_annotation",
    "is_container_annotation",
)


class _Plain(ABCMeta):
    """Nobody registers classes with OmegaConf's: `isinstance` need not look for any."""

    __instancecheck__ = type.__instancecheck__
    __subclasscheck__ = type.__subclasscheck__


def install() -> None:
    """Have OmegaConf work so in this process, and in those that are forked from it."""
    for kind in _below(Node):
        kind.__class__ = _Plain
    for kind in (AnyNode, BooleanNode, FloatNode, IntegerNode, StringNode):
        kind.__deepcopy__ = _of_value
    Metadata.__deepcopy__ = _of_metadata  # type: ignore[attr-defined]
    Node.__getstate__ = _state  # type: ignore[method-assign]
    del Node.__setstate__
    for name in ANNOTATIONS:
        _replace(name, _unless_any)
    _replace("is_structured_config", lambda _: _is_structured)


def _below(kind: type) -> set[type]:
    """A class and all that are made of it."""
    return {kind}.union(*map(_below, kind.__subclasses__()))


def _replace(name: str, changed: Callable[[Any], Any]) -> None:
    """One of `_utils`, wherever it was imported to."""
    before = getattr(_utils, name)
    after = changed(before)
    ours = [each for place, each in sys.modules.items() if place.startswith("omegaconf")]
    for module in ours:
        if vars(module).get(name) is before:
            setattr(module, name, after)


def _of_value(node: ValueNode, memo: dict[int, Any]) -> ValueNode:
    """A copy; its value and parent are the node's own, as ever."""
    found: ValueNode = object.__new__(type(node))
    found.__dict__.update(node.__dict__)
    found.__dict__["_metadata"] = _of_metadata(node._metadata, memo)
    found.__dict__["_flags_cache"] = None
    return found


def _of_metadata(given: Metadata, memo: dict[int, Any]) -> Metadata:
    found: Metadata = object.__new__(type(given))
    found.__dict__.update(given.__dict__)
    found.flags = None if given.flags is None else dict(given.flags)
    known = given.resolver_cache
    found.resolver_cache = copy.deepcopy(known, memo) if known else defaultdict(dict)
    return found


def _state(node: Node) -> dict[str, Any]:
    """What `__setstate__` has left behind, ready to be taken as it is."""
    return node.__dict__ | {"_flags_cache": None}


def _unless_any(asks: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A question to a type that is Any for nearly every node."""
    return lambda kind: kind is not Any and asks(kind)


def _is_structured(given: Any) -> bool:
    kind = given if isinstance(given, type) else type(given)
    return not issubclass(kind, Node) and _is_structured_type(kind)


@cache
def _is_structured_type(kind: type) -> bool:
    return attr.has(kind) or dataclasses.is_dataclass(kind)
