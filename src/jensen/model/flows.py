"""Invertible maps that are learned, of zuko."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from jensen.base.errors import InputError, check_choice, check_count, check_counts

KINDS = ("nsf", "maf")
BINS = 8
"""Pieces of a spline."""


def chain(
    kind: str, transforms: int, hidden: Sequence[int], latent_dim: int, context: int = 0
) -> nn.Module:
    """A chain of autoregressive maps of D latents, which is the identity until it has learned.

    Called, with the `(B, context)` numbers that it is told if there are any, it gives a map as
    `family.flow` takes it.

    Args:
        kind: `nsf`, monotone rational-quadratic splines on [-5, 5] (Durkan et al. 2019, arXiv
            1906.04032) behind one affine map, or `maf`, affine maps (Papamakarios et al. 2017, arXiv 1705.07057).
        transforms: how many; each takes the latents in the order reverse to the one before.
        hidden: widths of the network of each.
        latent_dim: D.
        context: numbers that each map is told beside the latents.

    Raises:
        InputError: an unknown kind, or zuko is not installed.
    """
    check_choice("kind", kind, KINDS)
    check_count("transforms", transforms)
    check_counts("hidden", hidden)
    check_count("latent_dim", latent_dim)
    zuko = _zuko(kind)
    one = zuko.flows.MaskedAutoregressiveTransform
    affine = functools.partial(one, latent_dim, context, hidden_features=[*hidden])
    spline = functools.partial(
        affine,
        univariate=zuko.transforms.MonotonicRQSTransform,
        shapes=[(BINS,), (BINS,), (BINS - 1,)],
    )
    orders = torch.arange(latent_dim), torch.arange(latent_dim).flip(0)
    made = [
        (spline if kind == "nsf" else affine)(order=orders[place % 2])
        for place in range(transforms)
    ]
    if kind == "nsf":  # what lies outside of the splines' [-5, 5] they leave as it is
        made.insert(0, affine(order=orders[0]))
    for each in made:
        _stay(each)
    chained: nn.Module = zuko.lazy.LazyComposedTransform(*made)
    return chained


def _stay(transform: Any) -> None:
    """Make it the identity: all parameters of all univariate maps are 0 there."""
    if hasattr(transform, "hyper"):
        *_, last = transform.hyper
    else:  # one latent, told nothing
        last = transform
    for parameter in last.parameters():
        nn.init.zeros_(parameter)


def _zuko(kind: str) -> Any:
    try:
        import zuko
    except ImportError as error:
        raise InputError(
            f"kind is {kind}, which needs zuko, and that is not installed: expected it; pip install"
            " 'jensen[flows]'"
        ) from error
    return zuko
