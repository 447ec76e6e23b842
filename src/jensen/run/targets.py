"""One spelling of a `_target_`: `jensen.objective.Beta`, whichever file of its package it lies
in.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

PACKAGES = ("algorithm", "base", "callbacks", "data", "diagnostics", "family", "model", "objective")
"""Packages of jensen, those with a table (`PLACES`) of the names that a conf file may use."""


def short(target: str) -> str:
    """`jensen.objective.beta.Beta` as `jensen.objective.Beta`; another name as it is."""
    package, _, rest = target.removeprefix("jensen.").partition(".")
    module, _, name = rest.rpartition(".")
    known = target.startswith("jensen.") and _places(package).get(name) == module
    return f"jensen.{package}.{name}" if known else target


def long(target: str) -> str:
    """`jensen.objective.Beta` as `jensen.objective.beta.Beta`; another name as it is."""
    package, _, name = target.removeprefix("jensen.").partition(".")
    known = target.startswith("jensen.") and name in _places(package)
    return f"jensen.{package}.{_places(package)[name]}.{name}" if known else target


def one_spelling(tree: Any) -> Any:
    """A tree of mappings and lists with each `_target_` in it `short`."""
    if isinstance(tree, dict):
        return {
            key: short(value)
            if key == "_target_" and isinstance(value, str)
            else one_spelling(value)
            for key, value in tree.items()
        }
    return [one_spelling(value) for value in tree] if isinstance(tree, list) else tree


def _places(package: str) -> Mapping[str, str]:
    places: Mapping[str, str] = (
        import_module(f"jensen.{package}").PLACES if package in PACKAGES else {}
    )
    return places
