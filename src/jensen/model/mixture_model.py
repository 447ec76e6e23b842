"""A mixture of any families with parameters: zeros and ones, categories, counts, real numbers."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self, final

import torch
from torch import Tensor

from jensen.base import random
from jensen.base.errors import InputError, check_count, check_seed
from jensen.em import local
from jensen.em.stream import coefficients
from jensen.family import mixture
from jensen.family.categorical_column import chosen
from jensen.family.column import Column
from jensen.family.columns import Columns
from jensen.family.mixture import Mixture
from jensen.family.moments import PseudoCounts
from jensen.model.arrays import as_tensor, column_names
from jensen.model.columns_fit import Asked, fit_columns, origin_of, pseudo_counts
from jensen.model.held_out import check_columns, check_responsibilities, total
from jensen.model.points import Points, Survey, refuse_infinite
from jensen.model.recipe import Recipe
from jensen.model.schema import Families, Schema, all_families, check_families, check_sizes
from jensen.model.scored import Scored


@final
class MixtureModel(Scored):
    """p(x) = sum_k weight_k prod_d p(x_d; k), fitted by EM: each column is of a family of its own.

    Args:
        components: K.
        families: "bernoulli" (0 and 1), "categorical" (0..C - 1), "poisson" (counts) or "normal", for all
            columns; or the columns of each: `{"normal": [0, 1], "bernoulli": [2]}`. In the place of a
            name may stand a class of your own, a `jensen.family.column.Column`.
        sizes: the categories of each categorical column, or one number for all; by default as many as
            there are in the points.
        prior: pseudo-counts for a maximum a posteriori fit: `values` are points credited to each
            column of each component, half of them 1 (Beta(2, 2) is `values=2`), spread evenly over
            categories, or at the mean count; `weight`, `covariance` and `floor` as of a `GMM`.
        seed, init, restarts, tolerance, max_iter, beta, missing, accelerate, warm_start, order: as of a
            `GMM`. NaN is a missing value with `missing=True`; `init` may be "kmeans++", "random"
            (responsibilities), means `(K, D)`, or a `Mixture`.
        own: classes of your own that `families` calls by their name, as a conf file has to.
        covariance: refused, since columns are independent within a component.

    Attributes, after `fit`: history, converged, iterations, columns, log_likelihood, failure, as of a
    `GMM`. A component that no point belongs to stays where it is.

    >>> x = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1]] * 10)
    >>> model = MixtureModel(2, "bernoulli", order="mean").fit(x)
    >>> model.predict(x[:4])
    tensor([1, 1, 0, 0])
    """

    log_weight: Tensor
    _place: Tensor

    def __init__(
        self,
        components: int,
        families: Families = "bernoulli",
        *,
        sizes: int | Sequence[int] | None = None,
        seed: int = 0,
        init: Any = "kmeans++",
        restarts: int = 1,
        tolerance: float = 1e-6,
        max_iter: int = 1000,
        prior: PseudoCounts | None = None,
        beta: float | Sequence[float] = 1.0,
        missing: bool = False,
        accelerate: bool = True,
        warm_start: bool = False,
        order: str | None = None,
        own: Sequence[Any] = (),
        covariance: None = None,
    ) -> None:
        if covariance is not None:
            raise InputError(
                f"covariance is {covariance!r} and the columns of a MixtureModel are independent within a"
                " component: expected none; jensen.GMM has it, for columns of real numbers"
            )
        check_families(families, own)
        check_sizes(sizes)
        init = init.mixture if isinstance(init, MixtureModel) else init
        recipe = Recipe(
            components=components,
            covariance="diag",
            seed=seed,
            init=init,
            restarts=restarts,
            tolerance=tolerance,
            max_iter=max_iter,
            prior=prior,
            beta=beta,
            missing=missing,
            accelerate=accelerate,
            warm_start=warm_start,
            order=order,
        )
        recipe.check()
        super().__init__()
        self.recipe = recipe
        self._asked = Asked(recipe, families, sizes, own)
        self._families = all_families(families, own)
        names = [name for family in self._families for name in family.parameters]
        self._names = ("log_weight", *names, "order", "counts", "sizes")
        for name in self._names:
            self.register_buffer(name, None)
        self.register_buffer("_place", torch.empty(0), persistent=False)
        self._unfitted()
        self.log_likelihood = math.nan

    def fit(self, x: Any, weights: Any = None) -> Self:
        """Fit to points `(N, D)`, of which each counts `weights` `(N,)` times; as of a `GMM`.

        Raises:
            InputError: a value that its column's family has not, and what `GMM.fit` refuses.
        """
        points = Points(x, weights, self._place.device, self.recipe.missing)
        before = None if self.log_weight is None else self.mixture
        with torch.inference_mode(points.array):
            fitted, schema = fit_columns(self._asked, points, before)
        self._keep(fitted.mixture, schema)
        for name in (
            "history",
            "columns",
            "converged",
            "iterations",
            "log_likelihood",
            "failure",
            "data",
        ):
            setattr(self, name, getattr(fitted, name))
        return self

    # ---- parameters -----------------------------------------------------------------------------

    @property
    def schema(self) -> Schema:
        """The family of each column."""
        if self.log_weight is None:
            raise InputError(
                "this MixtureModel has no parameters: call fit or load_state_dict first"
            )
        order, counts, sizes = (
            tuple(self.get_buffer(name).tolist()) for name in ("order", "counts", "sizes")
        )
        return Schema(order, counts, sizes, self._families)

    @property
    def mixture(self) -> Mixture:
        """The parameters as a value, its columns in the order of `schema`."""
        groups = tuple(_groups(self, self.schema))
        gaps = self.log_weight.new_zeros(len(self.log_weight), int(self.recipe.missing))
        return Mixture(self.log_weight, Columns(groups, gaps))

    @property
    def parameter_count(self) -> int:
        each = sum(group.degrees for group in _groups(self, self.schema))
        return len(self.log_weight) * (each + 1) - 1

    def assign(self, p: Mixture) -> None:
        for name, value in _flat(p, self._families).items():
            self.get_buffer(name).copy_(value)

    def _keep(self, p: Mixture, schema: Schema) -> None:
        for name, value in _flat(p, self._families).items():
            setattr(self, name, value.detach().double().clone())
        for name in ("order", "counts", "sizes"):
            value = torch.tensor(getattr(schema, name), dtype=torch.long)
            setattr(self, name, value.to(self.log_weight.device))
        self._place = self._place.to(self.log_weight.device)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Take the shapes from the checkpoint, since D is not known before."""
        for name in self._names:
            if (value := state_dict.get(prefix + name)) is None:
                continue
            if name == "log_weight" and len(value) != self.recipe.components:
                raise InputError(
                    f"the checkpoint has {len(value)} components: expected"
                    f" {self.recipe.components}; make MixtureModel({len(value)}, ...)"
                )
            setattr(self, name, torch.empty_like(value, device=self._place.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[arg-type]

    # ---- what algorithm=em needs ----------------------------------------------------------------

    def in_order(self, x: Tensor) -> Tensor:
        return self.schema.ordered(x)

    def as_given(self, x: Tensor) -> Tensor:
        return self.schema.unordered(x)

    def check_values(self, x: Tensor) -> None:
        self.schema.check(self.schema.ordered(x))

    def origin_of(self, survey: Survey) -> Tensor:
        return origin_of(self.schema, survey.mean).to(survey.dtype)

    def belief(self, mean: Tensor, variance: Tensor, origin: Tensor) -> PseudoCounts:
        return pseudo_counts(self.recipe, mean, variance, origin)

    # ---- scoring and drawing --------------------------------------------------------------------

    @property
    def _held_out(self) -> "ColumnsHeldOut":
        return ColumnsHeldOut(self.mixture, self.schema, self.recipe.missing, self.columns)

    def sample(self, n: int, seed: int | None = None) -> Tensor:
        """`(n, D)` draws, float64; the same every time for one seed, by default that of the model."""
        check_count("n", n, least=0)
        if seed is not None:
            check_seed("seed", seed)
        return drawn(self.mixture, self.schema, n, self.recipe.seed if seed is None else seed)


def _groups(model: MixtureModel, schema: Schema) -> Iterator[Column]:
    """The groups of columns, of the buffers of each family."""
    for family in schema.families:
        stored = [model.get_buffer(name) for name in family.parameters]
        if not family.sized:
            yield family(*stored)
            continue
        sizes = [group.size for group in schema.groups() if group.family is family]
        for parts in zip(*(torch.split(part, sizes, -1) for part in stored), strict=True):
            yield family(*parts)


def _flat(p: Mixture, families: tuple[type[Column], ...]) -> dict[str, Tensor]:
    """The parameters by the names of their buffers."""
    assert isinstance(p.components, Columns)
    found = {"log_weight": p.log_weight}
    none = p.log_weight.new_zeros(len(p.log_weight), 0)
    for family in families:
        groups = [each.tensors() for each in p.components.groups if isinstance(each, family)]
        parts = zip(*groups, strict=True) if groups else [()] * len(family.parameters)
        found |= {
            name: torch.cat([none, *part], -1)
            for name, part in zip(family.parameters, parts, strict=True)
        }
    return found


class ColumnsHeldOut(NamedTuple):
    """A mixture `(K,)` that was fitted to points with these `columns`."""

    mixture: Mixture
    schema: Schema
    missing: bool
    columns: tuple[str, ...] | None

    def points(self, x: Any, before: int = 0) -> Tensor:
        """`x` as an ordered tensor `(N, D)`; `before` it came so many other rows."""
        names = column_names(x)
        check_columns(names, self.columns)
        x = as_tensor("x", x, self.missing).to(self.mixture.log_weight.device)
        dim = len(self.schema.order)
        if x.dim() != 2 or x.shape[1] != dim:
            raise InputError(
                f"x has the shape {tuple(x.shape)}: expected (N, {dim}), the columns this"
                " MixtureModel was fitted to"
            )
        refuse_infinite(x, before, self.missing, names)
        x = self.schema.ordered(x)
        self.schema.check(x, before, names)
        return x

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, k), `(N, D)` to `(N, K)`."""
        return self._joint_of()(x, self.mixture)

    def log_prob(self, x: Tensor, before: int = 0) -> Tensor:
        """log p(x), `(N, D)` to `(N,)`."""
        return mixture.log_prob(x, self.mixture, self._joint_of())

    def _joint_of(self) -> Callable[[Tensor, Mixture], Tensor]:
        """The way to compute log p(x, k): far components need deviations."""
        assert isinstance(self.mixture.components, Columns)
        origin = self.mixture.components.location.mean(0)
        about = mixture.shift(self.mixture, -origin)
        return local.log_joint if local.needed(about, coefficients(about)) else mixture.log_joint

    def total(self, x: Any) -> tuple[float, int]:
        """The sum of log p(x) over points of any kind, and their number."""
        return total(self, x, self.missing, self.columns)

    def responsibilities(self, r: Any, joint: Tensor) -> Tensor:
        return check_responsibilities(r, joint)


def drawn(p: Mixture, schema: Schema, count: int, key: int) -> Tensor:
    """`(count, D)` draws of a mixture of columns, by inverting each column's distribution function."""
    assert isinstance(p.components, Columns)
    index = torch.arange(count, device=p.log_weight.device)
    u = random.uniform(random.fold(key, "component"), index, (), torch.float64)
    component = chosen(p.log_weight.expand(count, -1), u)
    parts = [
        group.draw(component, random.fold(key, f"{group.name} {number}"), index)
        for number, group in enumerate(p.components.groups)
    ]
    return schema.unordered(torch.cat(parts, 1))
