"""Origin of the code that a step runs, and what it reads of Python.

jensen's and torch's modules read their arguments, their tensors and what they keep. Somebody's own may read a
number of its file, of a module that it imports, or of a class, too, which a step that is repeated without
Python would have for good.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from jensen.algorithm.alike import HOLDERS, PLAIN, is_filled, kept

_OURS = ("jensen", "torch", "builtins", "collections", "functools")

Read = tuple[Mapping[str, Any], str]
"""A dictionary of names, and the name in it that is read."""


def is_known(*modules: nn.Module) -> bool:
    """Tell whether a step of the modules runs no code but jensen's, torch's and Python's own.

    >>> is_known(nn.Linear(2, 3))
    True
    """
    seen: dict[int, Any] = {}
    waiting: list[Any] = [*modules]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, (*PLAIN, Tensor)):
            continue
        seen[id(value)] = value
        if not _is_ours(value if isinstance(value, type | FunctionType) else type(value)):
            return False
        if isinstance(value, nn.Module) and not all(map(_is_ours, methods(value))):
            return False
        waiting += _within(value)
    return True


def methods(module: nn.Module) -> list[FunctionType]:
    """The functions of a module's classes as they are now: somebody may put others in their place."""
    bases = (base for base in type(module).__mro__ if base not in (nn.Module, object))
    return [
        value for base in bases for value in vars(base).values() if isinstance(value, FunctionType)
    ]


def _is_ours(code: Any) -> bool:
    return str(code.__module__).partition(".")[0] in _OURS


def _within(value: Any) -> Iterable[Any]:
    """Things that a value holds, or calls."""
    if isinstance(value, nn.Module):
        return [*value.children(), *(each for _, each in kept(value))]
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, (tuple, frozenset, *HOLDERS)):
        return value
    if isinstance(value, partial):
        return value.func, value.args, value.keywords
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if isinstance(value, FunctionType):
        return [cell.cell_contents for cell in value.__closure__ or () if is_filled(cell)]
    return ()


def read(module: nn.Module) -> tuple[Read, ...]:
    """The numbers, lists and the like of them, functions and classes that somebody's own code of a module reads
    beside what the module keeps, as far as their names stand in the code.
    """
    return () if _is_ours(type(module)) else _read_by(type(module))  # type: ignore[arg-type]  # hashed by id


@cache
def _read_by(kind: type) -> tuple[Read, ...]:
    found: dict[tuple[int, str], Read] = {}
    seen: set[int] = set()
    waiting: list[type | FunctionType] = [kind]
    while waiting:
        code = waiting.pop()
        of_library = code is not kind and _is_installed(code.__module__)
        if id(code) in seen or _is_ours(code) or of_library:
            continue
        seen.add(id(code))
        bases = code.__mro__ if isinstance(code, type) else ()
        places = [vars(base) for base in bases if not _is_ours(base)]
        for function in _functions(code):
            for held, name in _named(function, places):
                if isinstance(held[name], type | FunctionType):
                    waiting.append(held[name])
                if isinstance(held[name], (*PLAIN, tuple, *HOLDERS, type, FunctionType)):
                    found[id(held), name] = held, name
    return tuple(found.values())


def _functions(code: type | FunctionType) -> list[FunctionType]:
    """A function, or those that a class has from nobody but its author."""
    if isinstance(code, FunctionType):
        return [code]
    own = [value for base in code.__mro__ if not _is_ours(base) for value in vars(base).values()]
    bare = [getattr(each, "__func__", None) or getattr(each, "fget", None) or each for each in own]
    return [each for each in bare if isinstance(each, FunctionType)]


def _named(function: FunctionType, places: Iterable[Mapping[str, Any]]) -> Iterator[Read]:
    """Things that a function may read by the names in its code: of its file, of places, and of modules and
    objects that its file knows.
    """
    names = {*_names(function.__code__)}
    here = function.__globals__
    known = [here[name] for name in names & here.keys()]
    objects = [vars(each) for each in known if hasattr(each, "__dict__") and _is_changeable(each)]
    for place in (here, *places, *objects):
        yield from ((place, name) for name in names & place.keys())


def _names(code: CodeType) -> Iterator[str]:
    """All names in code, also in that of the functions which it makes."""
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _names(part)


def _is_changeable(value: Any) -> bool:
    """Tell whether somebody may change what an object holds."""
    if isinstance(value, ModuleType):
        return not _is_installed(value.__name__)
    return not isinstance(value, FunctionType | nn.Module)


def _is_installed(name: str | None) -> bool:
    """Tell whether a module of that name is Python's or a library's, in which nobody changes numbers."""
    file = getattr(sys.modules.get(str(name)), "__file__", "")
    return str(name).partition(".")[0] in sys.stdlib_module_names or "site-packages" in str(file)
