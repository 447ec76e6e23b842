"""A mixture of columns of any families fitted to points, as a recipe says."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from jensen.base.errors import InputError
from jensen.base.memory import freed_kept
from jensen.base.replay import Replayed
from jensen.base.tree import tree_map
from jensen.em import local, precision
from jensen.em.fit import Options, fit_em
from jensen.em.local import Local
from jensen.em.precision import Precision, exact_products
from jensen.em.search import later
from jensen.em.start import CANDIDATES, cells, centres
from jensen.em.steps import m_step
from jensen.em.stream import Chunks, Statistics, Stream
from jensen.family.columns import Columns
from jensen.family.floor import Rounding
from jensen.family.mixture import Mixture, log_prob, reordered, shift
from jensen.family.moments import PseudoCounts, like
from jensen.model.arrays import as_tensor
from jensen.model.mixture_fit import Fitted, order_of
from jensen.model.points import Points, Survey, column_said, fingerprint
from jensen.model.recipe import Recipe
from jensen.model.schema import Families, Schema

logger = logging.getLogger("jensen")

_ROUGH = 1e-5
"""Nats per example: a step that gains less is the last one whose products are float32."""

_START = PseudoCounts(weight=1.0, covariance=2.0, values=1.0)
"""For the moments of a cell, which may hold one point, or only ones."""


class Asked(NamedTuple):
    """The arguments of a `MixtureModel` beside the recipe."""

    recipe: Recipe
    families: Families
    sizes: Any
    own: Sequence[Any] = ()


@freed_kept()
def fit_columns(
    asked: Asked, points: Points, before: Mixture | None = None
) -> tuple[Fitted, Schema]:
    """Fit to `points`; a warm start goes on from the mixture `before`.

    Raises:
        InputError: points that no mixture can be fitted to, before any work.
    """
    recipe = asked.recipe
    generator = torch.Generator().manual_seed(recipe.seed)
    survey = points.survey(generator, recipe.missing)
    schema = sized(Schema.of(asked.families, len(survey.mean), asked.own), asked.sizes, points)
    _check(recipe, survey, schema, points.names)
    mean = schema.ordered(survey.mean)
    variance = schema.ordered(survey.var)
    origin = origin_of(schema, mean).to(survey.dtype)
    prior = pseudo_counts(recipe, mean, variance, origin)
    prior = prior._replace(
        weight=prior.weight / points.unit,
        covariance=prior.covariance / points.unit,
        values=prior.values / points.unit,
    )

    def chunks(size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        for x, w in points.chunks(size):
            yield schema.ordered(x), w

    kept = schema.ordered(survey.kept) - origin.double()
    init = before if recipe.warm_start and before is not None else recipe.init
    given = _Given(kept, survey.kept_weights, mean - origin, variance)
    if isinstance(init, str):
        start = _started(recipe, schema, given, generator)
    else:
        start = shift(_init(recipe, schema, init, given, origin.double()), -origin.double())
    wide = survey.dtype == torch.float64 or survey.extreme
    expect = _Expect(chunks, survey.size, origin, schema, wide)
    found = None
    with exact_products():
        for beta in recipe.betas:
            options = Options(
                recipe.tolerance,
                recipe.max_iter,
                rough=0.0 if wide else _ROUGH,
                accelerate=recipe.accelerate,
                beta=beta,
                prior=prior,
                reseeds=False,
            )
            last = fit_em(
                partial(expect, beta=beta),
                start,
                survey.total,
                points=survey.size,
                sigma=variance.sqrt().where(variance > 0, 1.0),
                generator=generator,
                options=options,
            )
            if last.failure:
                logger.warning(
                    "the fit stopped and keeps its last good parameters: %s", last.failure
                )
            if found is not None:
                last = last._replace(
                    history=found.history + last.history,
                    reseeded=found.reseeded + later(last.reseeded, found.iterations),
                    iterations=found.iterations + last.iterations,
                )
            found = last
            start = tree_map(lambda part: part[None], found.mixture)
    assert found is not None
    p = shift(found.mixture, origin.double())
    p = reordered(p, order_of(p, recipe.order))
    value = found.log_likelihood * points.unit
    ended = (
        points.names,
        found.converged,
        found.iterations,
        value,
        found.failure,
        fingerprint(survey),
    )
    return Fitted(p, found.history, [], [], *ended), schema


@final
class _Expect:
    """The E-step, by the kind of sums that the continuous columns of the mixture need.

    wide: products are float64 throughout.
    """

    def __init__(
        self, chunks: Chunks, size: int, origin: Tensor, schema: Schema, wide: bool
    ) -> None:
        self._chunks = chunks
        self._origin = origin
        self._stream = Stream(chunks, size, origin)
        self._wide = wide
        self._continuous = bool(schema.continuous.any())
        self._precision = Precision()
        self._figures = Replayed("the precision of the E-step", _figures)

    def __call__(
        self, p: Mixture, coefficient: Tensor, exact: bool, beta: float
    ) -> Statistics | Local:
        dtype = torch.float64 if self._wide or exact else torch.float32
        if not self._continuous:
            return self._stream(p, dtype, beta, coefficient)
        least, *of_precision = self._figures(p, coefficient).tolist()
        if local.lossy(least):
            return local.expect(self._chunks, self._origin, p, beta)
        if dtype == torch.float32:
            dtype = self._precision(p, exact, *of_precision)
        return self._stream(p, dtype, beta, coefficient)


def _figures(p: Mixture, coefficient: Tensor) -> Tensor:
    """Those of `local`, and the three of `precision`."""
    return torch.cat([local.figures(p, coefficient), precision.figures(p)])


class _Given(NamedTuple):
    """Ordered points about the origin `(M, D)`, their weights, and the data's mean and variance."""

    x: Tensor
    weights: Tensor
    mean: Tensor
    var: Tensor


