"""The components of a mixture: K Gaussians of one covariance structure, one class a structure.

`Diagonal` and `Spherical` are `(mean, log_var)`, `Tied` and `Full` are `(mean, scale_tril)`. Every tensor may have
leading axes `...`: a stack of mixtures, such as several starts of one fit. Sums over points are taken about a point near
the means, in float64, so moving the data by 1e6 moves the means and changes nothing else.

Each structure is an exponential family, log N(x; k) = natural_k . features(x). `log_density` and `moments` are plain,
differentiable torch; `natural`, `features` and `collect` are the same mathematics as matrix products for `em.stream`,
whose rounding error grows as eps * `spread`.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from jensen.family.floor import Rounding
from jensen.family.gaussian import LOG_2PI, Gaussian

_TINY = 1e-280
"""Stands for no points at all; its square root and its inverse are finite in float64."""


class Moments(NamedTuple):
    """Expected sufficient statistics of each component, float64: sums over points weighted by responsibilities.

    origin: `(..., K or 1, D)`, the point the others are taken about, the same for all parts of a data set.
    total: `(..., K)`, sum r.
    first: `(..., K, D)`, sum r (x - origin).
    second: sum r (x - origin)(x - origin)' as far as the structure needs it: its diagonal `(..., K, D)`, its trace `(..., K)`,
        its sum over components `(..., D, D)`, or all of it `(..., K, D, D)`.
    """

    origin: Tensor
    total: Tensor
    first: Tensor
    second: Tensor


def add(parts: list[Moments]) -> Moments:
    """The moments of a whole from those of its batches, all taken with the same parameters."""
    total, first, second = (torch.stack(sums).sum(0) for sums in list(zip(*parts, strict=True))[1:])
    return Moments(parts[0].origin, total, first, second)


class Prior(NamedTuple):
    """What is believed before any point is seen, as pseudo-counts, for a maximum a posteriori M-step; and a floor.

    weight: points credited to each component: a Dirichlet prior with concentration 1 + weight.
    covariance: points credited to each covariance, spread as diag(variance): an inverse-Wishart prior with scale matrix
        covariance * diag(variance) and covariance - D - 1 degrees of freedom.
    variance: `()` or `(D,)`.
    floor: `()` or `(D,)`, and the M-step is the exact maximum over covariances for which covariance - diag(floor) is positive
        semi-definite; 0 is no floor; a `Rounding` gives each component its own. It has no useful gradient where it holds: for
        a layer use `covariance`.
    """

    weight: float = 0.0
    covariance: float = 0.0
    variance: Tensor | float = 1.0
    floor: Tensor | float | Rounding = 0.0


FLAT = Prior()


class Components(Protocol):
    """K Gaussians over `(D,)`. All results are promoted to the wider dtype of the arguments, computed in float64."""

    @property
    def mean(self) -> Tensor:
        """`(..., K, D)`."""
        ...

    def __iter__(self) -> Iterator[Tensor]:
        """The parameters: the mean and its log_var or scale_tril."""
        ...

    def log_density(self, x: Tensor) -> Tensor:
        """log N(x; k), `(..., N, D)` to `(..., N, K)`, nats."""
        ...

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        """Of `x` `(..., N, D)` under weights `r` `(..., N, K)`, which are responsibilities times any weights of the points.

        A point with `r` = 0 must still be finite: 0 * NaN is NaN.
        """
        ...

    def maximise(self, m: Moments, prior: Prior = FLAT) -> Self:
        """The closed-form maximum of sum r log N(x; k) + log prior; a component without any points stays as it is.

        Bishop 2006, eq. 9.24-9.25, and 10.61-10.63 for the pseudo-counts. Raises torch's LinAlgError where a covariance
        is not positive definite and `prior` has neither floor nor pseudo-counts.
        """
        ...

    def log_prior(self, prior: Prior) -> Tensor:
        """log density of the covariances under `prior`, `(...)`, nats, up to a constant."""
        ...

    def marginals(self) -> Gaussian:
        """Each component's own marginal in each dimension, `(..., K, D)`."""
        ...

    def full(self) -> "Full":
        """The same Gaussians with a covariance matrix each."""
        ...

    @classmethod
    def at(cls, mean: Tensor, variance: Tensor) -> Self:
        """Components at `mean` `(..., K, D)` that all have the covariance diag(variance), `(D,)`."""
        ...

    def natural(self) -> Tensor:
        """`(..., K, P)`: log N(x; k) = natural_k . features(x) - x'Cx/2 with C = `common_precision`."""
        ...

    def common_precision(self) -> Tensor | None:
        """The precision `(..., D, D)` that all components share, which no responsibility depends on; None for no C."""
        ...

    @staticmethod
    def width(dim: int) -> int:
        """P, the number of features of points with `dim` dimensions."""
        ...

    @staticmethod
    def features(x: Tensor, out: Tensor) -> None:
        """Fill `out` `(P, N)`, whose first row is 1 and whose next D rows hold the points, `x` `(D, N)`."""
        ...

    @staticmethod
    def collect(sums: Tensor, scatter: Tensor | None) -> Moments:
        """Moments about 0 from `sums` of r * features, `(..., K, P)`; Tied needs the `scatter` sum x x', `(..., D, D)`."""
        ...

    @staticmethod
    def pack(total: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """The `sums` for `collect` from moments about 0 that hold all of `second`, `(..., K, D, D)`."""
        ...


def spread(components: Components) -> Tensor:
    """`(..., K)`: mean' covariance^-1 mean of each component, which magnifies rounding of the feature form."""
    full = components.full()
    whitened = torch.linalg.solve_triangular(full.scale_tril, full.mean.unsqueeze(-1), upper=False)
    squares: Tensor = whitened.square().sum((-2, -1))
    return squares


def ridge(components: Components) -> Tensor:
    """`(..., K or 1)`, at least 1: how much of a column's variance the others make up, which magnifies rounding as `spread`.

    A direction of little variance shows in the last of its columns: little is left of that, given those before.
    """
    mean, shape = components
    if not isinstance(components, Tied | Full) or mean.shape[-1] == 1:
        return torch.ones_like(mean[..., 0])
    variance = torch.linalg.vecdot(shape, shape)
    worst: Tensor = (variance / shape.diagonal(dim1=-2, dim2=-1).square()).amax(-1)
    return worst if isinstance(components, Full) else worst.unsqueeze(-1)


def _centre(mean: Tensor) -> Tensor:
    """A point near the data, `(..., 1, D)` float64; results do not depend on it, so no gradient is taken."""
    return mean.detach().double().mean(-2, keepdim=True)


def _squares(x: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """sum_d precision (x - mean)^2, `(..., N, D)`, `(..., K, D)` twice to `(..., N, K)`, without an (N, K, D) array.

    As matrix products in float64 about `_centre`: exact to eps * `spread`, 1e-9 for means 1,000 deviations apart.
    """
    centre = _centre(mean)
    x, mean = x.double() - centre, mean.double() - centre
    cross = x.square() @ precision.mT - 2 * (x @ (precision * mean).mT)
    return cross + (precision * mean.square()).sum(-1).unsqueeze(-2)


def _first_two(x: Tensor, r: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Origin, centred points, responsibilities, count and first moment, float64."""
    origin = _centre(mean)
    x, r = x.double() - origin, r.double()
    return origin, x, r, r.sum(-2), r.mT @ x


def _mean(m: Moments) -> tuple[Tensor, Tensor]:
    """The means about the origin, `(..., K, D)`, and the counts they divide by, `(..., K, 1)`."""
    count = m.total.unsqueeze(-1).clamp(min=_TINY)
    return m.first / count, count


def _own(floor: Tensor | float | Rounding, mean: Tensor, second: Tensor, columns: int = 1) -> Tensor | float:
    """The floor, for a `Rounding` that of each component `(..., K, D)`; `second` is the mean square about the sums' origin."""
    return floor.summed(floor.stored(mean), second, columns) if isinstance(floor, Rounding) else floor


def _outer(x: Tensor) -> Tensor:
    return x.unsqueeze(-1) * x.unsqueeze(-2)


def _log_var(scatter: Tensor, count: Tensor, floor: Tensor | float, old: Tensor, empty: Tensor) -> Tensor:
    """log(scatter / count) with a floor, or the `old` value where `empty`; `count` is above 0."""
    var = scatter / count
    flat = isinstance(floor, float) and floor == 0
    var = var.clamp(min=_TINY) if flat else torch.maximum(var, like(var, floor))
    return torch.where(empty, old.double(), torch.where(empty, 1.0, var).log())


def _scale_tril(cov: Tensor, floor: Tensor | float) -> Tensor:
    """Cholesky factor of the covariance nearest in likelihood to `cov` `(..., D, D)` that is at least diag(floor).

    Maximising -log|C| - tr(C^-1 S) over C >= diag(floor) clamps the eigenvalues of S, taken in units of the floor, at 1.
    """
    if not isinstance(floor, Tensor) and floor == 0:
        return _cholesky(cov)
    least = like(cov, floor).expand(cov.shape[:-1])
    below = torch.linalg.cholesky_ex(cov - least.diag_embed())[1] != 0
    if bool(below.any()):
        unit = _outer(least.sqrt())
        values, vectors = torch.linalg.eigh(cov / unit)
        # Slightly above 1, so that rounding does not leave a component below its floor for good.
        clamped = unit * ((vectors * values.clamp(min=1 + 1e-9).unsqueeze(-2)) @ vectors.mT)
        cov = torch.where(below.unsqueeze(-1).unsqueeze(-1), clamped, cov)
    scale_tril: Tensor = torch.linalg.cholesky_ex(cov)[0]
    return scale_tril


def like(tensor: Tensor, value: Tensor | float) -> Tensor:
    """`value` in the dtype of `tensor`: a Python number is not rounded to float32 on its way."""
    return value.to(tensor) if isinstance(value, Tensor) else torch.as_tensor(value, dtype=tensor.dtype, device=tensor.device)


def _cholesky(cov: Tensor) -> Tensor:
    scale_tril: Tensor = torch.linalg.cholesky(cov)
    return scale_tril


def _log_det(scale_tril: Tensor) -> Tensor:
    return 2 * scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _precision(scale_tril: Tensor) -> Tensor:
    eye = torch.eye(scale_tril.shape[-1], dtype=torch.float64, device=scale_tril.device)
    inverse: Tensor = torch.linalg.solve_triangular(scale_tril.double(), eye, upper=False)
    return inverse.mT @ inverse  # five times faster than torch.cholesky_inverse on small matrices


def _covariance_prior(prior: Prior, log_det: Tensor, precision: Tensor) -> Tensor:
    """-covariance/2 (log|C| + tr(C^-1 diag variance)), `(...)` and the diagonal of C^-1 `(..., D)` to `(...)`."""
    return -0.5 * prior.covariance * (log_det + (precision * prior.variance).sum(-1))


class Diagonal(NamedTuple):
    """N(mean_k, diag exp(log_var_k)); `mean` and `log_var` are `(..., K, D)`."""

    mean: Tensor
    log_var: Tensor

    def log_density(self, x: Tensor) -> Tensor:
        log_var = self.log_var.double()
        squares = _squares(x, self.mean, (-log_var).exp())
        constant = (log_var + LOG_2PI).sum(-1).unsqueeze(-2)
        return (-0.5 * (squares + constant)).to(torch.promote_types(x.dtype, self.mean.dtype))

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        origin, x, r, count, first = _first_two(x, r, self.mean)
        return Moments(origin, count, first, r.mT @ x.square())

    def maximise(self, m: Moments, prior: Prior = FLAT) -> "Diagonal":
        mean, count = _mean(m)
        scatter, credit = m.second - m.first * mean, prior.covariance
        if credit:
            scatter, count = scatter + credit * prior.variance, count + credit
        floor = _own(prior.floor, m.origin + mean, m.second / count)
        log_var = _log_var(scatter, count, floor, self.log_var, m.total.unsqueeze(-1) <= -credit)
        return Diagonal(_moved(self.mean, m, mean), log_var.to(self.log_var.dtype))

    def log_prior(self, prior: Prior) -> Tensor:
        return _covariance_prior(prior, self.log_var.sum(-1), (-self.log_var).exp()).sum(-1)

    def marginals(self) -> Gaussian:
        return Gaussian(self.mean, self.log_var)

    def full(self) -> "Full":
        return Full(self.mean, (0.5 * self.log_var).exp().diag_embed())

    @classmethod
    def at(cls, mean: Tensor, variance: Tensor) -> "Diagonal":
        return cls(mean, variance.log().expand(mean.shape))

    def natural(self) -> Tensor:
        precision = (-self.log_var).exp()
        linear = precision * self.mean
        constant = -0.5 * (self.log_var + LOG_2PI + linear * self.mean).sum(-1, keepdim=True)
        return torch.cat([constant, linear, -0.5 * precision], -1)

    def common_precision(self) -> None:
        return None

    @staticmethod
    def width(dim: int) -> int:
        return 1 + 2 * dim

    @staticmethod
    def features(x: Tensor, out: Tensor) -> None:
        torch.mul(x, x, out=out[1 + len(x) :])

    @staticmethod
    def collect(sums: Tensor, scatter: Tensor | None) -> Moments:
        dim = sums.shape[-1] // 2
        return Moments(sums.new_zeros(1, dim), sums[..., 0], sums[..., 1 : 1 + dim], sums[..., 1 + dim :])

    @staticmethod
    def pack(total: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([total.unsqueeze(-1), first, second.diagonal(dim1=-2, dim2=-1)], -1)


class Spherical(NamedTuple):
    """N(mean_k, exp(log_var_k) I); `mean` is `(..., K, D)`, `log_var` `(..., K)`."""

    mean: Tensor
    log_var: Tensor

    def _diagonal(self) -> Diagonal:
        return Diagonal(self.mean, self.log_var.unsqueeze(-1).expand(self.mean.shape))

    def log_density(self, x: Tensor) -> Tensor:
        return self._diagonal().log_density(x)

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        origin, x, r, count, first = _first_two(x, r, self.mean)
        return Moments(origin, count, first, (r * x.square().sum(-1, keepdim=True)).sum(-2))

    def maximise(self, m: Moments, prior: Prior = FLAT) -> "Spherical":
        mean, count = _mean(m)
        dim = mean.shape[-1]
        credit = prior.covariance * like(mean, prior.variance).expand(dim).sum()
        scatter = m.second - m.total * mean.square().sum(-1) + credit
        floor = _own(prior.floor, m.origin + mean, m.second.unsqueeze(-1) / (dim * count))
        if isinstance(floor, Tensor):
            floor = floor.mean(-1) if isinstance(prior.floor, Rounding) else floor.amax()
        log_var = _log_var(
            scatter, dim * (count.squeeze(-1) + prior.covariance), floor, self.log_var, m.total + prior.covariance <= 0
        )
        return Spherical(_moved(self.mean, m, mean), log_var.to(self.log_var.dtype))

    def log_prior(self, prior: Prior) -> Tensor:
        return self._diagonal().log_prior(prior)

    def marginals(self) -> Gaussian:
        return self._diagonal().marginals()

    def full(self) -> "Full":
        return self._diagonal().full()

    @classmethod
    def at(cls, mean: Tensor, variance: Tensor) -> "Spherical":
        return cls(mean, variance.mean().log().expand(mean.shape[:-1]))

    def natural(self) -> Tensor:
        precision = (-self.log_var).exp().unsqueeze(-1)
        linear = precision * self.mean
        dim = self.mean.shape[-1]
        constant = -0.5 * (dim * (self.log_var + LOG_2PI) + (linear * self.mean).sum(-1))
        return torch.cat([constant.unsqueeze(-1), linear, -0.5 * precision], -1)

    def common_precision(self) -> None:
        return None

    @staticmethod
    def width(dim: int) -> int:
        return 2 + dim

    @staticmethod
    def features(x: Tensor, out: Tensor) -> None:
        torch.linalg.vecdot(x, x, dim=0, out=out[-1])

    @staticmethod
    def collect(sums: Tensor, scatter: Tensor | None) -> Moments:
        return Moments(sums.new_zeros(1, sums.shape[-1] - 2), sums[..., 0], sums[..., 1:-1], sums[..., -1])

    @staticmethod
    def pack(total: Tensor, first: Tensor, second: Tensor) -> Tensor:
        trace = second.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
        return torch.cat([total.unsqueeze(-1), first, trace], -1)


class Tied(NamedTuple):
    """N(mean_k, L L'), one covariance for all; `mean` is `(..., K, D)`, L = `scale_tril` `(..., D, D)`."""

    mean: Tensor
    scale_tril: Tensor

    def log_density(self, x: Tensor) -> Tensor:
        centre, scale_tril = _centre(self.mean), self.scale_tril.double()

        def whiten(points: Tensor) -> Tensor:
            whitened: Tensor = torch.linalg.solve_triangular(scale_tril.mT, points.double() - centre, upper=True, left=False)
            return whitened

        mean = whiten(self.mean)
        squares = _squares(whiten(x), mean, torch.ones_like(mean))
        constant = (_log_det(scale_tril) + x.shape[-1] * LOG_2PI)[..., None, None]
        return (-0.5 * (squares + constant)).to(torch.promote_types(x.dtype, self.mean.dtype))

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        origin, x, r, count, first = _first_two(x, r, self.mean)
        return Moments(origin, count, first, (x * r.sum(-1, keepdim=True)).mT @ x)

    def maximise(self, m: Moments, prior: Prior = FLAT) -> "Tied":
        mean, count = _mean(m)
        credit = prior.covariance * torch.diag(like(mean, prior.variance).expand(mean.shape[-1]))
        scatter = m.second - mean.mT @ (count * mean) + credit
        total, old = m.total.sum(-1)[..., None, None] + prior.covariance, self.scale_tril.double()
        cov = torch.where(total > 0, scatter / total.clamp(min=_TINY), old @ old.mT)
        floor: Tensor | float | Rounding = prior.floor
        if isinstance(floor, Rounding):
            share = (count / count.sum(-2, keepdim=True)).mT
            squares = m.second.diagonal(dim1=-2, dim2=-1) / total.squeeze(-1).clamp(min=_TINY)
            floor = floor.summed((share @ floor.stored(m.origin + mean)).squeeze(-2), squares, mean.shape[-1])
        return Tied(_moved(self.mean, m, mean), _scale_tril(cov, floor).to(self.scale_tril.dtype))

    def log_prior(self, prior: Prior) -> Tensor:
        precision = _precision(self.scale_tril).diagonal(dim1=-2, dim2=-1)
        return _covariance_prior(prior, _log_det(self.scale_tril), precision)

    def marginals(self) -> Gaussian:
        return self.full().marginals()

    def full(self) -> "Full":
        return Full(self.mean, self.scale_tril.unsqueeze(-3).expand(*self.mean.shape, self.mean.shape[-1]))

    @classmethod
    def at(cls, mean: Tensor, variance: Tensor) -> "Tied":
        return cls(mean, variance.sqrt().diag().expand(*mean.shape[:-2], *[len(variance)] * 2))

    def natural(self) -> Tensor:
        linear = self.mean @ _precision(self.scale_tril)
        constant = (_log_det(self.scale_tril) + self.mean.shape[-1] * LOG_2PI).unsqueeze(-1) + (linear * self.mean).sum(-1)
        return torch.cat([-0.5 * constant.unsqueeze(-1), linear], -1)

    def common_precision(self) -> Tensor:
        return _precision(self.scale_tril)

    @staticmethod
    def width(dim: int) -> int:
        return 1 + dim

    @staticmethod
    def features(x: Tensor, out: Tensor) -> None:
        pass

    @staticmethod
    def collect(sums: Tensor, scatter: Tensor | None) -> Moments:
        assert scatter is not None
        dim = sums.shape[-1] - 1
        second = scatter.expand(*sums.shape[:-2], dim, dim)
        return Moments(sums.new_zeros(1, dim), sums[..., 0], sums[..., 1:], second)

    @staticmethod
    def pack(total: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([total.unsqueeze(-1), first], -1)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # they are kept, and must serve gradients too
def _triangle(dim: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of a symmetric `(D, D)` matrix: where its upper triangle is when flattened, what each entry of that counts in
    -x'Px/2, and where in the triangle each entry of the whole is."""
    row, column = torch.triu_indices(dim, dim, device=device)
    place = torch.empty(dim, dim, dtype=torch.long, device=device)
    place[row, column] = place[column, row] = torch.arange(len(row), device=device)
    return row * dim + column, torch.where(row == column, -0.5, -1.0).double(), place.flatten()


class Full(NamedTuple):
    """N(mean_k, L_k L_k'); `mean` is `(..., K, D)`, L = `scale_tril` `(..., K, D, D)`."""

    mean: Tensor
    scale_tril: Tensor

    def _deviations(self, x: Tensor) -> Tensor:
        """x - mean_k, `(..., K, N, D)`: exact however far apart the components are."""
        return x.double().unsqueeze(-3) - self.mean.double().unsqueeze(-2)

    def log_density(self, x: Tensor) -> Tensor:
        scale_tril = self.scale_tril.double()
        whitened = torch.linalg.solve_triangular(scale_tril, self._deviations(x).mT, upper=False)
        constant = (_log_det(scale_tril) + x.shape[-1] * LOG_2PI).unsqueeze(-1)
        density: Tensor = -0.5 * (whitened.square().sum(-2) + constant)
        return density.mT.to(torch.promote_types(x.dtype, self.mean.dtype))

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        deviations, r = self._deviations(x), r.double()
        weighted = r.mT.unsqueeze(-1) * deviations
        return Moments(self.mean.double(), r.sum(-2), weighted.sum(-2), weighted.mT @ deviations)

    def maximise(self, m: Moments, prior: Prior = FLAT) -> "Full":
        mean, count = _mean(m)
        scatter = m.second - (count * mean).unsqueeze(-1) * mean.unsqueeze(-2)
        if prior.covariance:
            scatter = scatter + prior.covariance * torch.diag(like(mean, prior.variance).expand(mean.shape[-1]))
            cov = scatter / (count.unsqueeze(-1) + prior.covariance)
        else:
            old = self.scale_tril.double()
            cov = torch.where((m.total > 0).unsqueeze(-1).unsqueeze(-1), scatter / count.unsqueeze(-1), old @ old.mT)
        floor = _own(prior.floor, m.origin + mean, m.second.diagonal(dim1=-2, dim2=-1) / count, mean.shape[-1])
        return Full(_moved(self.mean, m, mean), _scale_tril(cov, floor).to(self.scale_tril.dtype))

    def log_prior(self, prior: Prior) -> Tensor:
        precision = _precision(self.scale_tril).diagonal(dim1=-2, dim2=-1)
        return _covariance_prior(prior, _log_det(self.scale_tril), precision).sum(-1)

    def marginals(self) -> Gaussian:
        return Gaussian(self.mean, self.scale_tril.square().sum(-1).log())

    def full(self) -> "Full":
        return self

    @classmethod
    def at(cls, mean: Tensor, variance: Tensor) -> "Full":
        return cls(mean, variance.sqrt().diag().expand(*mean.shape, len(variance)))

    def natural(self) -> Tensor:
        precision = _precision(self.scale_tril)
        linear = (precision @ self.mean.unsqueeze(-1)).squeeze(-1)
        log_det = self.scale_tril.diagonal(dim1=-2, dim2=-1).log()
        constant = (-0.5 * linear * self.mean - log_det).sum(-1, keepdim=True) - 0.5 * self.mean.shape[-1] * LOG_2PI
        upper, factor, _ = _triangle(self.mean.shape[-1], precision.device)
        quadratic = precision.flatten(-2).index_select(-1, upper) * factor
        return torch.cat([constant, linear, quadratic], -1)

    def common_precision(self) -> None:
        return None

    @staticmethod
    def width(dim: int) -> int:
        return 1 + dim + dim * (dim + 1) // 2

    @staticmethod
    def features(x: Tensor, out: Tensor) -> None:
        dim = row = len(x)
        row += 1
        if x.device.type != "cpu":  # to launch D products takes longer there than to read the points twice
            i, j = torch.triu_indices(dim, dim, device=x.device)
            torch.index_select(x, 0, i, out=out[row:]).mul_(x.index_select(0, j))
            return
        for i in range(dim):
            torch.mul(x[i:], x[i], out=out[row : row + dim - i])
            row += dim - i

    @staticmethod
    def collect(sums: Tensor, scatter: Tensor | None) -> Moments:
        dim = (math.isqrt(8 * sums.shape[-1] + 1) - 3) // 2
        _, _, place = _triangle(dim, sums.device)
        second = sums[..., 1 + dim :].index_select(-1, place).reshape(*sums.shape[:-1], dim, dim)
        return Moments(sums.new_zeros(1, dim), sums[..., 0], sums[..., 1 : 1 + dim], second)

    @staticmethod
    def pack(total: Tensor, first: Tensor, second: Tensor) -> Tensor:
        upper, _, _ = _triangle(second.shape[-1], second.device)
        return torch.cat([total.unsqueeze(-1), first, second.flatten(-2).index_select(-1, upper)], -1)


def _moved(old: Tensor, m: Moments, mean: Tensor) -> Tensor:
    """The new means in the dtype of the old, which stay where a component has no points."""
    return torch.where(m.total.unsqueeze(-1) > 0, m.origin + mean, old.double()).to(old.dtype)
