"""A mixture fitted to points, as a recipe says."""

import logging
import math
from functools import partial
from typing import NamedTuple, final

import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.base.memory import freed_kept
from jensen.base.replay import Replayed
from jensen.base.tree import tree_map
from jensen.em import local, missing, noise, precision
from jensen.em.collapse import on_floor
from jensen.em.fit import Fit, Options, Step, fit_em
from jensen.em.local import Local
from jensen.em.precision import Precision, exact_products
from jensen.em.reseed import Reseed
from jensen.em.search import later, search
from jensen.em.start import Sample, kmeans, scattered, variance_of_cells
from jensen.em.stream import Statistics, Stream
from jensen.family.family import gaussians
from jensen.family.full import FullGaussian, full
from jensen.family.mixture import Mixture, reordered, shift
from jensen.model import fate
from jensen.model.arrays import as_tensor
from jensen.model.points import WIDEST, Points, Survey, column_said, fingerprint
from jensen.model.recipe import Recipe

logger = logging.getLogger("jensen")

_ROUGH = 1e-5
"""Nats per example: a step that gains less is the last rough one."""


class Fitted(NamedTuple):
    """The mixture `(K,)` and how it came about: see the attributes of `GMM`."""

    mixture: Mixture
    history: list[Step]
    reseeded: list[Reseed]
    collapsed: list[int]
    columns: tuple[str, ...] | None
    converged: bool
    iterations: int
    log_likelihood: float
    failure: str | None
    data: str


