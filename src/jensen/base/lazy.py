"""Names that a package finds when they are first asked for, so that importing it stays light."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazily(
    package: str, places: Mapping[str, str], modules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        places: the module below the package that each name is found in. A name that is a module's
            too would be hidden by it once that is imported: it is not for here.
        modules: those below the package that are found themselves.
    """

    def find(name: str) -> Any:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{places[name]}"), name)

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *places, *modules})

    return find, listed
