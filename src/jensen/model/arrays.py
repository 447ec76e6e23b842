"""Everyday arrays as numbers: tensors, numpy arrays, frames, lists of rows are read as they are, or refused in a sentence."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jensen.core.errors import InputError

_MISSING = ("NoneType", "NAType", "NaTType")
"""Types of what pandas and Python put in the place of a missing number."""


def column_names(value: Any) -> tuple[str, ...] | None:
    """The names of a frame's columns, `(D,)`; None for what has none, or only has their numbers."""
    columns = getattr(value, "columns", None)
    if columns is None or not hasattr(value, "to_numpy"):
        return None
    names = list(columns)
    return None if all(isinstance(name, int | np.integer) for name in names) else tuple(map(str, names))


def is_array(value: Any) -> bool:
    """Whether `value` holds all numbers itself: an array, a frame, or rows, rather than batches of points."""
    if isinstance(value, Tensor | np.ndarray) or hasattr(value, "to_numpy") or hasattr(value, "__array__"):
        return True
    if not isinstance(value, list | tuple):
        return False
    first = value[0] if len(value) else None
    head = first[0] if isinstance(first, list | tuple) and len(first) else first
    return getattr(head, "ndim", 0) < 2 and not isinstance(head, dict)


def as_array(name: str, value: Any, missing: bool = False) -> Tensor | np.ndarray:
    """`value` as a tensor or an array of real numbers, without a copy if it is one; `missing` turns what is masked to NaN."""
    if isinstance(value, Tensor):
        return _plain(name, value)
    array = _numpy(name, value)
    if isinstance(array, np.ma.MaskedArray):
        array = _unmasked(name, array, missing)
    if array.dtype.kind == "c":
        raise InputError(f"{name} holds complex numbers: expected real ones; give the parts as columns of their own")
    if array.dtype.kind == "O":
        return _from_objects(name, array, column_names(value))
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} is an array of {array.dtype}: expected numbers; convert it to float32 or float64")
    return array


def as_tensor(name: str, value: Any, missing: bool = False) -> Tensor:
    """The same as a tensor: of float32 what has at most its precision, else of float64; tensors keep floating dtypes."""
    array = as_array(name, value, missing)
    if isinstance(array, Tensor):
        return array if array.is_floating_point() else array.double()
    kept = np.float32 if array.dtype.kind == "f" and array.dtype.itemsize <= 4 else np.float64
    # torch takes neither negative strides nor what must not be written to; a copy of a chunk costs nothing.
    awkward = not array.flags.writeable or min(array.strides, default=0) < 0
    return torch.from_numpy(np.array(array, kept) if awkward else np.asarray(array, kept))


def _plain(name: str, value: Tensor) -> Tensor:
    if value.is_complex():
        raise InputError(f"{name} holds complex numbers: expected real ones; give the parts as columns of their own")
    if value.layout != torch.strided or value.is_quantized:
        raise InputError(f"{name} is a tensor of layout {value.layout} and {value.dtype}: expected a plain one; use to_dense()")
    return value if type(value) is Tensor else value.as_subclass(Tensor)  # type: ignore[no-any-return]


def _numpy(name: str, value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, dict | set | str | bytes):
        raise InputError(f"{name} is a {type(value).__name__}: expected an array of numbers")
    try:
        if hasattr(value, "to_numpy"):
            return np.asanyarray(value.to_numpy())
        rows = isinstance(value, Sequence) and any(isinstance(row, np.ma.MaskedArray) for row in value)
        if isinstance(value, list | tuple) and any(isinstance(row, Tensor) for row in value):
            value = [as_tensor(name, row).detach().cpu().numpy() if isinstance(row, Tensor) else row for row in value]
        return np.ma.stack(list(value)) if rows else np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{name} is a {type(value).__name__} that is no array: expected rows of as many numbers ({error})"
        ) from None


def _unmasked(name: str, array: Any, missing: bool) -> np.ndarray:
    mask = np.ma.getmaskarray(array)
    if not mask.any():
        return np.asarray(array.data)
    if not missing:
        place = ", ".join(map(str, np.argwhere(mask)[0]))
        raise InputError(
            f"{name} has {int(mask.sum())} masked values, the first at [{place}]: expected numbers; remove or fill them, or"
            " give a GMM's points with missing=True to marginalise them"
        )
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
            raise InputError(
                f"{name} holds {entry!r:.40} at [{where}]{column}: expected numbers; remove or encode what is none"
            ) from None
    return found
