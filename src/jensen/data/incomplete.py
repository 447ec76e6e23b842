"""Data of several modalities of which some are missing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from math import prod
from typing import Any

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_list, check_number, check_seed
from jensen.base.random import fold, uniform
from jensen.data.examples import Decode, Examples


def incomplete(
    of: Mapping[str, Any],
    fraction: float = 0.5,
    within: Sequence[str] = ("train",),
    seed: int = 0,
    split: str = "train",
) -> Examples:
    """The examples of other data, each modality of which is missing with the chance `fraction`, the
    same ones every time: NaN, as a whole. One is always kept, any of them with the same chance
    where all would be lost; and so is each condition.

    Args:
        of: the other data as a choice of `conf/data` has them: their `source`, their `modalities`,
            and the source's own keys.
        within: the splits that lose some; the others are whole.

    Raises:
        InputError: data without modalities, a fraction outside [0, 1].
    """
    check_number("fraction", fraction, low=0, high=1)
    check_list("within", within)
    check_seed("seed", seed)
    shapes = of.get("modalities")
    if not shapes:
        raise InputError(
            "of has no modalities: expected data of several, such as data@data.of=cues; choose"
            " other data"
        )
    examples = _read(of, split)
    lost = fraction if split in within else 0.0  # all splits decode alike
    sizes = [prod(shape) for shape in shapes.values()]
    given = [name in (of.get("condition") or ()) for name in shapes]
    return drop(examples, sizes, lost, fold(seed, split), given)


def described(**keys: Any) -> Mapping[str, Any]:
    """A choice of `conf/data` as `of`: not a data module, but its keys."""
    return keys


def drop(
    examples: Examples,
    sizes: Sequence[int],
    fraction: float,
    key: int,
    given: Sequence[bool] | None = None,
) -> Examples:
    """The examples, of which modalities of so many numbers are missing; of every example other
    ones, by `key`, but none of those that are `given`.
    """
    stored = examples.stored.flatten(1)
    index = torch.arange(len(stored))
    chance = uniform(key, index, (len(sizes),), torch.float64)
    always = torch.tensor([False] * len(sizes) if given is None else [*given])
    most = chance.masked_fill(always, -1).amax(1, keepdim=True)
    kept = (chance >= fraction) | (chance == most) | always
    marks = kept.to(stored)
    width = tuple(examples.stored.shape[1:])
    return replace(
        examples,
        stored=torch.cat([stored, marks], 1),
        decode=partial(_decode, examples.decode, width, tuple(sizes)),
        bytewise=False,
    )


def _read(of: Mapping[str, Any], split: str) -> Examples:
    source = of.get("source")
    if not callable(source):
        raise InputError(
            f"of.source is {source!r}: expected what reads data; choose data@data.of=cues"
        )
    takes = signature(source).parameters
    options = {name: value for name, value in of.items() if name in takes}
    found = source(**options, **({"split": split} if "split" in takes else {}))
    if not isinstance(found, Examples):
        raise InputError(
            f"of.source gives a {type(found).__name__}: expected examples that are stored; let the"
            " data set itself give NaN for what is missing"
        )
    return found


def _decode(decode: Decode, width: tuple[int, ...], sizes: tuple[int, ...], rows: Tensor) -> Tensor:
    stored = rows[:, : prod(width)].reshape(-1, *width)
    kept = rows[:, prod(width) :].bool()
    counts = torch.tensor(sizes, device=rows.device)
    columns = kept.repeat_interleave(counts, 1, output_size=sum(sizes))
    x = decode(stored)
    return x.masked_fill(~columns.reshape(x.shape), torch.nan)
