"""Where the code that a step runs comes from: jensen's and torch's reads its arguments and tensors alone,
somebody's own may read anything.
"""

from collections.abc import Iterable
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from jensen.algorithm.alike import HOLDERS, PLAIN, kept

_OURS = ("jensen", "torch", "builtins", "collections", "functools")


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
        code = value if isinstance(value, type | FunctionType) else type(value)
        if str(code.__module__).partition(".")[0] not in _OURS:
            return False
        waiting += _within(value)
    return True


def _within(value: Any) -> Iterable[Any]:
    """What a value holds, or calls."""
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
        return [cell.cell_contents for cell in value.__closure__ or ()]
    return ()
