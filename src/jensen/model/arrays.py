"""Everyday arrays as numbers: tensors, numpy arrays, frames, lists of rows are read as they are, or
refused in a sentence.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.base.plain import check_unmasked, plain

_MISSING = ("NoneType", "NAType", "NaTType")
"""Types of what pandas and Python put in the place of a missing number."""

_WHOLE = 1 << 53
"""The integers up to here are numbers of float64, all of them."""

_REMEDIES = {
    "toarray": "use toarray()",
    "collect": "use collect()",
    "__next__": "make a list of it",
    "strides": "stack the rows to one array",
}
"""Whatever makes an array of something, by a method by which it is known."""


_OF_A_MASK = {
    "x": ", or make the GMM with missing=True to marginalise them",
    "weights": ", with 0 to leave points out",
}
"""What else may be done about a mask, by the argument that has it."""


def column_names(value: Any) -> tuple[str, ...] | None:
    """The names of a frame's columns, `(D,)`; None for what has none, or only has their numbers."""
    columns = getattr(value, "columns", None)
    if columns is None or not hasattr(value, "to_numpy"):
        return None
    names = list(columns)
    return (
        None
        if all(isinstance(name, int | np.integer) for name in names)
        else tuple(map(str, names))
    )


def is_array(value: Any) -> bool:
    """Tell whether `value` holds all numbers itself: an array, a frame, or rows, rather than
    batches of points.
    """
    if isinstance(value, Tensor | np.ndarray | memoryview | range | bytearray):
        return True
    if hasattr(value, "to_numpy") or hasattr(value, "__array__"):
        return True
    if not isinstance(value, list | tuple):
        return False
    first = value[0] if len(value) else None
    head = first[0] if isinstance(first, list | tuple) and len(first) else first
    nested = isinstance(head, Tensor) and head.is_nested
    return not nested and len(getattr(head, "shape", ())) < 2 and not isinstance(head, dict)


def as_array(name: str, value: Any, missing: bool = False) -> Tensor | np.ndarray:
    """`value` as a tensor or an array of real numbers, without a copy if it is one; `missing` turns
    what is masked to NaN.
    """
    if isinstance(value, Tensor):
        if value.is_complex():
            raise _complex(name)
        return plain(name, value)
    array = _numpy(name, value)
    if isinstance(array, np.ma.MaskedArray):
        array = _unmasked(name, array, missing)
    if array.dtype.kind == "c":
        raise _complex(name)
    if array.dtype.kind == "O":
        return _from_objects(name, array, column_names(value))
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"{name} is an array of {array.dtype}: expected numbers; convert it to float32 or"
            " float64"
        )
    return array


def as_tensor(name: str, value: Any, missing: bool = False) -> Tensor:
    """The same as a tensor: of float32 what has at most its precision, else of float64; tensors
    keep floating dtypes.
    """
    array = as_array(name, value, missing)
    if isinstance(array, Tensor):
        if array.is_floating_point():
            # torch has no arithmetic of float8
            return array.float() if array.dtype.itemsize == 1 else array
        _refuse_inexact(name, array.detach().cpu().numpy())
        return array.double()
    _refuse_inexact(name, array)
    kept = np.float32 if array.dtype.kind == "f" and array.dtype.itemsize <= 4 else np.float64
    # torch takes neither negative strides nor what must not be written to; a copy of a chunk costs
    # nothing.
    awkward = not array.flags.writeable or min(array.strides, default=0) < 0
    return torch.from_numpy(np.array(array, kept) if awkward else np.asarray(array, kept))


def _refuse_inexact(name: str, array: np.ndarray) -> None:
    """Refuse integers that float64 would round, so that different ones would be the same."""
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 8 or not array.size:
        return
    if int(array.max()) <= _WHOLE and int(array.min()) >= -_WHOLE:
        return
    large = array[(array > _WHOLE) | (array < -_WHOLE)]
    size = np.abs(large).astype(np.uint64)
    rounded = large[size // (size & (~size + 1)) > _WHOLE]  # by their lowest bit that is 1
    if len(rounded):
        raise _too_long(name, rounded[0])


def _complex(name: str) -> InputError:
    return InputError(
        f"{name} holds complex numbers: expected real ones; give the parts as columns of their own"
    )


def _too_long(name: str, found: object) -> InputError:
    return InputError(
        f"{name} holds the integer {found!s:.40}, which float64 would round: expected none beyond"
        f" 2^53 = {_WHOLE}; subtract an offset, or convert it yourself"
    )


def _numpy(name: str, value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, dict | set | str | bytes | bytearray):
        raise _no_array(name, value)
    try:
        if hasattr(value, "to_numpy"):
            return np.asanyarray(value.to_numpy())
        rows = isinstance(value, list | tuple) and any(
            isinstance(row, np.ma.MaskedArray) for row in value
        )
        if isinstance(value, list | tuple) and any(isinstance(row, Tensor) for row in value):
            value = [
                as_tensor(name, row).detach().cpu().numpy() if isinstance(row, Tensor) else row
                for row in value
            ]
        array = np.ma.stack(list(value)) if rows else np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).partition(". ")[0]
        raise InputError(
            f"{name} is a {type(value).__name__} that is no array: expected rows of as many"
            f" numbers ({reason})"
        ) from None
    if not array.ndim and array.dtype.kind == "O":
        raise _no_array(name, value)
    return array


def _remedy(value: object) -> str:
    """The call that makes an array of `value`, in words; empty if that is not known."""
    return next((words for method, words in _REMEDIES.items() if hasattr(value, method)), "")


def _no_array(name: str, value: object) -> InputError:
    remedy = _remedy(value)
    return InputError(
        f"{name} is a {type(value).__name__}: expected an array of numbers{remedy and '; '}{remedy}"
    )


def refuse_lazy(name: str, value: object) -> None:
    """Refuse what a method would make an array of: a sparse matrix, a frame that is not computed
    yet.
    """
    if not is_array(value) and (hasattr(value, "toarray") or hasattr(value, "collect")):
        raise _no_array(name, value)


def _unmasked(name: str, array: Any, missing: bool) -> np.ndarray:
    mask = np.ma.getmaskarray(array)
    if not missing:
        check_unmasked(name, array, _OF_A_MASK.get(name, ""))
    if not mask.any():
        return np.asarray(array.data)
    return np.where(mask, np.nan, np.asarray(array.data, np.float64))


def _from_objects(name: str, array: np.ndarray, columns: tuple[str, ...] | None) -> np.ndarray:
    """Python's numbers, NaN for None and pandas' NA."""
    found = np.empty(array.shape, np.float64)
    for place, entry in np.ndenumerate(array):
        try:
            if isinstance(entry, str | bytes | np.ndarray):
                raise TypeError
            found[place] = np.nan if type(entry).__name__ in _MISSING else float(entry)
        except (TypeError, ValueError, OverflowError):
            column = f" (column {columns[place[-1]]})" if columns and len(place) == 2 else ""
            where = ", ".join(map(str, place))
            remedy = _remedy(entry) or "remove or encode what is none"
            raise InputError(
                f"{name} holds {_shown(entry)} at [{where}]{column}: expected numbers; {remedy}"
            ) from None
        if isinstance(entry, int | np.integer) and int(entry) != int(found[place]):
            raise _too_long(name, entry)
    return found


def _shown(entry: object) -> str:
    """`entry` in a few words of one line."""
    return f"{' '.join(repr(entry).split()):.40}"
