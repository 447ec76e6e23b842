"""A mixture fitted to each of many sets of points."""

import logging
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.base.memory import freed_kept
from jensen.base.tree import tree_map
from jensen.em import many, many_start
from jensen.em.fit import Step
from jensen.em.many import Ends
from jensen.em.reseed import Reseed
from jensen.em.sets import Sets, features
from jensen.family.full import FullGaussian, full
from jensen.family.mixture import Mixture, reordered
from jensen.model.arrays import as_tensor, is_array
from jensen.model.mixture_fit import Fitted, fit_mixture, order_of
from jensen.model.noise import covariances
from jensen.model.points import NARROWEST, WIDEST, Points
from jensen.model.recipe import Recipe

logger = logging.getLogger("jensen")

_MOST = 8192
"""Points of a set, beyond which it is fitted alone: a start is then drawn from some of them."""

_WORKING_SET = 1 << 22
"""Numbers of the sets that are fitted at a time."""


class FittedMany(NamedTuple):
    """The mixtures `(M, K)` and how they came about: see the attributes of `GMM`, each with a
    leading M.
    """

    mixture: Mixture
    history: Step
    reseeded: list[list[Reseed]]
    collapsed: list[list[int]]
    converged: Tensor
    iterations: Tensor
    log_likelihood: Tensor
    failure: list[str | None]


def is_many(x: Any) -> bool:
    """Tell whether `x` is `(M, N, D)`."""
    return is_array(x) and len(getattr(x, "shape", ())) == 3


class Asked(NamedTuple):
    """More about the points of each set: which are there `(M, N)`, how often each counts `(M, N)`, and the
    errors of their own `(M, N, D)` or `(M, N, D, D)`; None is all, once, and none.
    """

    mask: Any = None
    weights: Any = None
    noise: Any = None


@freed_kept()
def fit_many(recipe: Recipe, x: Any, asked: Asked, device: torch.device) -> FittedMany:
    """Fit to each of the sets `x` `(M, N, D)`.

    Sets with weights or noise, several restarts, and whatever else is out of the ordinary, are fitted
    one after another.

    Raises:
        InputError: a set that no mixture can be fitted to; options that only one fit has.
    """
    points = as_tensor("x", x, recipe.missing).detach()
    points = points if isinstance(x, Tensor) else points.to(device)
    there = _mask(asked.mask, points)
    _check(recipe, points, there)
    more = [_each(name, getattr(asked, name), points) for name in ("weights", "noise")]
    plain = more == [None, None] and recipe.restarts == 1
    summary = _moments(points, there)
    alone = _odd(recipe, points, summary) if plain else torch.ones_like(there[:, 0])
    found: list[Fitted | None] = [None] * len(points)
    for row in alone.nonzero().flatten().tolist():
        own = [None if each is None else each[row][there[row]] for each in more]
        found[row] = _one(recipe, points[row], there[row], row, *own)
    parts = []
    rows = (~alone).nonzero().flatten()
    for part in torch.split(rows, _at_a_time(recipe, points)) if len(rows) else ():
        with torch.inference_mode():
            ends = _batch(recipe, points[part], there[part], summary.of(part))
        for row in part[ends.alone].tolist():
            found[row] = _one(recipe, points[row], there[row], row)
        parts.append((part, ends))
    return _whole(recipe, points, parts, found)


def _check(recipe: Recipe, points: Tensor, there: Tensor) -> None:
    if 0 in points.shape:
        raise InputError(
            f"x has the shape {tuple(points.shape)}: expected (M, N, D), sets by points by"
            " coordinates, none of them 0"
        )
    if recipe.warm_start:
        raise InputError(
            f"warm_start is True and x holds {len(points)} sets: expected warm_start=False; fit one"
            " set at a time for it"
        )
    few = (there.sum(1) < recipe.components).nonzero().flatten().tolist()
    if few:
        raise InputError(
            f"set {few[0]} of x has {int(there[few[0]].sum())} points: expected at least"
            f" {recipe.components}, one for each component; leave it out"
        )


def _mask(mask: Any, points: Tensor) -> Tensor:
    if mask is None:
        return torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
    given = as_tensor("mask", mask).to(points.device)
    if given.shape != points.shape[:2]:
        raise InputError(
            f"mask has the shape {tuple(given.shape)}: expected {tuple(points.shape[:2])}, true for"
            " each point that is there"
        )
    return given != 0


