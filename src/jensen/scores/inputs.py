"""Checks of the arguments of every score, and the rows it takes of them."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jensen.base.errors import InputError, check_count, check_seed
from jensen.base.plain import check_unmasked, plain
from jensen.scores.constant import Floats, constant, settled

Labels = npt.NDArray[np.int64]

LARGEST = 1e100
"""Codes beyond it are refused: their squares would overflow."""


def as_array(name: str, values: npt.ArrayLike | Tensor) -> npt.NDArray:
    """The numbers of an argument, none of them masked."""
    check_unmasked(name, values)
    if isinstance(values, Tensor):
        values = plain(name, values).detach().cpu()
        return (
            values.float() if values.dtype == torch.bfloat16 else values
        ).numpy()  # numpy has no bfloat16
    return np.asarray(values)


def check_codes(codes: npt.ArrayLike | Tensor, name: str = "codes") -> Floats:
    """`codes` as float64 `(N, D)`.

    Raises:
        InputError: another shape, nothing in it, or something that is no finite number.
    """
    found = as_array(name, codes)
    if found.dtype.kind not in "fiub":
        raise InputError(
            f"{name} hold {found.dtype}: expected real numbers, one row a point and one column a"
            " latent"
        )
    if found.ndim != 2:
        raise InputError(
            f"{name} are of shape {found.shape}: expected (N, D), one row a point; a single latent"
            " z is given as z[:, None]"
        )
    if not found.size:
        raise InputError(
            f"{name} of shape {found.shape} are empty: expected at least one point and one latent"
        )
    checked = found.astype(np.float64)
    wrong = np.argwhere(~(np.abs(checked) <= LARGEST))  # a NaN compares as false
    if len(wrong):
        row, latent = wrong[0]
        raise InputError(
            f"{name} hold {found[row, latent]} at row {row}, latent {latent} ({len(wrong)} such"
            f" values): expected finite numbers up to {LARGEST:g}; drop those rows, or look at why"
            " the encoder diverged"
        )
    return checked


def check_factors(factors: npt.ArrayLike | Tensor) -> Labels:
    """`factors` as int64 `(N, F)`, their values as given.

    Raises:
        InputError: another shape, nothing in it, or something other than integers of at least 0.
    """
    found = as_array("factors", factors)
    if found.dtype.kind not in "iub":
        raise InputError(
            f"factors are {found.dtype}: expected integer labels; "
            "number the values of a factor v with numpy.unique(v, return_inverse=True)[1]"
        )
    if found.ndim != 2:
        raise InputError(
            f"factors are of shape {found.shape}: expected (N, F), one row a point; a single"
            " factor v is given as v[:, None]"
        )
    if not found.size:
        raise InputError(
            f"factors of shape {found.shape} are empty: expected at least one point and one factor"
        )
    if found.max() > np.iinfo(np.int64).max or found.min() < 0:
        raise InputError(
            f"factors lie in {found.min()}..{found.max()}: expected labels of at least 0 that fit"
            " 64 bits; number the values of a factor v with numpy.unique(v, return_inverse=True)[1]"
        )
    return found.astype(np.int64)


def check(
    codes: npt.ArrayLike | Tensor, factors: npt.ArrayLike | Tensor, least: int = 2
) -> tuple[Floats, Labels]:
    """`codes` `(N, D)`, their constant latents 0, and `factors` `(N, F)`, at least `least` points
    of each.
    """
    z = check_codes(codes)
    v = check_factors(factors)
    if len(z) != len(v):
        raise InputError(
            f"codes have {len(z)} rows and factors {len(v)}: expected one row of each a point, in"
            " the same order"
        )
    if len(z) < least:
        raise InputError(
            f"codes and factors hold {len(z)} points: expected at least {least}, which this score"
            " needs"
        )
    return settled(z), v


def check_log_var(log_var: npt.ArrayLike | Tensor, codes: Floats) -> Floats:
    """The posterior's `log_var`, as float64 of the shape of `codes`."""
    found = check_codes(log_var, "log_var")
    if found.shape != codes.shape:
        raise InputError(
            f"log_var is of shape {found.shape}: expected {codes.shape}, the shape of the codes"
        )
    if np.abs(found).max() > 200:
        raise InputError(
            f"log_var lies in {found.min():g}..{found.max():g}: expected logarithms of variances,"
            " within -200..200"
        )
    return found


def numbered(factors: Labels) -> Labels:
    """Each factor's values numbered 0, 1, ... by first appearance, `(N, F)`.

    Not by rank: so a score that draws rows by value, or fits a class a value, gives the same bytes
    however the values of a factor are named.
    """
    columns = []
    for column in factors.T:
        if column.max() > 4 * len(
            column
        ):  # a table of all labels would be larger than sorting is slow
            column = np.unique(column, return_inverse=True)[1].reshape(-1)
        first = np.full(column.max() + 1, -1)
        first[column[::-1]] = np.arange(len(column))[
            ::-1
        ]  # of equal indices the last one is kept: the first appearance
        seen = np.flatnonzero(first >= 0)
        number = np.zeros(len(first), np.int64)
        number[seen[np.argsort(first[seen])]] = np.arange(len(seen))
        columns.append(number[column])
    return np.stack(columns, 1)


def standardised(codes: Floats, like: Floats | None = None) -> Floats:
    """`codes` less the mean and divided by the standard deviation of `like` (itself by default); a
    constant becomes 0.
    """
    like = codes if like is None else like
    still = constant(like)
    deviation = np.where(still, 1.0, like.std(0))
    return np.where(still, 0.0, (codes - like.mean(0)) / np.where(deviation > 0, deviation, 1.0))


def some_rows(size: int, points: int, seed: int) -> npt.NDArray[np.int64]:
    """`points` rows of `size`, drawn without replacement with `seed`; of fewer, all of them in
    their order.
    """
    check_count("points", points, 2)
    check_seed("seed", seed)
    return (
        np.arange(size)
        if size <= points
        else np.random.default_rng(seed).permutation(size)[:points]
    )


def split_rows(
    size: int, train: int, test: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """`train` and `test` disjoint rows of `size`, drawn with `seed`; of fewer points, all in the
    same proportion.
    """
    check_count("train", train, 2)
    check_count("test", test, 1)
    check_seed("seed", seed)
    if size < train + test:
        part = min(max(round(size * train / (train + test)), 2), size - 1)
        train = part
        test = size - part
    rows = np.random.default_rng(seed).permutation(size)[: train + test]
    return rows[:train], rows[train:]