@freed_kept()
def fit_mixture(
    recipe: Recipe, points: Points, before: Mixture | None = None, known: Tensor | None = None
) -> Fitted:
    """Fit to `points`; a warm start goes on from the mixture `before`, and `known` is the noise of
    each point, `(N, D, D)` float64.

    Raises:
        InputError: points that no mixture can be fitted to, before any work.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    survey = points.survey(generator, recipe.missing)
    _check(recipe, survey, points.names)
    # Rounded to the data's precision: then subtracting it adds no error of its own.
    origin = survey.mean.to(survey.dtype)
    sample = sample_of(survey, origin.double())
    init = before if recipe.warm_start and before is not None else recipe.init
    start = start_of(recipe, init, sample, origin.double(), generator)
    if isinstance(start.components, FullGaussian) and start.components.mean.shape[-1] == 1:
        # In one dimension the same model, of fewer small operations: they are what the fit of a few
        # points takes.
        start = start._replace(components=gaussians(start.components).marginals())
    prior = recipe.pseudo_counts(survey.var, origin)
    prior = prior._replace(
        weight=prior.weight / points.unit, covariance=prior.covariance / points.unit
    )
    expect = Expect(points, survey, origin, start, known)
    options = Options(
        recipe.tolerance,
        recipe.max_iter,
        rough=0.0 if expect.wide else _ROUGH,
        accelerate=recipe.accelerate,
        prior=prior,
    )
    with exact_products():
        found = _annealed(recipe, expect, start, options, survey, sample, generator)
    fitted = _about_zero(found, recipe, origin.double(), points)
    collapsed = on_floor(found.mixture, prior.floor)
    fitted = fitted._replace(data=fingerprint(survey, known))
    return _in_order(recipe, fitted, collapsed, survey.size)


@final
class Expect:
    """The E-step, by the kind of sums that the points and the mixture need.

    wide: products are float64 throughout.
    """

    def __init__(
        self,
        points: Points,
        survey: Survey,
        origin: Tensor,
        start: Mixture,
        known: Tensor | None = None,
    ) -> None:
        self.known = known
        self.chunks = points.chunks
        self.origin = origin
        self.missing = survey.missing
        self.stream = Stream(points.chunks, survey.size, origin)
        few = survey.size <= self.stream.chunk(start, torch.float64)  # float32 would gain nothing
        self.wide = survey.dtype == torch.float64 or few or survey.missing or survey.extreme
        self.wide = self.wide or known is not None
        self.precision = Precision()
        every = local.figures if self.wide else _all_figures
        self._figures = Replayed("the precision of the E-step", every)

    def __call__(
        self, p: Mixture, coefficient: Tensor, exact: bool, beta: float
    ) -> Statistics | Local:
        if self.known is not None:
            return noise.local(self.chunks, self.known, self.origin, p, beta)
        if self.missing:
            return missing.local(self.chunks, self.origin, p, beta)
        figures = self._figures(p, coefficient).tolist()
        of_precision = [] if self.wide else figures[-3:]
        if local.lossy(*figures[: len(figures) - len(of_precision)]):
            return local.expect(self.chunks, self.origin, p, beta)
        dtype = torch.float64 if self.wide else self.precision(p, exact, *of_precision)
        return self.stream(p, dtype, beta, coefficient)


def _all_figures(p: Mixture, coefficient: Tensor) -> Tensor:
    """Those of `local`, and the three of `precision`."""
    return torch.cat([local.figures(p, coefficient), precision.figures(p)])


def _annealed(
    recipe: Recipe,
    expect: Expect,
    start: Mixture,
    options: Options,
    survey: Survey,
    sample: Sample,
    generator: torch.Generator,
) -> Fit:
    """Fit at one temperature after another; at the last with a search for higher maxima."""

    def fit(p: Mixture, options: Options) -> Fit:
        return fit_em(
            partial(expect, beta=options.beta),
            p,
            survey.total,
            points=survey.size,
            sigma=survey.var.sqrt(),
            generator=generator,
            options=options,
        )

    whole: Fit | None = None
    searches = len(start.log_weight) > 1 and recipe.max_iter > 0 and recipe.tolerance > 0
    for place, beta in enumerate(recipe.betas):
        at = options._replace(beta=beta)
        if searches and place == len(recipe.betas) - 1:
            found = search(
                fit,
                start,
                at,
                sample=sample,
                swaps=recipe.restarts,
                total=survey.total,
                generator=generator,
            )
        else:
            found = fit(start, at)
        if found.failure:
            logger.warning("the fit stopped and keeps its last good parameters: %s", found.failure)
        whole = found if whole is None else _after(whole, found)
        start = tree_map(lambda part: part[None], found.mixture)
    assert whole is not None
    return whole


def _after(first: Fit, second: Fit) -> Fit:
    """Both as one, of which the second went on where the first had ended."""
    return second._replace(
        history=first.history + second.history,
        reseeded=first.reseeded + later(second.reseeded, first.iterations),
        iterations=first.iterations + second.iterations,
    )


def _about_zero(found: Fit, recipe: Recipe, origin: Tensor, points: Points) -> Fitted:
    """The fit in the units and places of the points as they came."""
    p = shift(found.mixture, origin)
    if recipe.structure is FullGaussian:
        p = p._replace(components=full(p.components))
    return Fitted(
        mixture=p,
        history=found.history,
        reseeded=found.reseeded,
        collapsed=[],
        columns=points.names,
        converged=found.converged,
        iterations=found.iterations,
        log_likelihood=found.log_likelihood * points.unit,
        failure=found.failure,
        data="",
    )


def _in_order(recipe: Recipe, fitted: Fitted, collapsed: Tensor, size: int) -> Fitted:
    """The fit with its components in the order asked for, and a word of what became of them."""
    order = order_of(fitted.mixture, recipe.order)
    place = order.argsort().tolist()
    fitted = fitted._replace(
        mixture=reordered(fitted.mixture, order),
        collapsed=collapsed[order].nonzero().flatten().tolist(),
        reseeded=[event._replace(component=place[event.component]) for event in fitted.reseeded],
    )
    fate.tell(fitted.mixture, fitted.reseeded, fitted.collapsed, size)
    return fitted


def order_of(p: Mixture, order: str | None) -> Tensor:
    """The components in the order asked for, `(K,)` int64."""
    if order == "weight":
        return p.log_weight.argsort(descending=True, stable=True)
    rows = p.components.mean.tolist()
    places = (
        sorted(range(len(rows)), key=rows.__getitem__)
        if order == "mean"
        else list(range(len(rows)))
    )
    return torch.tensor(places, device=p.log_weight.device)


# ---- before the first step ----------------------------------------------------------------------


def _check(recipe: Recipe, survey: Survey, names: tuple[str, ...] | None) -> None:
    size = len(survey.kept)
    if survey.size < recipe.components or (size < recipe.components and size < survey.size):
        raise InputError(
            f"x has {min(survey.size, size)} points: expected at least {recipe.components}, one"
            " for each component; fit fewer, or jensen.BayesianGMM, which may have more"
        )
    check_columns(survey, names)


def check_columns(survey: Survey, names: tuple[str, ...] | None, or_else: str = "") -> None:
    """Refuse columns of nothing but NaN, and of one value; `or_else` ends the sentence on equal points."""
    if not survey.size:
        raise InputError("x has 0 points: expected at least two different ones")
    unseen = survey.unseen.nonzero().flatten().tolist()
    if unseen:
        raise InputError(
            f"{column_said(unseen[0], names)} of x holds nothing but NaN: expected numbers; remove"
            " it"
        )
    constant = survey.constant.nonzero().flatten().tolist()
    if len(constant) == len(survey.constant):
        some = f"all {survey.size} points of x are the same" if survey.size > 1 else "x has 1 point"
        raise InputError(f"{some}: expected at least two different ones{or_else}")
    if constant:
        value = survey.mean[constant[0]].item()
        raise InputError(
            f"{column_said(constant[0], names)} of x is {value:g} in every point: expected one"
            " that varies; remove it"
        )


def sample_of(survey: Survey, origin: Tensor) -> Sample:
    """The points that were kept, about the origin, with the mean where a value is missing."""
    mean = survey.mean - origin
    kept = survey.kept - origin
    return Sample(torch.where(kept.isnan(), mean, kept), survey.kept_weights, mean, survey.var)


def start_of(
    recipe: Recipe, init: object, sample: Sample, origin: Tensor, generator: torch.Generator
) -> Mixture:
    """Starts `(R, K)` about the origin."""
    if isinstance(init, str):
        make = kmeans if init == "kmeans++" else scattered
        return make(recipe.structure, sample, recipe.components, recipe.restarts, generator)
    if not isinstance(init, Mixture):
        init = _at_means(recipe, as_tensor("init", init).detach().to(origin), sample, origin)
    _check_init(recipe, init.components.mean, type(init.components), len(sample.mean))
    init = tree_map(lambda part: part.detach().to(origin)[None], init)
    farthest = float((init.components.mean - sample.mean - origin).abs().amax())
    if not farthest <= WIDEST:
        raise InputError(
            f"init has a mean that lies {farthest:g} from that of x: expected at most {WIDEST:g};"
            " mend it"
        )
    return shift(init, -origin)


def _at_means(recipe: Recipe, mean: Tensor, sample: Sample, origin: Tensor) -> Mixture:
    """Equal components at `mean` `(K, D)`."""
    _check_init(recipe, mean, recipe.structure, len(sample.mean))
    if not bool(mean.isfinite().all()):
        raise InputError("init holds NaN or an infinite number: expected finite means")
    if len(mean.unique(dim=0)) < len(mean):
        raise InputError(
            "init holds the same mean twice: expected different ones, since alike components stay"
            " alike"
        )
    variance = variance_of_cells(sample, (mean - origin)[None])
    return Mixture(
        mean.new_full(mean.shape[:1], -math.log(len(mean))), recipe.structure.at(mean, variance)
    )


def _check_init(recipe: Recipe, mean: Tensor, structure: type, dim: int) -> None:
    if mean.shape != (recipe.components, dim) or structure is not recipe.structure:
        raise InputError(
            f"init has means of shape {tuple(mean.shape)} and {structure.__name__} covariances:"
            f" expected {(recipe.components, dim)} and {recipe.structure.__name__}"
        )