def _each(name: str, given: Any, points: Tensor) -> Tensor | None:
    """Numbers that each point has of its own, by the sets."""
    if given is None:
        return None
    found = as_tensor(name, given)
    sizes = (
        [points.shape[:2]]
        if name == "weights"
        else [points.shape, (*points.shape, points.shape[2])]
    )
    if tuple(found.shape) not in {tuple(size) for size in sizes}:
        expected = " or ".join(str(tuple(size)) for size in sizes)
        raise InputError(
            f"{name} has the shape {tuple(found.shape)} and x {tuple(points.shape)}: expected {expected},"
            " sets by points"
        )
    return found


class _Summary(NamedTuple):
    """Mean, variance and reach of each column of each set, `(M, D)` float64."""

    mean: Tensor
    var: Tensor
    reach: Tensor

    def of(self, rows: Tensor) -> "_Summary":
        return _Summary(*(each[rows] for each in self))


def _odd(recipe: Recipe, points: Tensor, summary: _Summary) -> Tensor:
    """The sets that are fitted alone, `(M,)`: those of which anything is out of the ordinary, of
    which a single fit knows more.
    """
    plain = (
        recipe.prior is None
        and recipe.init == "kmeans++"
        and recipe.betas == (1.0,)
        and points.shape[1] <= _MOST
    )
    if not plain:
        return torch.ones(len(points), dtype=torch.bool, device=points.device)
    mean, var, reach = summary
    constant = (var <= (1e-12 * mean).square()).any(1)
    extreme = (reach < max(NARROWEST, 1e-12)).any(1) | (reach > min(WIDEST, 1e12)).any(1)
    return constant | extreme | ~var.isfinite().all(1)


def _moments(points: Tensor, there: Tensor) -> _Summary:
    first = points.take_along_dim(there.byte().argmax(1)[:, None, None], 1).double()
    about = points.mT.contiguous().double() - first.mT  # points last: sums are a fifth of the time
    count = there.double().sum(1, keepdim=True)
    whole = bool(there.all())
    about = about if whole else torch.where(there.unsqueeze(1), about, 0.0)
    move = about.sum(-1) / count
    reach = about.abs().amax(-1)
    centred = about.sub_(move.unsqueeze(-1))
    centred = centred if whole else torch.where(there.unsqueeze(1), centred, 0.0)
    return _Summary(first.squeeze(1) + move, centred.square_().sum(-1) / count, reach)


