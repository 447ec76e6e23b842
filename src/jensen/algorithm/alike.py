"""The structure that two models must share to be trained as one program.

Their tensors are stacked, so their values may differ; whatever else a step reads is read of one of
them for all.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}
PLAIN = (bool, int, float, complex, str, bytes, type(None))
HOLDERS = (list, dict, set, deque)


def structure(module: nn.Module) -> tuple[Any, ...]:
    """All that a step of a module depends on besides the values of its tensors: equal for modules
    that can be stacked.

    An attribute that no step reads, since a buffer holds the number too, is left out if the class
    names it in `told_by_buffers`.

    >>> structure(nn.Linear(2, 3)) == structure(nn.Linear(2, 3))
    True
    >>> structure(nn.LeakyReLU(0.1)) == structure(nn.LeakyReLU(0.2))
    False
    """
    return tuple(_parts(module))


def _parts(module: nn.Module) -> Iterator[tuple[Any, ...]]:
    within = {id(part): name for name, part in module.named_modules()}
    for name, part in module.named_modules():
        tensors = (*part._parameters.items(), *part._buffers.items())
        yield (
            name,
            type(part),
            tuple((key, _shape(value)) for key, value in tensors),
            attributes(part, within),
        )


def attributes(
    part: nn.Module, within: Mapping[int, str] | None = None
) -> tuple[tuple[str, Any], ...]:
    """Things that a module keeps beside its tensors and modules, as a step would read it, by name.

    within: names of modules, by their `id`, of which a method is that of any model's module there.
    """
    untold = getattr(part, "told_by_buffers", ())
    own = ((key, value) for key, value in kept(part) if key not in untold)
    return tuple(sorted((key, compared(value, within)) for key, value in own))


def kept(part: nn.Module) -> Iterator[tuple[str, Any]]:
    """Attributes of a module that are not torch's."""
    return (each for each in vars(part).items() if each[0] not in _OF_TORCH)


def _shape(value: Tensor | None) -> tuple[Any, ...] | None:
    return None if value is None else (tuple(value.shape), value.dtype, value.requires_grad)


def compared(value: Any, within: Mapping[int, str] | None = None) -> Any:
    """A value that compares as the step would read it; of an object of which that is not known, the
    object itself, which equals no other.
    """
    if isinstance(value, PLAIN):
        return type(value), value
    if isinstance(value, tuple | list | deque):
        return type(value), tuple(compared(each, within) for each in value)
    if isinstance(value, dict):
        return type(value), tuple((key, compared(each, within)) for key, each in value.items())
    if isinstance(value, set | frozenset):
        return type(value), frozenset(compared(each, within) for each in value)
    if isinstance(value, partial):
        return partial, compared((value.func, value.args, value.keywords), within)
    if isinstance(value, MethodType):
        owner = id(value.__self__)
        return compared(value.__func__), (within or {}).get(owner, owner)
    if isinstance(value, FunctionType):
        own = value.__closure__, value.__defaults__, value.__kwdefaults__
        return value.__code__, id(value.__globals__), _given(own)
    return id(value)


def _given(numbers: Any) -> Any:
    """Things that a function has of its own beside its code: plain values, or the objects themselves."""
    if isinstance(numbers, dict):
        return tuple((key, _given(each)) for key, each in numbers.items())
    if isinstance(numbers, tuple):
        return tuple(map(_given, numbers))
    if isinstance(numbers, CellType):
        return _given(numbers.cell_contents) if is_filled(numbers) else None
    return (type(numbers), numbers) if isinstance(numbers, PLAIN) else id(numbers)


def is_filled(cell: CellType) -> bool:
    """Tell whether a function has something in a cell of its closure."""
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
