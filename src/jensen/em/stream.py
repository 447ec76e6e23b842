"""The E-step of a large data set: chunk by chunk as matrix products, in place, without gradients.

With the sufficient statistics (1, x, x^2 or x x') in a `(P, n)` array the joint densities of a
chunk are one product and its moments another, and nothing of the size of the data is ever held.
Products are in the dtype asked for; parameters, sums over chunks and the log-likelihood are
float64. Same results as `em.steps` to eps * `precision.spread`, and the log-likelihood to a
hundredth of that or so: what rounding the coefficients c does to it is, to first order, d(sum log
sum_k exp c.f)/dc = `sums`.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple, final

import torch
from torch import Tensor

from jensen.base.replay import Replayed, is_replayed
from jensen.em.sums import DenseSums, Sums, sums
from jensen.family.mixture import BITS, Mixture
from jensen.family.moments import Moments

Chunks = Callable[[int], Iterable[tuple[Tensor, Tensor | None]]]
"""Gives the points `(n, D)` and their weights `(n,)` or None, once a call, in chunks of at most the
size asked for.
"""

Part = tuple[Tensor, Tensor | None]
"""The features of a chunk, `(P, n)`, and the weights of its points, `(n,)`."""

Empty = Callable[[str, int, int, torch.dtype], Tensor]
"""An array of a name, `(rows, columns)`, with anything in it."""

_KEPT = 1 << 26
"""Bytes of features that are kept from pass to pass: to read them takes less than to turn the points
and to multiply them again.
"""

_KEPT_SHARE = 0.25
"""The part of a GPU's free memory that may be kept."""

_WORKING_SET = {"cpu": 1 << 21}
"""Bytes of a chunk's features and responsibilities: on a CPU what stays in a core's own cache."""


class Statistics(NamedTuple):
    """The sums of an E-step over the points it saw; of several parts of a data set or ranks each
    field adds up.

    log_likelihood: `(...)`, sum of weight * log p(x); at `beta` the sum of weight * beta * log
        sum_k weight_k p(x|k)^(1/beta).
    sums: `(..., K, P)`, sum of weight * r * features.
    scatter: `(..., c, c)`, the layout's `shared` sums, of weight * x x' for tied covariances (c = D);
        zeros where there are none.
    """

    log_likelihood: Tensor
    sums: Tensor
    scatter: Tensor


def moments(p: Mixture, s: Statistics) -> Moments:
    """The moments about the stream's origin, for `m_step(p, ...)`."""
    return p.components.layout(p.components.mean.shape[-1]).collect(s.sums, s.scatter)


def coefficients(p: Mixture, beta: float = 1.0) -> Tensor:
    """`(..., K, P)`: log weight_k + log p(x|k) / beta = coefficients_k . features(x), but for what
    is `common`.
    """
    natural = p.components.natural()
    if beta != 1:
        natural = natural / beta
    natural[..., 0] += p.log_weight
    return natural


def expected_log_joint(p: Mixture, coefficient: Tensor, s: Statistics, beta: float = 1.0) -> Tensor:
    """sum of r * (log p(x|k) + beta * log weight_k), `(...)`: at beta = 1 the Q of EM, for any `p`
    and any E-step's `s`.
    """
    q: Tensor = torch.linalg.vecdot(coefficient.flatten(-2), s.sums.flatten(-2))
    common = p.components.common(s.scatter)
    return beta * q if common is None else beta * q + common


