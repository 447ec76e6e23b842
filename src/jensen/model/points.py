"""Points for a fit, wherever they are: a tensor, a numpy array or memory map, or batches from a
loader.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.model.arrays import as_array, as_tensor, column_names, is_array, refuse_lazy

_KEPT = 8192
"""Points kept at random for choosing where to start."""

_LEAST_WEIGHT = 1e-300
_ORDINARY = 300
"""Weights below are not told from 0; and the greatest may be 2 to plus or minus this as it is."""

NARROWEST = 1e-100
WIDEST = 1e100
"""The farthest that a column may reach: squares, and products of two of them, are numbers in
float64, of far narrower clusters too.
"""

_ORDINARY_IN_FLOAT32 = 1e-12, 1e12
"""The same for products in float32."""

_WORKING_SET = {"cpu": 1 << 20}
"""Bytes of a chunk in float64: on a CPU what stays in a core's own cache."""


class Survey(NamedTuple):
    """The findings of one pass over the points; points of weight 0 count for nothing but `size`.

    size: N, and `total`: the sum of weights.
    dtype: of the points, float64 if of any.
    mean, var: `(D,)` float64, of the values that are not missing.
    unseen, constant: `(D,)`, columns that hold nothing but NaN, and those of one value.
    reach: `(D,)` float64, how far the values of a column lie from the first of them, at most.
    missing: whether there is a NaN.
    kept: up to 8,192 of the points in random order, `(M, D)`, and their weights `(M,)`, float64.
    """

    size: int
    total: float
    dtype: torch.dtype
    mean: Tensor
    var: Tensor
    unseen: Tensor
    constant: Tensor
    reach: Tensor
    missing: bool
    kept: Tensor
    kept_weights: Tensor

    @property
    def extreme(self) -> bool:
        """Tell whether a column is too wide or too narrow for products in float32."""
        low, high = _ORDINARY_IN_FLOAT32
        return bool(((self.reach < low) | (self.reach > high)).any())


def fingerprint(survey: Survey, noise: Tensor | None = None) -> str:
    """A word for the data, by their sums: the same for the same points, in whatever batches, with
    the same noise of each.
    """
    parts = [f"{survey.size} {survey.total:.6g}"]
    parts += [f"{value:.6g}" for value in (*survey.mean.tolist(), *survey.var.tolist())]
    if noise is not None:
        parts += [f"{value:.6g}" for value in noise.sum(0).flatten().tolist()]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