def _at_a_time(recipe: Recipe, points: Tensor) -> int:
    dim = points.shape[2]
    each = points.shape[1] * (1 + dim + dim * dim + 6 * recipe.components)
    return max(1, _WORKING_SET // each)


def _batch(recipe: Recipe, points: Tensor, there: Tensor, summary: _Summary) -> Ends:
    """The fits to sets without anything out of the ordinary, about zero."""
    sets = _sets(recipe, points, there, summary)
    structure = recipe.structure
    known = features(sets, structure)
    p, few = many_start.start(structure, sets, known, recipe.components)
    if structure is FullGaussian and points.shape[2] == 1:
        p = p._replace(components=full(p.components).marginals())
    ends = many.fit(sets, known, p, recipe.tolerance, recipe.max_iter, recipe.accelerate)
    moved = ends.mixture.components.mean + sets.origin.double().unsqueeze(1)
    components: Any = ends.mixture.components._replace(mean=moved)  # type: ignore[attr-defined]
    if structure is FullGaussian:
        components = full(components)
    mixture = Mixture(ends.mixture.log_weight, components)
    return ends._replace(mixture=mixture, alone=ends.alone | few)


def _sets(recipe: Recipe, points: Tensor, there: Tensor, summary: _Summary) -> Sets:
    """The points about their means, in the order of each set's draws; those that are not there last."""
    mean, var, _ = summary
    origin = mean.to(points.dtype)
    sizes, row = there.sum(1).unique(return_inverse=True)
    known = [
        many_start.draws(size, points.shape[2], recipe.components, recipe.seed)
        for size in sizes.tolist()
    ]
    rest = torch.arange(points.shape[1])
    orders = torch.stack([torch.cat([order, rest[len(order) :]]) for order, _ in known])
    order = _each_its(orders, row)
    whole = bool(there.all())
    if not whole:
        order = (~there).long().argsort(dim=1, stable=True).take_along_dim(order, 1)
    x = points.mT.contiguous().take_along_dim(order.unsqueeze(1), 2).double()
    x = x.sub_(origin.double().unsqueeze(2))
    weight = there.double()
    if not whole:
        weight = weight.take_along_dim(order, 1)
        x = torch.where(weight.unsqueeze(1) > 0, x, 0.0)
    return Sets(
        x=x,
        weight=weight,
        uniform=_each_its(torch.stack([uniform for _, uniform in known]), row),
        mean=mean - origin.double(),
        var=var,
        origin=origin,
    )


def _each_its(several: Tensor, row: Tensor) -> Tensor:
    """Those of `several` that are in `row` `(M,)`, without copies where there is one."""
    several = several.to(row.device)
    return several.expand(len(row), *several.shape[1:]) if len(several) == 1 else several[row]


def _one(
    recipe: Recipe,
    points: Tensor,
    there: Tensor,
    row: int,
    weights: Tensor | None = None,
    noise: Tensor | None = None,
) -> Fitted:
    with torch.inference_mode():
        try:
            own = points[there]
            each = Points(own, weights, missing=recipe.missing)
            return fit_mixture(recipe, each, None, covariances(noise, own, each))
        except InputError as error:
            raise InputError(f"set {row} of x: {error}") from None


def _whole(
    recipe: Recipe,
    points: Tensor,
    parts: list[tuple[Tensor, Ends]],
    alone: list[Fitted | None],
) -> FittedMany:
    """All in their places, components in the order asked for."""
    size = len(points)
    some = next((each.mixture for each in alone if each is not None), None)
    template = tree_map(lambda part: part[0], parts[0][1].mixture) if parts else some
    assert template is not None
    mixture = tree_map(lambda part: part.new_empty(size, *part.shape), template)
    device = mixture.log_weight.device
    longest = [len(each.history) for each in alone if each is not None]
    longest += [ends.history.shape[-1] for _, ends in parts]
    history = torch.full((size, 6, max(longest)), torch.nan, dtype=torch.float64, device=device)
    converged = torch.zeros(size, dtype=torch.bool, device=device)
    iterations = torch.zeros(size, dtype=torch.long, device=device)
    log_likelihood = torch.full((size,), torch.nan, dtype=torch.float64, device=device)
    collapsed: list[list[int]] = [[] for _ in range(size)]
    for rows, ends in parts:
        for kept, now in zip(_leaves(mixture), _leaves(ends.mixture), strict=True):
            kept[rows] = now
        history[rows, :, : ends.history.shape[-1]] = ends.history
        converged[rows], iterations[rows] = ends.converged, ends.iterations
        log_likelihood[rows] = ends.log_likelihood
        for row, component in ends.collapsed.nonzero().tolist():
            collapsed[int(rows[row])].append(component)
    if recipe.order is not None:
        for row in range(size):
            if alone[row] is None:
                _reorder(mixture, collapsed, row, recipe.order)
    for row, own in enumerate(alone):
        if own is None:
            continue
        for kept, now in zip(_leaves(mixture), _leaves(own.mixture), strict=True):
            kept[row] = now
        steps = torch.tensor([[*step] for step in own.history], dtype=torch.float64).reshape(-1, 6)
        history[row] = torch.nan
        history[row, :, : len(own.history)] = steps.T
        converged[row], iterations[row] = own.converged, own.iterations
        log_likelihood[row] = own.log_likelihood
        collapsed[row] = own.collapsed
    _tell(collapsed)
    return FittedMany(
        mixture=mixture,
        history=Step(*history.unbind(1)),  # type: ignore[arg-type]
        reseeded=[[] if own is None else own.reseeded for own in alone],
        collapsed=collapsed,
        converged=converged,
        iterations=iterations,
        log_likelihood=log_likelihood,
        failure=[None if own is None else own.failure for own in alone],
    )


def _reorder(mixture: Mixture, collapsed: list[list[int]], row: int, how: str) -> None:
    one = tree_map(lambda part: part[row], mixture)
    order = order_of(one, how)
    for kept, now in zip(_leaves(mixture), _leaves(reordered(one, order)), strict=True):
        kept[row] = now
    place = order.argsort().tolist()
    collapsed[row] = sorted(place[component] for component in collapsed[row])


def _leaves(p: Mixture) -> list[Tensor]:
    return [p.log_weight, *p.components]


def _tell(collapsed: list[list[int]]) -> None:
    rows = [row for row, each in enumerate(collapsed) if each]
    if rows:
        logger.warning(
            "%d of %d fits have a component on the covariance floor, of copies of a point or of"
            " points in a plane: the first is of set %d",
            len(rows),
            len(collapsed),
            rows[0],
        )