@final
class Stream:
    """A data set that is passed over once an iteration.

    chunks: gives the points.
    size: the number of points, of few of which the features are kept; 0 for a single pass.
    origin: `(D,)`, subtracted from the points: the means of the mixtures given are about it. It has
        the data's dtype, so that the difference has no more error than the data.
    """

    def __init__(self, chunks: Chunks, size: int, origin: Tensor) -> None:
        self._chunks = chunks
        self._size = size
        self._origin = origin
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}
        self._kept: dict[tuple[type, torch.dtype], list[Part]] = {}
        self._passes: dict[tuple[torch.dtype, float], Replayed[Statistics]] = {}
        self._shared: Tensor | None = None
        self._share = (
            1.0  # of the responsibilities, those that counted in the last pass (`em.sums`)
        )

    def chunk(self, p: Mixture, dtype: torch.dtype) -> int:
        """Points in a chunk."""
        rows = p.components.mean[..., 0].numel()
        width = p.components.layout(p.components.mean.shape[-1]).width
        room = _WORKING_SET.get(self._origin.device.type, 1 << 28)
        return max(256, room // ((width + rows) * dtype.itemsize) // 256 * 256)

    def __call__(
        self,
        p: Mixture,
        dtype: torch.dtype = torch.float64,
        beta: float = 1.0,
        coefficient: Tensor | None = None,
    ) -> Statistics:
        """One E-step with the float64 mixtures `p` `(..., K)`, products in `dtype`; `coefficient`:
        of `coefficients`.
        """
        coefficient = coefficients(p, beta) if coefficient is None else coefficient
        structure = type(p.components)
        kept = self._kept.get((structure, dtype))
        if kept is not None and self._shared is not None and is_replayed(self._origin):
            return self._replayed(kept, self._shared, dtype, beta)(p, coefficient)
        mean = p.components.mean
        rows = mean[..., 0].numel()
        found = sums(structure, rows, mean.shape[-1], dtype, mean.device, self._share)
        parts = self._features(p, dtype) if kept is None else kept
        result = over(parts, self._shared, found, self._empty, dtype, beta, p, coefficient)
        self._share = found.share
        self._shared = result.scatter.reshape(-1, *result.scatter.shape[-2:])[0]
        return result

    def _replayed(
        self, kept: list[Part], shared: Tensor, dtype: torch.dtype, beta: float
    ) -> Replayed[Statistics]:
        """The pass over what is kept."""
        if (dtype, beta) not in self._passes:

            def again(p: Mixture, coefficient: Tensor) -> Statistics:
                found = DenseSums(watch=False)
                empty = partial(_fresh, shared.device)
                return over(kept, shared, found, empty, dtype, beta, p, coefficient)

            self._passes[dtype, beta] = Replayed("the E-step", again)
        return self._passes[dtype, beta]

    def _features(self, p: Mixture, dtype: torch.dtype) -> Iterable[Part]:
        """Each chunk, which may be kept."""
        dim = p.components.mean.shape[-1]
        layout = p.components.layout(dim)
        keeps = 0 < self._size * layout.width * dtype.itemsize <= _room(self._origin.device)
        kept: list[Part] = []
        for x, weight in self._chunks(self.chunk(p, dtype)):
            features = (
                _fresh(self._origin.device, "features", layout.width, len(x), dtype)
                if keeps
                else self._empty("features", layout.width, len(x), dtype)
            )
            features[0] = 1
            points = features[1 : 1 + dim]
            torch.sub(x.T, self._origin.unsqueeze(-1), out=points)
            layout.fill(points, features)
            weight = None if weight is None else weight.to(dtype)
            if keeps or len(x) == self._size:
                kept.append((features, weight))
            yield features, weight
        if kept:
            self._kept[type(p.components), dtype] = kept

    def _empty(self, name: str, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """An array that is written over by the next call of the same name."""
        key = (name, dtype)
        size = rows * columns
        if key not in self._buffers or self._buffers[key].numel() < size:
            self._buffers[key] = torch.empty(size, dtype=dtype, device=self._origin.device)
        return self._buffers[key][:size].view(rows, columns)


def over(
    parts: Iterable[Part],
    shared: Tensor | None,
    found: Sums,
    empty: Empty,
    dtype: torch.dtype,
    beta: float,
    p: Mixture,
    coefficient: Tensor,
) -> Statistics:
    """One E-step over the features of a data set, whose `shared` sums are taken too if they are None."""
    mean = p.components.mean
    rows = mean[..., 0].numel()
    components, dim = mean.shape[-2:]
    layout = p.components.layout(dim)
    coefficient = coefficient.reshape(rows, layout.width)
    rounded = (coefficient * BITS).to(dtype)  # exp2 takes less time than exp
    total: Tensor | float = 0.0
    scatter = shared
    # Smaller responsibilities would be subnormal numbers: exp and the products are ten times
    # slower on those.
    low = -937.0 if dtype == torch.float64 else -108.0

    for features, weight in parts:
        r = torch.mm(rounded, features, out=empty("r", rows, features.shape[1], dtype))
        joint = r.view(rows // components, components, -1)
        top = joint.amax(1, keepdim=True)
        evidence = joint.sub_(top).clamp_(min=low).exp2_().sum(1, keepdim=True)
        joint.mul_(evidence.reciprocal() if weight is None else weight / evidence)
        bits = evidence.log2_().add_(top).squeeze(1)
        part = (bits if weight is None else bits * weight).sum(-1, dtype=torch.float64)
        total = part if isinstance(total, float) else total + part
        found.add(features, r, weight)
        more = layout.shared(features, weight) if shared is None else None
        if more is not None:
            scatter = more if scatter is None else scatter + more
    assert isinstance(total, Tensor), "no points"
    total = total / BITS
    result = found.result()
    if dtype != torch.float64:
        error = coefficient - rounded.double() / BITS
        total = total + (error * result).view(-1, components * layout.width).sum(1)
    total = total.view(mean.shape[:-2])
    total = total if beta == 1 else beta * total
    if scatter is None:
        scatter = mean.new_zeros(layout.common, layout.common)
    common = p.components.common(scatter)
    total = total if common is None else total + common
    result = result.reshape(*mean.shape[:-1], layout.width)
    return Statistics(total, result, scatter.expand(*mean.shape[:-2], *scatter.shape))


def _fresh(device: torch.device, name: str, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """An array that nobody else writes to."""
    return torch.empty(rows, columns, dtype=dtype, device=device)


def _room(device: torch.device) -> int:
    """Bytes of features that may be kept."""
    if device.type != "cuda":
        return _KEPT
    return max(_KEPT, int(_KEPT_SHARE * torch.cuda.mem_get_info(device)[0]))