def origin_of(schema: Schema, mean: Tensor) -> Tensor:
    """The point that sums are about: the means of continuous columns in order, 0 of others, `(D,)`."""
    return torch.where(schema.continuous.to(mean.device), mean, 0.0)


def pseudo_counts(recipe: Recipe, mean: Tensor, variance: Tensor, origin: Tensor) -> PseudoCounts:
    """The prior, or the default floor, for ordered columns with this mean and variance, `(D,)`."""
    prior = PseudoCounts() if recipe.prior is None else recipe.prior
    floor = prior.floor
    if recipe.prior is None:
        floor = Rounding.of(origin, variance, shared=True)
    elif isinstance(floor, Tensor) or (isinstance(floor, float | int) and floor > 0):
        floor = like(variance, floor) * variance
    return prior._replace(
        variance=like(variance, prior.variance) * variance, floor=floor, mean=mean
    )


_CATEGORIES = 100_000
"""A column with more is hardly meant; their probabilities, of each component, fill memory."""


def sized(schema: Schema, sizes: Any, points: Points) -> Schema:
    """The schema with its categories, after a pass over all values.

    Raises:
        InputError: a value that its family has not.
    """
    if sizes is not None or not schema.sized:
        schema = schema.with_sizes(sizes, torch.zeros(0))
    places = [group.place.start for group in schema.groups() if group.family.sized]
    most = torch.zeros(len(places), dtype=torch.float64)
    before = 0
    for x, _ in points.chunks(1 << 14):
        x = schema.ordered(x)
        schema.check(x, before, points.names)
        before += len(x)
        if places and len(x):
            most = torch.maximum(most, x[:, places].nan_to_num(0.0).amax(0).cpu().double())
    if schema.sizes:
        return schema
    many = (most >= _CATEGORIES).nonzero().flatten().tolist()
    if many:
        column = schema.order[places[many[0]]]
        raise InputError(
            f"{column_said(column, points.names)} of x holds the code {most[many[0]]:g}, which would be"
            f" the last of as many categories: expected fewer than {_CATEGORIES:,}; number those that"
            " there are, or set sizes"
        )
    return schema.with_sizes(None, most + 1)


def blank(count: int, schema: Schema, gaps: bool, like: Tensor) -> Columns:
    """Components `(K, ...)` that are all alike."""
    like = like.new_zeros(0, dtype=torch.float64)
    groups = [
        family.alike((count, size or place.stop - place.start), like)
        for family, place, size in schema.groups()
    ]
    return Columns(tuple(groups), like.new_zeros(count, int(gaps)))


