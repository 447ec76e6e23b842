"""A Bayesian mixture of Gaussians fitted to points by variational Bayes, as a recipe says."""

import logging
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_number
from jensen.base.memory import freed_kept
from jensen.base.replay import Replayed
from jensen.base.tree import tree_map
from jensen.em.fit import Fit, Options, Step, fit_em
from jensen.em.local import Local, moments
from jensen.em.precision import exact_products
from jensen.em.start import Sample
from jensen.em.steps import m_step
from jensen.em.stream import Statistics, coefficients
from jensen.em.variational import Belief, Shares, Sticks, expected
from jensen.family import cholesky
from jensen.family.believed import DiagonalBelief, FullBelief, SphericalBelief, TiedBelief
from jensen.family.mixture import Mixture, reordered, shift
from jensen.family.moments import Moments
from jensen.model.arrays import as_tensor
from jensen.model.mixture_fit import Expect, check_columns, order_of, sample_of, start_of
from jensen.model.points import WIDEST, Points, Survey, fingerprint
from jensen.model.recipe import Recipe

logger = logging.getLogger("jensen")

_ROUGH = 1e-5

_MOST = 1e10
"""The points that a prior may be worth: the elbo errs by 1e-4 nats beside more, and soon by all of it."""


class PriorAsked(NamedTuple):
    """The prior's arguments of a `BayesianGMM`, as they were given."""

    concentration: Any
    mean: Any
    mean_count: Any
    df: Any
    scale: Any
    weights: str

    def check(self) -> None:
        """Refuse numbers that no prior has."""
        for name in ("concentration", "mean_count"):
            value = getattr(self, name)
            check_number(name, value)
            if not value > 0:
                raise InputError(f"{name} is {value!r}: expected a number above 0")
        if self.df is not None:
            check_number("df", self.df, low=0)
        for name in ("concentration", "mean_count", "df"):
            value = getattr(self, name)
            if value is not None and value > _MOST:
                raise InputError(
                    f"{name} is {value!r}, beside which a point is lost in the rounding of float64:"
                    f" expected at most {_MOST:g}; give less"
                )


class FittedBelief(NamedTuple):
    """The posterior as a mixture of beliefs, the prior, and how it came about."""

    state: Mixture
    prior: Belief
    elbo: float
    history: list[Step]
    converged: bool
    iterations: int
    columns: tuple[str, ...] | None
    data: str
    failure: str | None


