"""The structure that two models must share to be trained as one program.

Their tensors are stacked, so their values may differ; whatever else a step reads is read of one of
them for all.
"""

from collections import deque
from collections.abc import Iterator
from functools import partial
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
    for name, part in module.named_modules():
        tensors = (*part._parameters.items(), *part._buffers.items())
        yield (
            name,
            type(part),
            tuple((key, _shape(value)) for key, value in tensors),
            attributes(part),
        )


def attributes(part: nn.Module) -> tuple[tuple[str, Any], ...]:
    """What a module keeps beside its tensors and modules, as a step would read it, by name."""
    untold = getattr(part, "told_by_buffers", ())
    return tuple(sorted((key, compared(value)) for key, value in kept(part) if key not in untold))


def kept(part: nn.Module) -> Iterator[tuple[str, Any]]:
    """Attributes of a module that are not torch's."""
    return (each for each in vars(part).items() if each[0] not in _OF_TORCH)


def _shape(value: Tensor | None) -> tuple[Any, ...] | None:
    return None if value is None else (tuple(value.shape), value.dtype, value.requires_grad)


def compared(value: Any) -> Any:
    """A value that compares as the step would read it; of an object of which that is not known, the
    object itself, which equals no other.
    """
    if isinstance(value, PLAIN):
        return type(value), value
    if isinstance(value, tuple | list | deque):
        return type(value), tuple(map(compared, value))
    if isinstance(value, dict):
        return type(value), tuple((key, compared(each)) for key, each in value.items())
    if isinstance(value, set | frozenset):
        return type(value), frozenset(map(compared, value))
    if isinstance(value, partial):
        return partial, compared((value.func, value.args, value.keywords))
    if hasattr(value, "__qualname__"):  # a function, a class, or a method of the model itself
        return value.__module__, value.__qualname__
    return id(value)
