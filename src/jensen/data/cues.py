"""Cues of several senses to the places of things, with a common cause, or one each."""

from collections.abc import Mapping, Sequence

import torch

from jensen.base.errors import InputError, check_count, check_number, check_seed
from jensen.base.random import fold, normal, uniform
from jensen.data.examples import Examples, identity

Noise = Mapping[str, float | Sequence[float]]
"""The standard deviation of each sense, one number for each of the D sources."""


def cues(
    size: int = 20_000,
    noise: Noise | None = None,
    common: float = 1.0,
    prior_mean: float = 0.0,
    prior_sd: float = 1.0,
    seed: int = 0,
    split: str = "train",
) -> Examples:
    """`size` observations `(N, M D)` of M senses one after another: sources + N(0, noise^2), with
    sources `(D,)` of N(prior_mean, prior_sd^2) each.

    With the chance `common` all senses have the same sources, else each has its own (Koerding et
    al. 2007, "Causal inference in multisensory perception"). Where that is neither 0 nor 1 it is
    the factor `common`: 1 for one cause. Those of another `split` are others.

    >>> cues(3, {"see": [0.25, 2.0], "hear": [2.0, 0.25]}).stored.shape
    torch.Size([3, 4])
    """
    deviations = _deviations({"see": 0.5, "hear": 1.0} if noise is None else noise)
    check_count("size", size)
    check_number("common", common, low=0, high=1)
    check_number("prior_mean", prior_mean)
    check_number("prior_sd", prior_sd, low=0)
    check_seed("seed", seed)
    index = torch.arange(size)
    senses = len(deviations)
    own = normal(fold(seed, "sources", split), index, (senses, deviations.shape[1]), torch.float64)
    one = uniform(fold(seed, "cause", split), index, (1, 1), torch.float64) < common
    sources = prior_mean + prior_sd * torch.where(one, own[:, :1], own)
    scatter = normal(fold(seed, "cues", split), index, tuple(deviations.shape), torch.float64)
    points = (sources + deviations * scatter).flatten(1).float()
    if common in (0, 1):
        return Examples(points, identity)
    return Examples(points, identity, one[:, 0].long(), ("common",), (2,))


def _deviations(noise: Noise) -> torch.Tensor:
    """`(M, D)`."""
    if not isinstance(noise, Mapping) or not noise:
        raise InputError(
            f"noise is {noise!r}: expected a standard deviation of each sense, such as {{see: 0.5,"
            " hear: 1.0}"
        )
    rows = {
        name: [*each] if isinstance(each, Sequence) and not isinstance(each, str) else [each]
        for name, each in noise.items()
    }
    for name, row in rows.items():
        for value in row:
            check_number(f"noise.{name}", value, low=1e-6)
    lengths = {len(row) for row in rows.values()}
    if len(lengths) > 1 or not min(lengths):
        counts = ", ".join(f"{len(row)} of {name}" for name, row in rows.items())
        raise InputError(
            f"noise has {counts}: expected one number for each source, the same count of all senses"
        )
    return torch.tensor([*rows.values()], dtype=torch.float64)
