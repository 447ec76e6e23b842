"""Tensors and arrays that hold their numbers plainly; the others are refused in a sentence."""

from typing import Any

import torch
from torch import Tensor

from jensen.base.errors import InputError


def check_unmasked(name: str, value: Any, others: str = "") -> None:
    """Refuse an array of numpy of which something is masked: what lies below the mask is no number of
    it.

    >>> import numpy as np
    >>> check_unmasked("x", np.ma.masked_array([1.0, 1e20], mask=[False, True]))
    Traceback (most recent call last):
    jensen.base.errors.InputError: x has 1 masked values, the first at [1]: expected numbers; remove or fill them

    Args:
        others: other remedies, in words.
    """
    mask = getattr(value, "mask", None)
    if not hasattr(value, "filled") or mask is None or not mask.any():
        return
    place = ", ".join(str(each[0]) for each in mask.nonzero())
    raise InputError(
        f"{name} has {int(mask.sum())} masked values, the first at [{place}]: expected numbers;"
        f" remove or fill them{others}"
    )


def plain(name: str, value: Tensor) -> Tensor:
    """`value` as a tensor of torch's own class, which holds all its numbers in their places.

    >>> plain("x", torch.eye(2).to_sparse())
    Traceback (most recent call last):
    jensen.base.errors.InputError: x is a tensor of layout torch.sparse_coo and torch.float32: expected a plain one; use to_dense()
    """
    if value.is_meta:
        raise InputError(
            f"{name} is a tensor on the device meta, which has no numbers: expected one that has;"
            " load its values"
        )
    if value.is_nested:
        raise InputError(
            f"{name} is a nested tensor: expected rows of as many numbers; pad or cut them"
        )
    if value.layout != torch.strided or value.is_quantized:
        raise InputError(
            f"{name} is a tensor of layout {value.layout} and {value.dtype}: expected a plain one;"
            " use to_dense()"
        )
    if hasattr(value, "get_mask"):
        raise InputError(
            f"{name} is a {type(value).__name__}: expected a plain tensor, of numbers alone; remove or"
            " fill what is masked, by to_tensor(VALUE)"
        )
    return value if type(value) is Tensor else value.as_subclass(Tensor)  # type: ignore[no-any-return]
