"""Points that a mixture is asked about: as people have them, and how their densities are computed
without loss.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from jensen.base.errors import InputError
from jensen.em import local, missing
from jensen.em.stream import coefficients
from jensen.family import algebra, mixture
from jensen.family.full import FullGaussian, full
from jensen.family.mixture import Mixture
from jensen.model.arrays import as_tensor, column_names
from jensen.model.points import Points, refuse_far, refuse_infinite

_AT_A_TIME = 65536


class HeldOut(NamedTuple):
    """A mixture `(K,)` that was fitted to points with these `columns`, whose NaN are `missing`
    values or an error.
    """

    mixture: Mixture
    missing: bool
    columns: tuple[str, ...] | None

    def points(self, x: Any, before: int = 0) -> Tensor:
        """`x` as a tensor `(N, D)` on the device of the parameters; `before` it came so many other
        rows.
        """
        mean = self.mixture.components.mean
        names = column_names(x)
        check_columns(names, self.columns)
        x = as_tensor("x", x, self.missing).to(mean.device)
        if x.dim() != 2 or x.shape[1] != mean.shape[1]:
            raise InputError(
                f"x has the shape {tuple(x.shape)}: expected (N, {mean.shape[1]}), the coordinates"
                " this GMM was fitted to"
            )
        refuse_infinite(x, before, self.missing, names)
        return x

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, k), `(N, D)` to `(N, K)`."""
        joint = self._joint_of(x)(x, self.mixture)
        refuse_far(joint.detach().amax(-1))
        return joint

    def log_prob(self, x: Tensor, before: int = 0) -> Tensor:
        """log p(x), `(N, D)` to `(N,)`."""
        value = mixture.log_prob(x, self.mixture, self._joint_of(x))
        refuse_far(value.detach(), before=before)
        return value

    def total(self, x: Any) -> tuple[float, int]:
        """The sum of log p(x) over points of any kind, and their number."""
        return total(self, x, self.missing, self.columns)

    def responsibilities(self, r: Any, joint: Tensor) -> Tensor:
        """`r` as a tensor of the shape of `joint` `(N, K)`."""
        return check_responsibilities(r, joint)

    def _joint_of(self, x: Tensor) -> Callable[[Tensor, Mixture], Tensor]:
        """The way to compute log p(x, k) of these points: NaN is marginalised, and far components
        need deviations.
        """
        if bool(x.isnan().any()):
            return lambda part, p: p.log_weight + missing.log_density(part, p)
        about = mixture.shift(self.mixture, -self.mixture.components.mean.detach().mean(0))
        return local.log_joint if local.needed(about, coefficients(about)) else mixture.log_joint

    def marginal(self, dims: Sequence[int | str]) -> Mixture:
        """The mixture of the coordinates `dims`."""
        whole = full(self.mixture.components)
        return Mixture(self.mixture.log_weight, algebra.marginal(whole, self._places(dims)))

    def conditional(self, dims: Sequence[int | str], values: Any) -> Mixture:
        """The mixture of the other coordinates given that `dims` have `values`, `(G,)` or `(N,
        G)`.
        """
        log_weight, components = self.mixture
        size = components.mean.shape[1]
        given = self._places(dims)
        values = as_tensor("values", values).to(log_weight)
        if values.dim() not in (1, 2) or values.shape[-1] != len(given) or len(given) == size:
            raise InputError(
                f"dims is {given} and values has the shape {tuple(values.shape)}: expected a value"
                f" for each of dims, and dims to leave one of {size} coordinates"
            )
        if not bool(values.isfinite().all()):
            raise InputError(
                "values holds NaN or an infinite number: expected finite ones; leave out dims that"
                " are not known"
            )
        each = values.unsqueeze(-2)  # (..., 1, G) against K components
        whole = full(components)
        joint = log_weight + algebra.marginal(whole, given).log_prob(each)
        refuse_far(joint.detach().amax(-1).reshape(-1), "values")
        mean, scale_tril = algebra.condition(whole, given, each)
        return Mixture(
            joint.log_softmax(-1),
            FullGaussian(mean, scale_tril.expand(*mean.shape, mean.shape[-1])),
        )

    def _places(self, dims: Sequence[int | str]) -> list[int]:
        """The coordinates, which may be given by the names of a frame's columns."""
        size = self.mixture.components.mean.shape[1]
        known: dict[Any, int] = {name: place for place, name in enumerate(self.columns or ())}
        asked = [known.get(dim, dim) if isinstance(dim, str) else dim for dim in dims]
        found = [dim % size for dim in asked if isinstance(dim, int) and -size <= dim < size]
        if not found or len(found) != len(asked) or len(set(found)) != len(found):
            by_name = f" or {', '.join(self.columns)}" if self.columns else ""
            raise InputError(
                f"dims is {list(dims)}: expected different coordinates of 0..{size - 1}{by_name},"
                " at least one"
            )
        return found


class Scores(Protocol):
    """A density of points."""

    @property
    def mixture(self) -> Mixture: ...

    def points(self, x: Any, before: int = 0) -> Tensor: ...

    def log_prob(self, x: Tensor, before: int = 0) -> Tensor: ...


def total(
    held_out: Scores, x: Any, missing: bool, columns: tuple[str, ...] | None
) -> tuple[float, int]:
    """The sum of log p(x) over points of any kind, and their number."""
    device = held_out.mixture.log_weight.device
    points = Points(x, device=device, missing=missing)
    check_columns(points.names, columns)
    found = 0.0
    count = 0
    for part, _ in points.chunks(_AT_A_TIME):
        part = held_out.points(part.to(device), count)
        found += float(held_out.log_prob(part, count).double().sum())
        count += len(part)
    if not count:
        raise InputError("x has 0 points: expected at least one")
    return found, count


def check_responsibilities(r: Any, joint: Tensor) -> Tensor:
    """`r` as a tensor of the shape of `joint` `(N, K)`."""
    r = as_tensor("r", r).to(joint)
    if r.shape != joint.shape:
        raise InputError(
            f"r has the shape {tuple(r.shape)}: expected {tuple(joint.shape)}, a number for"
            " each component"
        )
    bad = r[~((r >= 0) & r.isfinite())]
    if len(bad):
        raise InputError(
            f"r holds {bad[0].item():g}: expected finite numbers of at least 0, which add up"
            " to 1 in each row"
        )
    return r


def check_columns(names: tuple[str, ...] | None, columns: tuple[str, ...] | None) -> None:
    """Refuse a frame whose columns are others than those of the fit."""
    if names and columns and names != columns:
        raise InputError(
            f"x has the columns {', '.join(names)}: expected {', '.join(columns)}, which"
            " this GMM was fitted to, in this order"
        )
