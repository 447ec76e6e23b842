"""Tensors, arrays and data sets as the source of a `DataModule`."""

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from jensen.base.errors import InputError
from jensen.data.examples import Decode, Examples, identity, pixels
from jensen.data.images import is_binary, zeros_and_ones
from jensen.data.torch_dataset import integers, observation
from jensen.model.arrays import as_array, is_array, refuse_lazy
from jensen.model.likelihood import Likelihood

Source = Callable[..., Any]


def source(data: Any, validation: Any = None) -> Source:
    """The source that a `DataModule` calls for a split: `data`, and `validation` as the test split
    where that is no number.

    Raises:
        InputError: arrays that are no examples, or of which one has other factors.
    """
    splits = {"train": examples(data)}
    if validation is not None and not isinstance(validation, Real):
        splits["test"] = examples(validation, "validation")
        here, there = (len(getattr(each, "names", ())) for each in splits.values())
        if all(isinstance(each, Examples) for each in splits.values()) and here != there:
            raise InputError(
                f"validation has {there} factors an example and data {here}: expected as many; give"
                " (x, factors) in both, or x alone"
            )
    return lambda split="train": splits[split]


def examples(data: Any, name: str = "data") -> Any:
    """`x` or `(x, factors)`, tensors, arrays or frames of `(N, *event)` and `(N,)` or `(N, F)`, as
    `Examples`; else `data` itself, a data set.

    Raises:
        InputError: arrays that are no examples, or what is no data set either.
    """
    x, factors = _pair(data, name)
    if not isinstance(x, Tensor | np.ndarray):
        _check_data_set(data, name)
        return data
    stored = observation(x, f"x of {name}")
    if stored.dim() < 2 or not stored.numel():
        raise InputError(
            f"{name} have the shape {list(stored.shape)}: expected (N, *event), N examples of at"
            " least a number"
        )
    decode = _decode(stored)
    bytewise = stored.dtype == torch.uint8
    if factors is None:
        return Examples(stored, decode, bytewise=bytewise)
    labels = integers(factors, name, dims=2)
    if labels.shape[:1] != stored.shape[:1]:
        raise InputError(
            f"factors have the shape {list(labels.shape)}: expected ({len(stored)},) or"
            f" ({len(stored)}, F)"
        )
    columns = labels.reshape(len(labels), -1)
    count = columns.shape[1]
    names = ("factor",) if count == 1 else tuple(f"factor_{place}" for place in range(count))
    return Examples(stored, decode, columns, names, tuple((columns.amax(0) + 1).tolist()), bytewise)


def _pair(data: Any, name: str) -> tuple[Any, Any]:
    """x and the factors, if there are any, frames as arrays."""
    if not isinstance(data, tuple):
        return _array(f"x of {name}", data), None
    if len(data) != 2:
        raise InputError(
            f"{name} is a tuple of {len(data)}: expected x, or (x, factors); give a data set of items"
            " as a list"
        )
    return _array(f"x of {name}", data[0]), _array(f"factors of {name}", data[1])


def _array(name: str, value: Any) -> Any:
    """A frame or a column as an array; else `value` itself."""
    refuse_lazy(name, value)
    is_frame = hasattr(value, "to_numpy") and not isinstance(value, Tensor | np.ndarray)
    return as_array(name, value) if is_frame else value


def _check_data_set(data: Any, name: str) -> None:
    items = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if isinstance(data, str | Mapping) or not (items or isinstance(data, Dataset)):
        raise InputError(
            f"{name} is a {type(data).__name__}: expected x or (x, factors), tensors or arrays, or a"
            " torch Dataset"
        )


def _decode(stored: Tensor) -> Decode:
    if stored.dtype == torch.uint8:
        return zeros_and_ones if is_binary(stored) else pixels
    return zeros_and_ones if stored.dtype == torch.bool else identity


def observations(x: Any, data: Any, likelihood: Likelihood) -> Tensor:
    """`x` `(N, *event)` as a fit on `data` read it: bytes as grey levels, 255 as 1, or as zeros and
    ones.

    Args:
        data: what the fit was given, as `examples` has it; None where that is not known.

    Raises:
        InputError: no array of numbers that a fit takes; bytes that may be either.
    """
    array = x if isinstance(x, Tensor | np.ndarray) or not is_array(x) else as_array("x", x)
    stored = observation(array, "x")
    if stored.dtype != torch.uint8:
        return _decode(stored)(stored)
    if isinstance(data, Examples) and data.bytewise:
        return data.decode(stored)
    # a batch of dark grey levels looks like zeros and ones
    if stored.numel() and is_binary(stored) and stored.any() and _takes(likelihood, pixels(stored)):
        raise InputError(
            "x is bytes and none is above 1: expected to know whether they are zeros and ones or grey"
            " levels of 255; give x.float() or x.float() / 255"
        )
    return _decode(stored)(stored)


def _takes(likelihood: Likelihood, x: Tensor) -> bool:
    try:
        likelihood.check(x)
    except InputError:
        return False
    return True


def kind(data: Any) -> str:
    """The record of data: their class, and the shape of arrays."""
    x = data[0] if isinstance(data, tuple) and len(data) == 2 else data
    array = isinstance(x, Tensor | np.ndarray) or hasattr(x, "to_numpy")
    shape = f" {list(x.shape)}" if array else ""
    return f"{type(x).__module__}.{type(x).__qualname__}{shape}"
