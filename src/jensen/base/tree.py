"""One function on all tensors of nested tuples, such as a posterior, a bound or an inference."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")


def tree_map(function: Callable[..., Any], tree: T, *others: T) -> T:
    """`function` of the tensors at each place of equal nested tuples, in a tuple of the same make;
    a function in them, which is of no example, stays as it is.

    >>> import torch
    >>> from jensen.bound.bound import Bound
    >>> tree_map(lambda part: part[:1], Bound(torch.zeros(3), torch.ones(3)))
    Bound(distortion=tensor([0.]), rate=tensor([1.]))
    """
    if isinstance(tree, Tensor):
        return cast(T, function(tree, *others))
    if not isinstance(tree, tuple):
        assert callable(tree), f"{type(tree).__name__} is neither a tensor nor a tuple"
        return tree
    parts: Any = [tree_map(function, *branches) for branches in zip(tree, *others, strict=True)]
    named: Any = type(tree)
    return cast(T, named(*parts) if hasattr(tree, "_fields") else named(parts))


def tree_leaves(tree: Any) -> list[Tensor]:
    """The tensors of nested tuples, in order.

    >>> import torch
    >>> tree_leaves((torch.zeros(1), (torch.ones(1),)))
    [tensor([0.]), tensor([1.])]
    """
    if isinstance(tree, Tensor):
        return [tree]
    return [leaf for each in tree for leaf in tree_leaves(each)] if isinstance(tree, tuple) else []


def tree_where(chosen: Tensor, a: T, b: T) -> T:
    """`a` where `chosen` `(R,)`, else `b`, row by row of tensors `(R, ...)` at equal places."""

    def each(one: Tensor, other: Tensor) -> Tensor:
        return torch.where(chosen.reshape(-1, *[1] * (one.dim() - 1)), one, other)

    return tree_map(each, a, b)
