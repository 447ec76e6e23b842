"""Expected sufficient statistics of a mixture's components, and what is believed of the components
before any point.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from jensen.base.unlikely import unlikely
from jensen.family.floor import Rounding

TINY = 1e-280
"""Stands for no points at all; its square root and its inverse are finite in float64."""

_FAR = 1e9
"""The greatest square of a mean's distance from the centre, in deviations, for products: there they
err by 1e-6 of a nat.
"""

_LIMIT = 1 << 22
"""Elements of a temporary `(..., N, k, D)`: 32 MiB of float64."""


class Moments(NamedTuple):
    """Expected sufficient statistics of each component, float64: sums over points weighted by
    responsibilities.

    origin: `(..., K or 1, D)`, the point the others are taken about, the same for all parts of a
        data set.
    total: `(..., K)`, sum r.
    first: `(..., K, D)`, sum r (x - origin).
    second: sum r (x - origin)(x - origin)' as far as the structure needs it: its diagonal `(..., K,
        D)`, its trace `(..., K)`, its sum over components `(..., D, D)`, or all of it `(..., K, D,
        D)`.
    """

    origin: Tensor
    total: Tensor
    first: Tensor
    second: Tensor


def add(parts: list[Moments]) -> Moments:
    """The moments of a whole from those of its batches, all taken with the same parameters."""
    sums = list(zip(*parts, strict=True))[1:]
    return Moments(parts[0].origin, *(torch.stack(each).sum(0) for each in sums))


class PseudoCounts(NamedTuple):
    """A conjugate prior of a mixture's parameters, as points seen beforehand, for a maximum a
    posteriori M-step; and a floor.

    weight: points credited to each component: a Dirichlet prior with concentration 1 + weight.
    covariance: points credited to each covariance, spread as diag(variance): an inverse-Wishart
        prior with scale matrix covariance * diag(variance) and covariance - D - 1 degrees of
        freedom.
    variance: `()` or `(D,)`.
    floor: `()` or `(D,)`, and the M-step is the exact maximum over covariances for which covariance
        - diag(floor) is positive semi-definite; 0 is no floor; a `Rounding` gives each component
            its own. It has no useful gradient
        where it holds: for a layer use `covariance`.
    values: points credited to each column that is not Gaussian: a symmetric Beta or Dirichlet prior,
        spread evenly over what the column may be, and of counts a gamma prior, at `mean`, `()` or
        of each such column.
    """

    weight: float = 0.0
    covariance: float = 0.0
    variance: Tensor | float = 1.0
    floor: Tensor | float | Rounding = 0.0
    values: float = 0.0
    mean: Tensor | float = 0.0

    @property
    def has_floor(self) -> bool:
        """Tell whether a covariance is held up by anything but rounding of the M-step itself."""
        return not (isinstance(self.floor, float) and self.floor == 0)

    @property
    def believes(self) -> bool:
        """Tell whether it has a density."""
        return bool(self.weight or self.covariance or self.values)

    def log_weight(self, total: Tensor) -> Tensor:
        """The log-weights that maximise the expected log-joint, of each component's count, `(...,
        K)`.
        """
        count = total + self.weight if self.weight else total
        return count.clamp(min=TINY).log() - count.sum(-1, keepdim=True).log()

    def log_density(self, log_weight: Tensor, components: Any) -> Tensor:
        """log density of a mixture's parameters, `(...)`, nats, up to a constant."""
        found: Tensor = self.weight * log_weight.sum(-1) + components.log_prior(self)
        return found


FLAT = PseudoCounts()
"""No points beforehand and no floor: maximum likelihood."""


def like(tensor: Tensor, value: Tensor | float) -> Tensor:
    """`value` in the dtype of `tensor`: a Python number is not rounded to float32 on its way."""
    if isinstance(value, Tensor):
        return value.to(tensor)
    # filled in where it is: a copy from the host waits, and no CUDA graph may hold one
    return torch.full((), value, dtype=tensor.dtype, device=tensor.device)


def centre(mean: Tensor) -> Tensor:
    """A point near the data, `(..., 1, D)` float64; results do not depend on it, so no gradient is
    taken.
    """
    return mean.detach().double().mean(-2, keepdim=True)


class Centred(NamedTuple):
    """Points about `centre`, their responsibilities, and the first two moments, float64."""

    origin: Tensor
    x: Tensor
    r: Tensor
    total: Tensor
    first: Tensor


def centred(x: Tensor, r: Tensor, mean: Tensor) -> Centred:
    """Points `(..., N, D)` and responsibilities `(..., N, K)` about the `centre` of `mean` `(...,
    K, D)`.
    """
    origin = centre(mean)
    points = x.double() - origin
    weights = r.double()
    return Centred(origin, points, weights, weights.sum(-2), weights.mT @ points)


def squares(x: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """sum_d precision (x - mean)^2, `(..., N, D)`, `(..., K, D)` twice to `(..., N, K)`, without an
    (N, K, D) array.

    As matrix products in float64 about `centre`: exact to eps * `em.precision.spread`, 1e-9 for
    means 1,000 deviations apart. On a CPU means farther apart than 30,000 are asked for, and then
    deviations are taken one by one; another device would have to be waited for.
    """
    origin = centre(mean)
    points = x.double() - origin
    place = mean.double() - origin
    spread = (precision * place.square()).sum(-1)
    if _loses(spread):
        return _one_by_one(x.double(), mean.double(), precision)
    cross = points.square() @ precision.mT - 2 * (points @ (precision * place).mT)
    return cross + spread.unsqueeze(-2)


def _loses(spread: Tensor) -> bool:
    """Tell whether products about the centre lose digits, where that can be asked: of no device, of
    no stack, and not in a step that is recorded to be called with other numbers.
    """
    if spread.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active() or torch._C._len_torch_dispatch_stack():
        return False
    return unlikely((spread > _FAR).any())


def _one_by_one(x: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """`squares` by deviations, of so many means at a time that these fit."""
    size = max(1, _LIMIT // max(1, x.numel()))
    parts = zip(
        torch.split(mean, size, -2), torch.split(precision.expand_as(mean), size, -2), strict=True
    )
    found = []
    for place, scale in parts:
        deviations = x.unsqueeze(-2) - place.unsqueeze(-3)
        found.append((deviations.square() * scale.unsqueeze(-3)).sum(-1))
    return torch.cat(found, -1)


def counted(m: Moments) -> Tensor:
    """The counts that sums over points are divided by, `(..., K, 1)`, above 0."""
    return m.total.unsqueeze(-1).clamp(min=TINY)


def moved(old: Tensor, m: Moments, mean: Tensor) -> Tensor:
    """The new means in the dtype of the old, which stay where a component has no points."""
    return torch.where(m.total.unsqueeze(-1) > 0, m.origin + mean, old.double()).to(old.dtype)


def own_floor(
    floor: Tensor | float | Rounding, mean: Tensor, second: Tensor, columns: int = 1
) -> Tensor | float:
    """The floor, for a `Rounding` that of each component `(..., K, D)`; `second` is the mean square
    about the sums' origin.
    """
    if isinstance(floor, Rounding):
        return floor.summed(floor.stored(mean), second, columns)
    return floor


def log_var_of(
    scatter: Tensor, count: Tensor, floor: Tensor | float, old: Tensor, empty: Tensor
) -> Tensor:
    """log(scatter / count) with a floor, or the `old` value where `empty`; `count` is above 0."""
    variance = scatter / count
    flat = isinstance(floor, float) and floor == 0
    variance = variance.clamp(min=TINY) if flat else torch.maximum(variance, like(variance, floor))
    log_var = torch.where(empty, 1.0, variance).log()
    return torch.where(empty, old.double(), log_var).to(old.dtype)


def log_inverse_wishart(prior: PseudoCounts, log_det: Tensor, precision: Tensor) -> Tensor:
    """-covariance/2 (log|C| + tr(C^-1 diag variance)), `(...)` and the diagonal of C^-1 `(..., D)`
    to `(...)`.
    """
    return -0.5 * prior.covariance * (log_det + (precision * prior.variance).sum(-1))
