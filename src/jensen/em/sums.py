"""Sums of responsibilities times features over chunks of points, of all of them or of those that
count.

A point in many dimensions belongs to few of the components. D x D products of each component's own
points are then a fraction of the work of all features times all responsibilities, though they
compute the symmetric half twice.
"""

from functools import lru_cache
from pathlib import Path
from typing import Protocol, final

import torch
from torch import Tensor

from jensen.family.full import FullGaussian, FullLayout

_LEAST_DIM = 32
"""Below it to gather the points takes as long as the products."""

_SHARE = 0.5
"""The responsibilities that count, as a part of all, below which it pays."""

_POINTS = 4096
"""Gathered from at a time: enough for each component to have some."""


class Sums(Protocol):
    """share: of all responsibilities, those that are not negligible."""

    @property
    def share(self) -> float: ...

    def add(self, features: Tensor, r: Tensor, weight: Tensor | None) -> None:
        """Features `(P, n)`, responsibilities times weights `(rows, n)`, weights `(n,)`."""
        ...

    def result(self) -> Tensor:
        """sum of r * features so far, `(rows, P)` float64."""
        ...


def sums(
    structure: type, rows: int, dim: int, dtype: torch.dtype, device: torch.device, share: float
) -> Sums:
    """For points of which, when last seen, this `share` of responsibilities was not negligible."""
    few = structure is FullGaussian and dim >= _LEAST_DIM and device.type == "cpu"
    return SparseSums(rows, dim, dtype) if few and share < _SHARE else DenseSums(few)


def _least(dtype: torch.dtype, weight: Tensor | None) -> Tensor | float:
    """The responsibility below which a point is lost in the rounding of the others."""
    least = 1e-14 if dtype == torch.float64 else 1e-9
    return least if weight is None else least * weight


@lru_cache(maxsize=1)
def _is_amd() -> bool:
    """Tell whether the CPU is AMD's; False where nothing says so."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


@final
class DenseSums:
    """One product. `share` is known if `watch`."""

    def __init__(self, watch: bool) -> None:
        self._watch = watch
        self._counted = 0
        self._seen = 0
        self._sums: Tensor | None = None

    @property
    def share(self) -> float:
        return self._counted / self._seen if self._seen else 1.0

    def add(self, features: Tensor, r: Tensor, weight: Tensor | None) -> None:
        # In MKL this order takes half as long as r @ features' on Intel's CPUs; on AMD's up to 1.5
        # times as long, in float64.
        if r.dtype == torch.float64 and r.device.type == "cpu" and _is_amd():
            part = torch.mm(r, features.T).T
        else:
            part = torch.mm(features, r.T).double()
        self._sums = part if self._sums is None else self._sums + part
        if self._watch:
            self._counted += int((r > _least(r.dtype, weight)).sum())
            self._seen += r.numel()

    def result(self) -> Tensor:
        assert self._sums is not None, "no points"
        return self._sums.T


@final
class SparseSums:
    """Sums for `FullGaussian`: for each component a product of the points whose responsibility
    counts.
    """

    def __init__(self, rows: int, dim: int, dtype: torch.dtype) -> None:
        self._points = torch.empty(
            _POINTS, 1 + dim, dtype=dtype
        )  # of which the first coordinate is 1
        self._r = torch.empty(rows, _POINTS, dtype=dtype)
        self._least = torch.empty(_POINTS, dtype=dtype)
        self._sums = torch.zeros(rows, 1 + dim, 1 + dim, dtype=torch.float64)
        self._filled = self._seen = self._counted = 0

    @property
    def share(self) -> float:
        return self._counted / max(self._seen, 1)

    def add(self, features: Tensor, r: Tensor, weight: Tensor | None) -> None:
        for start in range(0, r.shape[1], _POINTS):
            part = slice(start, min(start + _POINTS, r.shape[1]))
            count = part.stop - part.start
            if self._filled + count > _POINTS:
                self._flush()
            place = slice(self._filled, self._filled + count)
            self._points[place] = features[: self._points.shape[1], part].T
            self._r[:, place] = r[:, part]
            self._least[place] = _least(r.dtype, None if weight is None else weight[part])
            self._filled = place.stop

    def result(self) -> Tensor:
        self._flush()
        return FullLayout(self._sums.shape[-1] - 1).pack(
            self._sums[:, 0, 0], self._sums[:, 0, 1:], self._sums[:, 1:, 1:]
        )

    def _flush(self) -> None:
        points = self._points[: self._filled]
        least = self._least[: self._filled]
        for row, r in enumerate(self._r[:, : self._filled]):
            mine = (r > least).nonzero().squeeze(1)
            own = points.index_select(0, mine)
            self._sums[row] += (own * r[mine].unsqueeze(1)).T @ own
            self._counted += len(mine)
        self._seen += self._filled * len(self._r)
        self._filled = 0