def _check(recipe: Recipe, survey: Survey, schema: Schema, names: tuple[str, ...] | None) -> None:
    if survey.size < recipe.components:
        raise InputError(
            f"x has {survey.size} points: expected at least {recipe.components}, one for each"
            " component; fit fewer components"
        )
    if unseen := survey.unseen.nonzero().flatten().tolist():
        raise InputError(
            f"{column_said(unseen[0], names)} of x holds nothing but NaN: expected numbers; remove"
            " it"
        )
    for family, place, _ in schema.groups():
        columns = schema.order[place] if family.continuous else ()
        if constant := [column for column in columns if bool(survey.constant[column])]:
            raise InputError(
                f"{column_said(constant[0], names)} of x is {survey.mean[constant[0]].item():g} in"
                f" every point and its family is {family.name}: expected one that varies; remove it"
            )


def _started(recipe: Recipe, schema: Schema, given: _Given, generator: torch.Generator) -> Mixture:
    """Starts `(R, K)`: each the most probable of several k-means, or random responsibilities."""
    prior = _START._replace(variance=given.var, mean=given.mean)
    one = blank(recipe.components, schema, recipe.missing, given.x)
    whole = Mixture(given.x.new_zeros(recipe.components), one)
    rows = []
    features = _features(schema, given)
    for _ in range(recipe.restarts):
        if recipe.init == "random":
            shape = (1, len(given.x), recipe.components)
            r = torch.rand(shape, generator=generator, dtype=torch.float64).log().neg().to(given.x)
            r = r / r.sum(-1, keepdim=True)
        else:
            centre = centres(features, given.weights, recipe.components, CANDIDATES, generator)
            r = cells(features, centre)
        r = r * given.weights.unsqueeze(-1)
        lead = tree_map(lambda part: part.expand(len(r), *part.shape), whole)  # noqa: B023
        p = m_step(lead, lead.components.moments(given.x, r), prior)
        best = (log_prob(given.x, p) @ given.weights).argmax()
        rows.append(tree_map(lambda part: part[best][None], p))  # noqa: B023
    return tree_map(lambda *parts: torch.cat(parts), *rows)


def _features(schema: Schema, given: _Given) -> Tensor:
    """Points `(M, F)` of which one unit is about a deviation in each column, for k-means; the mean
    where a value is missing.
    """
    x = torch.where(given.x.isnan(), given.mean, given.x)
    parts = [
        family.scaled(x[:, place], given.mean[place], given.var[place], size)
        for family, place, size in schema.groups()
    ]
    return torch.cat(parts, 1)


def _init(recipe: Recipe, schema: Schema, init: object, given: _Given, origin: Tensor) -> Mixture:
    """The start that was given, `(1, K)`, in the data's own places."""
    if isinstance(init, Mixture):
        p = init
        expected = blank(recipe.components, schema, recipe.missing, given.x)
        fits = isinstance(p.components, Columns)
        if not fits or _shapes(p.components) != _shapes(expected):
            raise InputError(
                f"init is a mixture of {type(p.components).__name__} of other shapes: expected"
                f" {recipe.components} components of the families and sizes of x"
            )
        return tree_map(lambda part: part.detach().double()[None], p)
    if schema.sized:
        raise InputError(
            f"init is a {type(init).__name__} and x has {schema.sized_said} columns, of which means"
            " say nothing: expected kmeans++, random or a Mixture"
        )
    if isinstance(init, Mapping):
        raise InputError("init is a mapping: expected kmeans++, random, means or a Mixture")
    mean = schema.ordered(as_tensor("init", init).detach().to(origin))
    if mean.shape != (recipe.components, len(schema.order)) or not bool(mean.isfinite().all()):
        raise InputError(
            f"init has the shape {tuple(mean.shape)}: expected ({recipe.components},"
            f" {len(schema.order)}) finite means"
        )
    groups = [family.at(mean[:, place], given.var[place]) for family, place, _ in schema.groups()]
    start = Columns(tuple(groups), mean.new_zeros(len(mean), int(recipe.missing)))
    equal = mean.new_full(mean.shape[:1], -math.log(len(mean)))
    return tree_map(lambda part: part[None], Mixture(equal, start))


def _shapes(components: Any) -> list[tuple[int, ...]]:
    return [tuple(part.shape) for part in tree_leaves(components)]