@final
class Points:
    """`x` in chunks `(n, D)` of float32 or float64 on one device, as often as needed, never held as
    a whole.

    x: `(N, D)`: a tensor, numpy array (memory-mapped ones are read chunk by chunk), frame or rows
        of numbers; or an iterable of batches `(n, *event)`, of tuples that begin with one or of
        dicts that have one as "x", that can be passed over again and again, such as a DataLoader.
    weights: `(N,)`, for an array.
    device: where batches and arrays go; a tensor stays where it is.
    missing: read what a masked array masks as NaN, rather than refuse it.

    names: of a frame's columns, or None. unit: a power of two that weights are in units of, 1
        unless they are very small or
    large: then their products would leave the range of float64.
    """

    def __init__(
        self, x: Any, weights: Any = None, device: torch.device | str = "cpu", missing: bool = False
    ) -> None:
        self.array = is_array(x)
        self.names = column_names(x)
        self._missing = missing
        self.unit = 1.0
        refuse_lazy("x", x)
        if self.array:
            x = as_array("x", x, missing)
        elif not isinstance(x, Iterable) or isinstance(x, Iterator | dict | set | str | bytes):
            raise InputError(
                f"x is a {type(x).__name__}: expected a tensor, a numpy array, a frame, or batches"
                " that can be read again and again (a DataLoader or a list)"
            )
        if self.array and (x.ndim != 2 or 0 in x.shape[1:]):
            raise InputError(
                f"x has the shape {tuple(x.shape)}: expected (N, D), points by coordinates;"
                " reshape it"
            )
        self._x = x
        self.device = x.device if isinstance(x, Tensor) else torch.device(device)
        self._weights = None if weights is None else self._checked(weights)

    def _checked(self, weights: Any) -> Tensor:
        if not self.array:
            raise InputError(
                "weights came with batches: expected an array x; give x as one array or memory map"
            )
        weights = as_tensor("weights", weights).detach().to(self.device, torch.float64)
        if weights.shape != (len(self._x),):
            raise InputError(
                f"weights has the shape {tuple(weights.shape)}: expected ({len(self._x)},), one"
                " for each point"
            )
        if not bool(weights.isfinite().all()) or bool((weights < 0).any()):
            worst = weights[~(weights.isfinite() & (weights >= 0))][0].item()
            raise InputError(
                f"weights holds {worst:g}: expected finite numbers of at least 0; remove those"
                " points"
            )
        if not bool(weights.any()):
            raise InputError("weights are all 0: expected at least one above 0")
        most = float(weights.max())
        if not _LEAST_WEIGHT < most < 1 / _LEAST_WEIGHT:
            raise InputError(
                f"weights are at most {most:g}: expected numbers nearer to 1; divide them by their"
                " mean"
            )
        if abs(math.log2(most)) > _ORDINARY:
            self.unit = 2.0 ** math.floor(math.log2(most))
        return weights / self.unit

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Points and weights, at most `size` at a time."""
        if not self.array:
            for batch in self._x:
                yield from (
                    (part, None) for part in self._ready(_points_of(batch)).flatten(1).split(size)
                )
            return
        for start in range(0, len(self._x), size):
            part = slice(start, start + size)
            x = self._ready(self._x[part])
            if self._weights is None:
                yield x, None
            else:
                yield _without_idle(x, self._weights[part]), self._weights[part]

    def _ready(self, part: Any) -> Tensor:
        part = as_tensor("x", part, self._missing).detach()
        if part.dim() < 2:
            raise InputError(
                f"x has a batch of shape {tuple(part.shape)}: expected (n, D), points by"
                " coordinates; reshape it"
            )
        return part.to(self.device, torch.float64 if part.dtype == torch.float64 else torch.float32)

    def survey(self, generator: torch.Generator, missing: bool) -> Survey:
        """One pass; refuses points that no mixture can be fitted to."""
        size = 0
        total = 0.0
        found = False
        dtype = torch.float32
        whole: _Part | None = None
        pivot = reach = kept = kept_weights = keys = torch.empty(0, dtype=torch.float64)
        farthest = math.inf  # of the keys kept
        room = _WORKING_SET.get(self.device.type, 1 << 26)
        for x, w in self.chunks(max(256, room // (8 * self._x.shape[1])) if self.array else 4096):
            if whole is not None and x.shape[1] != len(pivot):
                raise InputError(
                    f"x has a batch of {x.shape[1]} columns after others of {len(pivot)}: expected"
                    " one width"
                )
            before = size
            size = size + len(x)
            dtype = torch.promote_types(dtype, x.dtype)
            x = x.double()
            seen = None
            w = torch.ones_like(x[:, 0]) if w is None else w
            if not bool((w @ x).isfinite().all()):
                refuse_infinite(x, before, missing, self.names)
                seen = ~x.isnan()
                found = found or not bool(seen.all())
            if not bool(w.all()):
                x, w, seen = x[w > 0], w[w > 0], None if seen is None else seen[w > 0]
            if not len(x):
                continue
            if whole is None:
                first = (
                    x[0] if seen is None else x.gather(0, seen.byte().argmax(0, keepdim=True))[0]
                )
                pivot = first.nan_to_num()
                kept = x[:0]
                kept_weights = w[:0]
                reach = torch.zeros_like(pivot)
            about = x - pivot
            part = _Part.of(about, w, seen)
            about = about if seen is None else about.where(seen, 0)
            reach = torch.stack([reach, about.amax(0), -about.amin(0)]).amax(0)
            whole = part if whole is None else whole + part
            total += float(w.sum())
            drawn = torch.rand(len(x), generator=generator, dtype=torch.float64)
            # Of many at once those below the bound are four times as many as are kept, give or take
            # a hundredth.
            chosen = (drawn < min(farthest, 4 * _KEPT / len(drawn))).nonzero().squeeze(1)
            keys = torch.cat([keys, drawn[chosen]])
            chosen = chosen.to(x.device)
            kept = torch.cat([kept, x[chosen]])
            kept_weights = torch.cat([kept_weights, w[chosen]])
            if len(keys) > 2 * _KEPT:
                keys, kept, kept_weights = _least(keys, kept, kept_weights)
                farthest = float(keys[-1])
        whole = whole or _Part(pivot, pivot, pivot)
        _, kept, kept_weights = _least(keys, kept, kept_weights)
        var = whole.square / whole.weight.clamp(min=1e-300)
        self._check_reach(reach, pivot)
        # About one of its own values a constant column is 0 exactly.
        constant = var <= (1e-12 * whole.mean).square()
        mean = pivot + whole.mean
        unseen = whole.weight == 0
        return Survey(
            size, total, dtype, mean, var, unseen, constant, reach, found, kept, kept_weights
        )

    def _check_reach(self, reach: Tensor, pivot: Tensor) -> None:
        """Refuse a column whose squares would leave float64: they come out as 0 or as infinity, and
        the column as constant.
        """
        varies = reach > 1e-12 * pivot.abs()
        bad = (varies & ((reach < NARROWEST) | (reach > WIDEST))).nonzero().flatten().tolist()
        if bad:
            raise InputError(
                f"{column_said(bad[0], self.names)} of x reaches {float(reach[bad[0]]):.3g} from"
                f" its first value: expected {NARROWEST:g} to {WIDEST:g}, whose squares float64"
                " can hold; divide it by a number of that magnitude"
            )


def _without_idle(x: Tensor, w: Tensor) -> Tensor:
    """`x` `(n, D)` with points of weight 0 moved to another: 0 times a square that is infinite
    would be NaN.
    """
    idle = w == 0
    if not bool(idle.any()):
        return x
    other = torch.zeros_like(x[0]) if bool(idle.all()) else x[w.argmax()]
    return x.where((idle & x.isfinite().all(-1)).logical_not().unsqueeze(-1), other)


def _points_of(batch: Any) -> Any:
    """The points of what a loader gives: the first of a tuple, or a dict's x."""
    if isinstance(batch, dict):
        if "x" not in batch:
            found = ", ".join([*map(str, batch)][:8]) or "nothing"
            raise InputError(
                f'x gives batches that are dicts of {found}: expected points as "x"; name them so, or give tuples'
            )
        return batch["x"]
    return batch[0] if isinstance(batch, tuple | list) and len(batch) else batch


