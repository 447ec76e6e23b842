"""Tensors, arrays and data sets as the source of a `DataModule`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.data.examples import Examples, identity, pixels
from jensen.data.images import is_binary, zeros_and_ones
from jensen.data.torch_dataset import integers, observation

Source = Callable[..., Any]


def source(data: Any, validation: Any = None) -> Source:
    """The source that a `DataModule` calls for a split: `data`, and `validation` as the test split
    where that is no number.

    Raises:
        InputError: arrays that are no examples.
    """
    splits = {"train": examples(data)}
    if validation is not None and not isinstance(validation, int):
        splits["test"] = examples(validation)
    return lambda split="train": splits[split]


def examples(data: Any) -> Any:
    """`x` or `(x, factors)`, tensors or arrays of `(N, *event)` and `(N,)` or `(N, F)`, as
    `Examples`; else `data` itself.
    """
    x, factors = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    if not isinstance(x, Tensor | np.ndarray):
        return data
    stored = observation(x, "data")
    if stored.dim() < 2 or not stored.numel():
        raise InputError(
            f"data have the shape {list(stored.shape)}: expected (N, *event), N examples of at"
            " least a number"
        )
    decode = zeros_and_ones if stored.dtype == torch.bool else identity
    if stored.dtype == torch.uint8:
        decode = zeros_and_ones if is_binary(stored) else pixels
    bytewise = stored.dtype == torch.uint8
    if factors is None:
        return Examples(stored, decode, bytewise=bytewise)
    labels = integers(factors, "data", dims=2)
    if labels.shape[:1] != stored.shape[:1]:
        raise InputError(
            f"factors have the shape {list(labels.shape)}: expected ({len(stored)},) or"
            f" ({len(stored)}, F)"
        )
    columns = labels.reshape(len(labels), -1)
    count = columns.shape[1]
    names = ("factor",) if count == 1 else tuple(f"factor_{place}" for place in range(count))
    return Examples(stored, decode, columns, names, tuple((columns.amax(0) + 1).tolist()), bytewise)


def kind(data: Any) -> str:
    """The record of data: their class, and the shape of arrays."""
    x = data[0] if isinstance(data, tuple) and len(data) == 2 else data
    shape = f" {list(x.shape)}" if isinstance(x, Tensor | np.ndarray) else ""
    return f"{type(x).__module__}.{type(x).__qualname__}{shape}"