@freed_kept()
def fit_belief(
    recipe: Recipe,
    asked: PriorAsked,
    points: Points,
    before: tuple[Mixture, Belief] | None = None,
) -> FittedBelief:
    """Fit to `points`; `before`: the posterior to begin at, and the prior that it was, or is now.

    Raises:
        InputError: points that no mixture can be fitted to, before any work.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    survey = points.survey(generator, recipe.missing)
    data = fingerprint(survey)
    survey = _checked(survey, recipe, asked, points, None if before is None else before[0])
    if points.unit != 1:
        raise InputError(
            f"weights are in units of {points.unit:g}: expected numbers of the order of 1, since a"
            " prior counts points too; divide them by their mean"
        )
    origin = survey.mean.to(survey.dtype)
    offset = origin.double()
    sample = sample_of(survey, offset)
    if before is None:
        prior = prior_of(recipe, asked, survey, points)
        starts = _gaussians(recipe, sample, offset, generator)
        expect = Expect(points, survey, origin, starts[0])
        with exact_products():
            begun = [
                _begun(p, expect(p, coefficients(p), True, 1.0), prior.shifted(-offset), recipe)
                for p in starts
            ]
        start = tree_map(lambda *each: torch.cat(each), *begun)
    else:
        state, prior = before
        start = tree_map(lambda part: part[None], shift(state, -offset))
        expect = Expect(points, survey, origin, expected(start))

    gaussians_of = Replayed("the expected mixture", expected)

    def expected_sums(p: Mixture, coefficient: Tensor, exact: bool) -> Statistics | Local:
        return expect(gaussians_of(p), coefficient, exact, 1.0)

    with exact_products():
        found_fit = fit_em(
            expected_sums,
            start,
            survey.total,
            points=survey.size,
            sigma=survey.var.sqrt(),
            generator=generator,
            options=Options(
                recipe.tolerance,
                recipe.max_iter,
                rough=0.0 if expect.wide else _ROUGH,
                accelerate=False,
                prior=prior.shifted(-offset),
                reseeds=False,
            ),
        )
    if found_fit.failure:
        logger.warning("the fit stopped and keeps its last good parameters: %s", found_fit.failure)
    return _fitted(recipe, found_fit, prior, offset, points)._replace(data=data)


def _fitted(
    recipe: Recipe, found: Fit, prior: Belief, offset: Tensor, points: Points
) -> FittedBelief:
    state = shift(found.mixture, offset)
    one = len(prior.components.mean_count.unique()) == 1 and not isinstance(prior.weights, Sticks)
    if recipe.order is not None and one:
        state = reordered(state, order_of(state, recipe.order))
    history = [
        step._replace(bound=step.log_likelihood + step.log_prior, gap=None)
        for step in found.history
    ]
    return FittedBelief(
        state=state,
        prior=prior,
        elbo=found.objective,
        history=history,
        converged=found.converged,
        iterations=found.iterations,
        columns=points.names,
        data="",
        failure=found.failure,
    )


def _gaussians(
    recipe: Recipe, sample: Sample, origin: Tensor, generator: torch.Generator
) -> list[Mixture]:
    """Starts `(R, K')` of EM, of no more components than there are different points; of several some have
    fewer, since where fewer explain the points k-means leaves none of them empty.
    """
    if not isinstance(recipe.init, str):
        return [start_of(recipe, recipe.init, sample, origin, generator)]
    most = min(recipe.components, len(torch.unique(sample.x[:4096], dim=0)))
    fewer = min(recipe.restarts // 2, most - 1)
    sizes = {1 + place * (most - 1) // fewer for place in range(fewer)}
    asked = [
        (recipe.init, most, recipe.restarts - len(sizes)),
        *((recipe.init, k, 1) for k in sorted(sizes)),
    ]
    if recipe.init == "kmeans++" and asked[0][2] > 1:
        wide = asked[0][2] // 2
        asked = [("kmeans++", most, asked[0][2] - wide), ("random", most, wide), *asked[1:]]
    return [
        start_of(recipe._replace(components=k, restarts=some), init, sample, origin, generator)
        for init, k, some in asked
    ]


def _begun(gaussians: Mixture, found: Statistics | Local, prior: Belief, recipe: Recipe) -> Mixture:
    """The first posteriors `(R, K)`, from the E-step of EM; components that no start has are without
    points, and the heaviest come first.
    """
    m = moments(gaussians, found)
    order = m.total.argsort(-1, descending=True)
    lead = len(order)
    count = recipe.components
    more = count - order.shape[1]

    def each(part: Tensor, own: bool = True) -> Tensor:
        if not own:
            return part
        place = order.reshape(*order.shape, *[1] * (part.dim() - 2)).expand(part.shape)
        part = part.gather(1, place)
        return torch.cat([part, part.new_zeros(lead, more, *part.shape[2:])], 1)

    shared = isinstance(prior.components, TiedBelief)
    origin = m.origin.expand(lead, *m.first.shape[1:]) if m.origin.shape[-2] > 1 else m.origin
    origin = each(origin) if m.origin.shape[-2] > 1 else origin
    whole = Moments(origin, each(m.total), each(m.first), each(m.second, own=not shared))
    blank = Mixture(m.total.new_zeros(lead, count), prior.components)
    return m_step(blank, whole, prior)


def _checked(
    survey: Survey, recipe: Recipe, asked: PriorAsked, points: Points, before: Mixture | None
) -> Survey:
    """The survey of points that can be fitted to. Where the prior is given, or is the belief of points
    `before`, one is enough: columns that do not vary have the width of what is believed.

    Raises:
        InputError: they cannot, or have other columns than those before.
    """
    given = asked.mean is not None and asked.scale is not None
    if before is None and not given:
        check_columns(survey, points.names, ", or both mean and scale of the prior")
        return survey
    if not survey.size:
        raise InputError("x has 0 points: expected at least one")
    if before is not None:
        dim = before.components.mean.shape[-1]
        if len(survey.mean) != dim:
            raise InputError(
                f"x has {len(survey.mean)} columns: expected {dim}, those of the points before"
            )
        belief = before.components
    else:
        belief = prior_of(recipe, asked, survey, points).components
    blank = Mixture(belief.mean.new_zeros(len(belief.mean)), belief)
    believed: Any = expected(blank).components
    width = believed.marginals().log_var.exp().mean(-2).to(survey.var)
    check_columns(survey._replace(constant=torch.zeros_like(survey.constant)), points.names)
    none = torch.zeros_like(survey.constant)
    return survey._replace(var=torch.where(survey.constant, width, survey.var), constant=none)


def prior_of(recipe: Recipe, asked: PriorAsked, survey: Survey, points: Points) -> Belief:
    """The prior, in the places of the data.

    Raises:
        InputError: parts that do not fit the data, or are outside of their domain.
    """
    dim = len(survey.mean)
    count = recipe.components
    matrix = recipe.covariance in ("full", "tied")
    df = float(dim if asked.df is None else asked.df)
    least = dim - 1 if matrix else 0
    if not df > least:
        raise InputError(
            f"df is {df:g} and x has {dim} columns: expected more than {least} degrees of freedom"
            f" for covariance={recipe.covariance}"
        )
    mean = survey.mean
    if asked.mean is not None:
        mean = as_tensor("mean", asked.mean).detach().to(mean)
        if mean.shape != (dim,):
            raise InputError(
                f"mean has the shape {tuple(mean.shape)}: expected ({dim},), a number for each column"
            )
        if not bool(mean.isfinite().all()):
            raise InputError(
                "mean holds NaN or an infinite number: expected finite ones; None is the data's"
            )
        farthest = float((mean - survey.mean).abs().amax())
        if farthest > WIDEST:
            raise InputError(
                f"mean lies {farthest:g} from that of x: expected at most {WIDEST:g}; mend it"
            )
    scale = _scale(recipe, asked, survey, points)
    each = mean.expand(count, dim)
    counts = mean.new_full((count,), float(asked.mean_count))
    components: Any
    if matrix:
        factor = _factor(scale, asked)
        if recipe.covariance == "full":
            own = factor.expand(count, dim, dim)
            components = FullBelief(each, counts, mean.new_full((count,), df), own)
        else:
            components = TiedBelief(each, counts, mean.new_tensor(df), factor)
    else:
        whole = scale if scale.dim() == 2 else scale.diag()
        _factor(whole, asked)  # of which the diagonal alone is used
        variance = whole.diagonal()
        shape = mean.new_full((count,), 0.5 * df)
        if recipe.covariance == "diag":
            components = DiagonalBelief(each, counts, shape, 0.5 * variance.expand(count, dim))
        else:
            components = SphericalBelief(each, counts, shape, 0.5 * variance.mean().expand(count))
    value = float(asked.concentration)
    weights: Any
    if asked.weights == "stick":
        weights = Sticks(mean.new_ones(count - 1), mean.new_full((count - 1,), value))
    else:
        weights = Shares(mean.new_full((count,), value))
    return Belief(weights, tree_map(lambda part: part.contiguous(), components))


def _scale(recipe: Recipe, asked: PriorAsked, survey: Survey, points: Points) -> Tensor:
    """The inverse scale matrix `(D, D)`, or its diagonal `(D,)`."""
    dim = len(survey.mean)
    if asked.scale is not None:
        scale = as_tensor("scale", asked.scale).detach().to(survey.mean)
        if scale.shape not in ((dim, dim), (dim,)):
            raise InputError(
                f"scale has the shape {tuple(scale.shape)}: expected ({dim}, {dim}) or ({dim},), a"
                " covariance or its diagonal"
            )
        if not bool(scale.isfinite().all()):
            raise InputError(
                "scale holds NaN or an infinite number: expected finite ones; None is the data's"
                " covariance"
            )
        return scale.diag() if scale.dim() == 1 else scale
    # with N - 1, as scikit-learn has it
    unbiased = survey.total / max(survey.total - 1, 1e-300)
    if recipe.covariance in ("diag", "spherical"):
        return survey.var * unbiased
    found = survey.mean.new_zeros(dim, dim)
    for part, weight in points.chunks(1 << 14):
        x = part.double() - survey.mean
        x = torch.where(x.isnan(), 0.0, x)
        found += (x if weight is None else x * weight.double().unsqueeze(1)).mT @ x
    # what is missing is at the mean there, and the variances are those of what is not
    ratio = (survey.var / found.diagonal().clamp(min=1e-300)).sqrt()
    return unbiased * found * ratio * ratio.unsqueeze(1)


def _factor(scale: Tensor, asked: PriorAsked) -> Tensor:
    if bool((scale - scale.mT).abs().max() > 1e-9 * scale.abs().max()):
        raise InputError(
            "scale is not symmetric: expected a covariance matrix; give (scale + scale.mT) / 2"
        )
    try:
        return cholesky.factor(scale)
    except torch.linalg.LinAlgError:
        least = float(torch.linalg.eigvalsh(scale)[0])
        found = f"scale has the eigenvalue {least:.3g}: expected a positive definite matrix"
        if asked.scale is None:
            found = (
                f"the covariance of x has the eigenvalue {least:.3g}, and it is the scale where none"
                " is given: expected a positive definite matrix; remove columns that others"
                " determine, or give a scale"
            )
        else:
            found += "; give a covariance, such as that of x"
        raise InputError(found) from None