class _Part(NamedTuple):
    """Sums over some points, `(D,)` each: the sum of weights, the mean, and the sum of squares
    about it.
    """

    weight: Tensor
    mean: Tensor
    square: Tensor

    @classmethod
    def of(cls, x: Tensor, w: Tensor, seen: Tensor | None) -> "_Part":
        """The sums of `x` `(n, D)` with weights `w` `(n,)`, leaving out the values that are not
        `seen`.
        """
        total = w.sum().expand(x.shape[1]) if seen is None else w @ seen.double()
        x = x if seen is None else x.where(seen, 0)
        mean = (w @ x) / total.clamp(min=1e-300)
        centred = x - mean if seen is None else (x - mean).where(seen, 0)
        return cls(total, mean, w @ centred.square_())

    def __add__(self, other: Any) -> "_Part":
        """The sums of both (Chan, Golub & LeVeque 1983)."""
        weight = self.weight + other.weight
        shift = other.mean - self.mean
        share = other.weight / weight.clamp(min=1e-300)
        square = self.square + other.square + shift.square() * self.weight * share
        return _Part(weight, self.mean + shift * share, square)


def _least(keys: Tensor, *values: Tensor) -> list[Tensor]:
    order = keys.argsort()[:_KEPT]
    return [part[order.to(part.device)] for part in (keys, *values)]


def refuse_infinite(x: Tensor, before: int, missing: bool, names: tuple[str, ...] | None) -> None:
    """Say which number of `x` `(N, D)` is not finite, unless it is a NaN and those are `missing`
    values.
    """
    bad = x.isinf() if missing else ~x.isfinite()
    if bool(bad.any()):
        row, column = bad.nonzero()[0].tolist()
        kind = "NaN" if bool(x[row, column].isnan()) else "an infinite number"
        remedy = "remove or mend those points" + (
            ", or give missing=True to marginalise NaN" if kind == "NaN" else ""
        )
        place = f"row {before + row}, {column_said(column, names)}"
        raise InputError(f"x holds {kind} in {place}: expected finite numbers; {remedy}")


def refuse_far(value: Tensor, name: str = "x", before: int = 0) -> None:
    """Refuse points `(N,)` whose log density is no number: so far away that its square is none."""
    bad = ~value.isfinite()
    if bool(bad.any()):
        raise InputError(
            f"row {before + int(bad.nonzero()[0])} of {name} is so far from all components that"
            f" the density there is no number in {str(value.dtype).removeprefix('torch.')}:"
            " expected a nearer one; mend or remove it"
        )


def column_said(column: int, names: tuple[str, ...] | None) -> str:
    """A column by its number and, of a frame, its name."""
    return (
        f"column {column} ({names[column]})"
        if names and column < len(names)
        else f"column {column}"
    )
