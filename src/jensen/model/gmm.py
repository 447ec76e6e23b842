"""A Gaussian mixture with parameters: fit it, score with it, draw from it."""

import importlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self, final

import torch
from torch import Tensor, distributions, nn

from jensen.base import random
from jensen.base.errors import InputError, check_choice, check_count, check_flag, check_number, check_seed
from jensen.bound.bound import Bound
from jensen.em import local, missing
from jensen.em import steps as em
from jensen.em.ascent import Ascent, Reseed, Step, ascend
from jensen.em.collapse import on_floor
from jensen.em.local import Local
from jensen.em.start import Sample, kmeans, scattered, swapped, variance_of_cells
from jensen.em.stream import Statistics, Stream, coefficients
from jensen.family import mixture, normal
from jensen.family.components import FLAT, Components, Diagonal, Full, Prior, Spherical, Tied, like, ridge, spread
from jensen.family.floor import Rounding
from jensen.family.mixture import Mixture
from jensen.model.alike import alike
from jensen.model.arrays import as_tensor, column_names
from jensen.model.points import WIDEST, Points, Survey, column_said, refuse_far, refuse_infinite

logger = logging.getLogger("jensen")

STRUCTURES: dict[str, type[Full] | type[Tied] | type[Diagonal] | type[Spherical]] = {
    "full": Full,
    "tied": Tied,
    "diag": Diagonal,
    "spherical": Spherical,
}

_ROUNDING = 1e-3
"""float32's epsilon times the greatest `spread` or `ridge` from which on products are float64: there the log-likelihood
errs by 1e-6."""

_ROUGH_ROUNDING, _ROUGH_MEAN = 0.1, 5e-3
"""The same for rough steps, and for the mean over points: there the log-likelihood errs by 1e-4 at most."""

_ROUGH = 1e-5
"""Nats per example: a step that gains less is the last rough one."""

_HIGHER = 1e-5
"""Nats per example by which another maximum is higher, rather than the same."""

_PATIENCE = 5
"""Rounds of swaps of which none ends higher, before the search is over."""

_LOOSE = 10
"""Times the tolerance, to which the starts of a search are climbed: enough to tell maxima apart."""


@final
class GMM(nn.Module):
    """p(x) = sum_k weight_k N(x; k), fitted by EM. Its float64 parameters are buffers, so `state_dict` holds plain tensors.

    Args:
        components: K.
        covariance: "full", "tied", "diag" or "spherical".
        seed: for starts and draws.
        init: "kmeans++" (the likeliest of five k-means from greedy k-means++ centres), "random" (K of the points, the data's
            variance or, where that is far less, that of the cells about them), `(K, D)` means, or a `Mixture` or fitted
            `GMM` to start from. Components that start alike stay alike.
        restarts: starts that are fitted together, as one batch; one that meets another goes no further. From the best, as many
            swaps of a component are tried at a time, as long as one ends higher; the best is kept.
        tolerance: EM ends when a step gains less than this many nats per example; at 0 only after `max_iter`.
        max_iter: the most M-steps.
        prior: pseudo-counts for a maximum a posteriori fit; `variance` and `floor` in units of each column's variance. By
            default none, with the floor `family.floor.Rounding`: variances that say more than how the numbers were rounded.
        beta: temperatures of deterministic annealing, fitted one after another: `(4, 2, 1)`.
        missing: take NaN for missing values and marginalise them, rather than refuse them.
        accelerate: SQUAREM, which ends at the same kind of maximum in a fraction of the steps.
        warm_start: a later `fit` goes on from the parameters of the last.
        order: "mean" or "weight" sorts the components, by ascending mean (first coordinate first) or descending weight, so that
            labels agree between fits; None leaves them as they came.

    Attributes, after `fit`:
        history: a `Step` for each iteration. reseeded: the components that were started anew. converged, iterations.
        columns: the names of the columns of the frame it was fitted to, or None.
        collapsed: the components that ended on the floor, of copies of a point or of points in a plane.
        log_likelihood: of all points, nats. failure: why a fit could not proceed and kept its last good parameters, or None.
    """

    log_weight: Tensor
    mean: Tensor
    _place: Tensor

    def __init__(
        self,
        components: int,
        covariance: str = "full",
        *,
        seed: int = 0,
        init: Any = "kmeans++",
        restarts: int = 1,
        tolerance: float = 1e-6,
        max_iter: int = 1000,
        prior: Prior | None = None,
        beta: float | Sequence[float] = 1.0,
        missing: bool = False,
        accelerate: bool = True,
        warm_start: bool = False,
        order: str | None = None,
    ) -> None:
        super().__init__()
        check_count("components", components)
        check_choice("covariance", covariance, list(STRUCTURES))
        check_count("restarts", restarts)
        check_count("max_iter", max_iter, least=0)
        check_number("tolerance", tolerance, low=0)
        check_choice("order", order, (None, "mean", "weight"))
        check_seed("seed", seed)
        for name, flag in (("missing", missing), ("accelerate", accelerate), ("warm_start", warm_start)):
            check_flag(name, flag)
        self.betas = tuple(beta) if isinstance(beta, Sequence) else (beta,)
        for each in self.betas or (None,):
            check_number("beta", each, low=1e-6)
        for name, value in (prior or FLAT)._asdict().items():
            if isinstance(value, Rounding):
                continue
            number = as_tensor(f"prior.{name}", value)
            if not bool((number.isfinite() & (number >= 0)).all()):
                raise InputError(f"prior.{name} is {value}: expected finite pseudo-counts and variances of at least 0")
        if isinstance(init, str):
            check_choice("init", init, ("kmeans++", "random"))
        elif restarts > 1:
            raise InputError(f"restarts is {restarts} with a given init: they would all be the same; use restarts=1")
        self.components, self.covariance, self.seed = components, covariance, seed
        self.init = init.mixture if isinstance(init, GMM) else init  # a module here would become part of this one
        self.restarts, self.tolerance, self.max_iter, self.prior = restarts, tolerance, max_iter, prior
        self.missing, self.accelerate, self.warm_start, self.order = missing, accelerate, warm_start, order
        self._structure = STRUCTURES[covariance]
        self._names = ("log_weight", *self._structure._fields)
        for name in self._names:
            self.register_buffer(name, None)
        self.register_buffer("_place", torch.empty(0), persistent=False)  # follows `.to(device)` before there are parameters
        self.history: list[Step] = []
        self.reseeded: list[Reseed] = []
        self.collapsed: list[int] = []
        self.columns: tuple[str, ...] | None = None
        self.converged, self.iterations = False, 0
        self.log_likelihood = math.nan
        self.failure: str | None = None

    # ---- parameters -----------------------------------------------------------------------------

    @property
    def mixture(self) -> Mixture:
        """The parameters as a value, for the functions of `family.mixture` and `em.steps`."""
        if self.log_weight is None:
            raise InputError("this GMM has no parameters: call fit, load_state_dict or GMM.of first")
        log_weight, *parameters = (getattr(self, name) for name in self._names)
        return Mixture(log_weight, self._structure(*parameters))

    @classmethod
    def of(cls, p: Mixture, **options: Any) -> Self:
        """The GMM with the parameters of `p`, a mixture without leading axes."""
        covariance = next(name for name, structure in STRUCTURES.items() if isinstance(p.components, structure))
        gmm = cls(len(p.log_weight), covariance, **options)
        gmm._keep(p)
        return gmm

    def assign(self, p: Mixture) -> None:
        """Takes the parameters of `p`, in place."""
        for name, value in zip(self._names, (p.log_weight, *p.components), strict=True):
            self.get_buffer(name).copy_(value)

    def prior_of(self, variance: Tensor, origin: Tensor, shared: bool = False) -> Prior:
        """The prior, or the default floor, for data whose columns have `variance` `(D,)`; see `Rounding` for the others."""
        if self.prior is None:
            return Prior(variance=variance, floor=Rounding.of(origin, variance, shared))
        prior = self.prior
        floor = prior.floor
        if isinstance(floor, Tensor) or (isinstance(floor, float | int) and floor > 0):
            floor = like(variance, floor) * variance
        return prior._replace(variance=like(variance, prior.variance) * variance, floor=floor)

    def _keep(self, p: Mixture) -> None:
        for name, value in zip(self._names, (p.log_weight, *p.components), strict=True):
            setattr(self, name, value.detach().double().clone())
        self._place = self._place.to(self.log_weight.device)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Takes the shapes from the checkpoint, since D is not known before."""
        for name in self._names:
            value = state_dict.get(prefix + name)
            if value is None:
                continue
            if len(value) != self.components and name in ("log_weight", "mean"):
                raise InputError(
                    f"the checkpoint has {len(value)} components: expected {self.components}; make GMM({len(value)})"
                )
            setattr(self, name, torch.empty_like(value, device=self._place.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[arg-type]

    @property
    def parameter_count(self) -> int:
        """Free parameters, for `bic` and `aic`."""
        components, dim = self.mixture.components.mean.shape
        shape = {"full": components * dim * (dim + 1) // 2, "tied": dim * (dim + 1) // 2, "diag": components * dim}
        return components - 1 + components * dim + shape.get(self.covariance, components)

    # ---- fitting --------------------------------------------------------------------------------

    def fit(self, x: Any, weights: Any = None) -> Self:
        """Fit to points `(N, D)`, of which each counts `weights` `(N,)` times.

        x: a tensor, a numpy array or memory map, a frame, or a DataLoader (see `Points`); only a chunk is held at a time.
        Raises `InputError` for points that no mixture can be fitted to, before any work.
        """
        points = Points(x, weights, self._place.device, self.missing)
        # A sixth faster on few points. What a loader makes, and may keep, is to be fit for gradients.
        with torch.inference_mode(points.array):
            fitted = self._fit(points)
        self._keep(fitted)
        return self

    def _fit(self, points: Points) -> Mixture:
        generator = torch.Generator().manual_seed(self.seed)
        survey = points.survey(generator, self.missing)
        self._check(survey, points.names)
        # Rounded to the data's precision: then subtracting it adds no error of its own.
        origin = survey.mean.to(survey.dtype)
        centred = survey._replace(mean=survey.mean - origin.double(), kept=survey.kept - origin.double())
        x = torch.where(centred.kept.isnan(), centred.mean, centred.kept)
        sample = Sample(x, centred.kept_weights, centred.mean, centred.var)
        start = self._start(sample, origin.double(), generator)
        if isinstance(start.components, Full) and start.components.mean.shape[-1] == 1:
            # In one dimension the same model, of fewer small operations: they are what the fit of a few points takes.
            mean, scale_tril = start.components
            start = start._replace(components=Diagonal(mean, 2 * scale_tril.squeeze(-1).log()))
        prior = self.prior_of(survey.var, origin)
        prior = prior._replace(weight=prior.weight / points.unit, covariance=prior.covariance / points.unit)

        stream = Stream(points.chunks, survey.size, origin)
        few = survey.size <= stream.chunk(start, torch.float64)  # float32 would gain nothing
        wide = survey.dtype == torch.float64 or few or survey.missing or survey.extreme
        precision = _Precision()

        def expect(p: Mixture, coefficient: Tensor, exact: bool, beta: float) -> Statistics | Local:
            if survey.missing:
                return missing.local(points.chunks, origin, p, beta)
            if local.needed(p, coefficient):
                return local.expect(points.chunks, origin, p, beta)
            return stream(p, torch.float64 if wide else precision(p, exact), beta, coefficient)

        self.history, self.reseeded, self.iterations = [], [], 0
        for beta in self.betas:
            with _exact_products():
                climb = partial(
                    ascend,
                    partial(expect, beta=beta),
                    total=survey.total,
                    points=survey.size,
                    sigma=survey.var.sqrt(),
                    generator=generator,
                    tolerance=self.tolerance,
                    max_iter=self.max_iter,
                    rough=0.0 if wide else _ROUGH,
                    accelerate=self.accelerate,
                    beta=beta,
                    prior=prior,
                )
                if beta == self.betas[-1] and len(start.log_weight) > 1 and self.max_iter and self.tolerance:
                    found = self._search(climb, start, sample, survey.total, generator)
                else:
                    found = climb(start)
            start = mixture.mapped(lambda part: part[None], found.mixture)
            self._note(found, points.unit)
        self.columns = points.names
        flat = on_floor(found.mixture, prior.floor)
        fitted = mixture.shift(found.mixture, origin.double())
        if self._structure is Full:
            fitted = fitted._replace(components=fitted.components.full())
        order = self._order(fitted)
        self.collapsed = flat[order].nonzero().flatten().tolist()
        fitted = self._ordered(fitted, order)
        place = order.argsort().tolist()
        self.reseeded = [event._replace(component=place[event.component]) for event in self.reseeded]
        self._tell(fitted, survey.size)
        return fitted

    def _search(
        self, climb: Callable[..., Ascent], start: Mixture, sample: Sample, total: float, generator: torch.Generator
    ) -> Ascent:
        """Climb from the starts, go on from the best as long as one of its swaps ends higher, and then to a high precision."""
        loose = partial(climb, tolerance=_LOOSE * self.tolerance)
        found = loose(start)
        failed = 0
        while failed < _PATIENCE and not found.failure:
            around = swapped(found.mixture, sample, self.restarts, generator)
            # The best itself is among them: one that differs ranks before it.
            other = loose(mixture.mapped(lambda best, more: torch.cat([best[None], more]), found.mixture, around))
            differs = abs(other.objective - found.objective) > _HIGHER * total
            found = other if differs else found
            failed = 0 if differs else failed + 1
        return found if found.failure else self._polished(climb, found)

    def _polished(self, climb: Callable[..., Ascent], found: Ascent) -> Ascent:
        """`found`, climbed on to a hundredth of the tolerance: starts that meet end as near each other as the tolerance."""
        most = max(self.max_iter - found.iterations, 0)
        one = mixture.mapped(lambda part: part[None], found.mixture)
        last = climb(one, tolerance=0.01 * self.tolerance, max_iter=most)
        return last._replace(
            history=found.history + last.history,
            reseeded=found.reseeded + _later(last.reseeded, found.iterations),
            iterations=found.iterations + last.iterations,
        )

    def _note(self, found: Ascent, unit: float) -> None:
        self.history += found.history
        self.reseeded += _later(found.reseeded, self.iterations)
        self.iterations += found.iterations
        self.converged, self.log_likelihood, self.failure = found.converged, found.log_likelihood * unit, found.failure
        if found.failure:
            logger.warning("the fit stopped and keeps its last good parameters: %s", found.failure)

    def _tell(self, p: Mixture, size: int) -> None:
        """Say what became of components of the fit that is kept: each kind of fate once."""
        if self.reseeded:
            when: dict[tuple[int, str], list[str]] = {}
            for event in self.reseeded:
                when.setdefault((event.component, event.reason), []).append(str(event.iteration))
            fates = [f"component {each} was {why} after iteration {', '.join(at)}" for (each, why), at in when.items()]
            logger.warning("%s, and was seeded anew", "; ".join(fates))
        if self.collapsed:
            self._tell_of_collapse(p, self.collapsed[0], size)
        elif pairs := alike(p):
            logger.warning(
                "components %s end alike, with the same mean and covariance: together they are one, and another maximum may be"
                " higher, above all where a far outlier widens a covariance that all share; use init=kmeans++ or more restarts",
                _some([f"{first} and {second}" for first, second in pairs]),
            )

    def _tell_of_collapse(self, p: Mixture, component: int, size: int) -> None:
        mean = ", ".join(f"{value:g}" for value in p.components.mean[component, :8].tolist())
        logger.warning(
            "component %d ends on the covariance floor, with %.3g of %d points about (%s): they are copies of one another or"
            " lie in a plane, an outlier is one; its density there is as high as the floor is low%s",
            component,
            size * p.log_weight[component].exp().item(),
            size,
            mean + ", ..." if p.components.mean.shape[1] > 8 else mean,
            f"; so do {_some([f'component {each}' for each in self.collapsed[1:]])}" if self.collapsed[1:] else "",
        )

    def _check(self, survey: Survey, names: tuple[str, ...] | None) -> None:
        size = len(survey.kept)
        if survey.size < self.components or (size < self.components and size < survey.size):
            raise InputError(
                f"x has {min(survey.size, size)} points: expected at least {self.components}, one for each component"
            )
        unseen = survey.unseen.nonzero().flatten().tolist()
        if unseen:
            raise InputError(f"{column_said(unseen[0], names)} of x holds nothing but NaN: expected numbers; remove it")
        constant = survey.constant.nonzero().flatten().tolist()
        if len(constant) == len(survey.constant):
            raise InputError(f"all {survey.size} points of x are the same: expected at least two different ones")
        if constant:
            value = survey.mean[constant[0]].item()
            raise InputError(
                f"{column_said(constant[0], names)} of x is {value:g} in every point: expected one that varies; remove it"
            )

    def _start(self, sample: Sample, origin: Tensor, generator: torch.Generator) -> Mixture:
        """Starts `(R, K)` about the origin."""
        dim = len(sample.mean)
        init = self.mixture if self.warm_start and self.log_weight is not None else self.init
        if isinstance(init, str):
            make = kmeans if init == "kmeans++" else scattered
            return make(self._structure, sample, self.components, self.restarts, generator)
        if not isinstance(init, Mixture):
            mean = as_tensor("init", init).detach().to(origin)
            self._fits_init(mean, self._structure, dim)
            if not bool(mean.isfinite().all()):
                raise InputError("init holds NaN or an infinite number: expected finite means")
            if len(mean.unique(dim=0)) < len(mean):
                raise InputError("init holds the same mean twice: expected different ones, since alike components stay alike")
            variance = variance_of_cells(sample, (mean - origin)[None])
            init = Mixture(mean.new_full(mean.shape[:1], -math.log(len(mean))), self._structure.at(mean, variance))
        self._fits_init(init.components.mean, type(init.components), dim)
        parameters = [value.detach().to(origin) for value in init.components]
        farthest = float((parameters[0] - sample.mean - origin).abs().amax())
        if not farthest <= WIDEST:
            raise InputError(f"init has a mean that lies {farthest:g} from that of x: expected at most {WIDEST:g}; mend it")
        parameters[0] = parameters[0] - origin
        return Mixture(init.log_weight.to(origin)[None], self._structure(*(value[None] for value in parameters)))

    def _fits_init(self, mean: Tensor, structure: type, dim: int) -> None:
        if mean.shape != (self.components, dim) or structure is not self._structure:
            raise InputError(
                f"init has means of shape {tuple(mean.shape)} and {structure.__name__} covariances: expected"
                f" {(self.components, dim)} and {self._structure.__name__}"
            )

    def _order(self, p: Mixture) -> Tensor:
        """The components in the order asked for, `(K,)` int64."""
        if self.order == "weight":
            return p.log_weight.argsort(descending=True, stable=True)
        rows = p.components.mean.tolist()
        order = sorted(range(len(rows)), key=rows.__getitem__) if self.order == "mean" else list(range(len(rows)))
        return torch.tensor(order, device=p.log_weight.device)

    def _ordered(self, p: Mixture, order: Tensor) -> Mixture:
        kept = [value if len(value) != len(order) or self.covariance == "tied" else value[order] for value in p.components]
        kept[0] = p.components.mean[order]
        return Mixture(p.log_weight[order], type(p.components)(*kept))

    # ---- scoring --------------------------------------------------------------------------------

    def _points(self, x: Any, before: int = 0) -> Tensor:
        """`x` as a tensor `(N, D)` on the device of the parameters; `before` it came so many other rows."""
        dim, names = self.mixture.components.mean.shape[-1], column_names(x)
        self._check_columns(names)
        x = as_tensor("x", x, self.missing).to(self.mean.device)
        if x.dim() != 2 or x.shape[1] != dim:
            raise InputError(f"x has the shape {tuple(x.shape)}: expected (N, {dim}), the coordinates this GMM was fitted to")
        refuse_infinite(x, before, self.missing, names)
        return x

    def _check_columns(self, names: tuple[str, ...] | None) -> None:
        if names and self.columns and names != self.columns:
            raise InputError(
                f"x has the columns {', '.join(names)}: expected {', '.join(self.columns)}, which this GMM was fitted to,"
                " in this order"
            )

    def _joint_of(self, x: Tensor) -> Callable[[Tensor, Mixture], Tensor]:
        """How log p(x, k) of these points is computed: NaN is marginalised, and far components need deviations."""
        if bool(x.isnan().any()):
            return lambda part, p: p.log_weight + missing.log_density(part, p)
        about = mixture.shift(self.mixture, -self.mean.detach().mean(0))
        return local.log_joint if local.needed(about, coefficients(about)) else mixture.log_joint

    def _log_joint(self, x: Tensor) -> Tensor:
        joint = self._joint_of(x)(x, self.mixture)
        refuse_far(joint.detach().amax(-1))
        return joint

    def log_prob(self, x: Any) -> Tensor:
        """log p(x), `(N, D)` to `(N,)`, nats; differentiable in x. Of missing values the marginal."""
        x = self._points(x)
        return self._log_prob(x)

    def _log_prob(self, x: Tensor, before: int = 0) -> Tensor:
        value = mixture.log_prob(x, self.mixture, self._joint_of(x))
        refuse_far(value.detach(), before=before)
        return value

    def forward(self, x: Any) -> Tensor:
        """`log_prob`."""
        return self.log_prob(x)

    def responsibilities(self, x: Any) -> Tensor:
        """p(k|x), `(N, D)` to `(N, K)`."""
        return self._log_joint(self._points(x)).softmax(-1)

    def predict(self, x: Any) -> Tensor:
        """The most probable component, `(N, D)` to `(N,)` int64."""
        return self._log_joint(self._points(x)).argmax(-1)

    def bound(self, x: Any, r: Any = None) -> Bound:
        """The bound on log p(x) at responsibilities `r` `(N, K)`, `(N,)` each part; by default where it is tight.

        Of missing values it is that on the marginal, as `log_prob` is.
        """
        x, p = self._points(x), self.mixture
        joint = self._log_joint(x)
        if r is None:
            return em.bound_of(joint - p.log_weight, p.log_weight, joint.softmax(-1))
        r = as_tensor("r", r).to(joint)
        if r.shape != joint.shape:
            raise InputError(f"r has the shape {tuple(r.shape)}: expected {tuple(joint.shape)}, a number for each component")
        bad = r[~((r >= 0) & r.isfinite())]
        if len(bad):
            raise InputError(f"r holds {bad[0].item():g}: expected finite numbers of at least 0, which add up to 1 in each row")
        return em.bound_of(joint - p.log_weight, p.log_weight, r)

    def _total(self, x: Any) -> tuple[float, int]:
        """Sum of log p(x) over points of any kind, and their number."""
        points, total, count = Points(x, device=self.mean.device, missing=self.missing), 0.0, 0
        self._check_columns(points.names)
        for part, _ in points.chunks(65536):
            part = self._points(part.to(self.mean.device), count)
            total += float(self._log_prob(part, count).double().sum())
            count += len(part)
        if not count:
            raise InputError("x has 0 points: expected at least one")
        return total, count

    def bic(self, x: Any) -> float:
        """Bayesian information criterion, -2 log p(x) + parameters log N (Schwarz 1978); less is better."""
        total, count = self._total(x)
        return -2 * total + self.parameter_count * math.log(count)

    def aic(self, x: Any) -> float:
        """Akaike's information criterion, -2 log p(x) + 2 parameters (Akaike 1974); less is better."""
        return -2 * self._total(x)[0] + 2 * self.parameter_count

    # ---- drawing and taking apart ---------------------------------------------------------------

    def sample(self, n: int, seed: int | None = None) -> Tensor:
        """`(n, D)` draws in the parameters' dtype; the same every time for one seed, by default that of the GMM."""
        check_count("n", n, least=0)
        if seed is not None:
            check_seed("seed", seed)
        p, key = self.mixture, self.seed if seed is None else seed
        index = torch.arange(n, device=self.mean.device)
        uniform = random.uniform(random.fold(key, "component"), index, (), torch.float64)
        noise = random.normal(random.fold(key, "noise"), index, self.mean.shape[1:], torch.float64)
        return mixture.sample(p, uniform, noise)

    def marginal(self, dims: Sequence[int | str]) -> Mixture:
        """The mixture of the coordinates `dims`, in that order."""
        p = self.mixture
        full = p.components.full()
        return Mixture(p.log_weight, Full(*normal.marginal(normal.Normal(*full), self._dims(dims))))

    def conditional(self, dims: Sequence[int | str], values: Any) -> Mixture:
        """The mixture of the other coordinates given that `dims` have `values`, `(len(dims),)` or `(N, len(dims))`.

        Of N values the result has N as its leading axis. `family.mixture.mean` of it is the regression on `dims`.
        """
        p, dims = self.mixture, self._dims(dims)
        values = as_tensor("values", values).to(p.log_weight)
        if values.dim() not in (1, 2) or values.shape[-1] != len(dims) or len(dims) == self.mean.shape[1]:
            raise InputError(
                f"dims is {dims} and values has the shape {tuple(values.shape)}: expected a value for each of dims, and dims to"
                f" leave one of {self.mean.shape[1]} coordinates"
            )
        if not bool(values.isfinite().all()):
            raise InputError("values holds NaN or an infinite number: expected finite ones; leave out dims that are not known")
        each = values.unsqueeze(-2)  # (..., 1, G) against K components
        full = normal.Normal(*p.components.full())
        joint = p.log_weight + normal.log_density(each, normal.marginal(full, dims))
        refuse_far(joint.detach().amax(-1).reshape(-1), "values")
        log_weight = joint.log_softmax(-1)
        mean, scale_tril = normal.condition(full, dims, each)
        return Mixture(log_weight, Full(mean, scale_tril.expand(*mean.shape, mean.shape[-1])))

    def _dims(self, dims: Sequence[int | str]) -> list[int]:
        """The coordinates, which may be given by the names of a frame's columns."""
        size, names = self.mean.shape[1], self.columns or ()
        known: dict[Any, int] = {name: place for place, name in enumerate(names)}
        asked = [known.get(dim, dim) if isinstance(dim, str) else dim for dim in dims]
        found = [dim % size for dim in asked if isinstance(dim, int) and -size <= dim < size]
        if not found or len(found) != len(asked) or len(set(found)) != len(found):
            by_name = f" or {', '.join(names)}" if names else ""
            raise InputError(f"dims is {list(dims)}: expected different coordinates of 0..{size - 1}{by_name}, at least one")
        return found

    # ---- other libraries ------------------------------------------------------------------------

    def as_distribution(self) -> distributions.MixtureSameFamily:
        """The same density in `torch.distributions`."""
        p = self.mixture
        weights = distributions.Categorical(logits=p.log_weight)
        if isinstance(p.components, Diagonal | Spherical):
            mean, log_var = p.components.marginals()
            return distributions.MixtureSameFamily(
                weights, distributions.Independent(distributions.Normal(mean, (0.5 * log_var).exp()), 1)
            )
        full = p.components.full()
        return distributions.MixtureSameFamily(weights, distributions.MultivariateNormal(full.mean, scale_tril=full.scale_tril))

    @classmethod
    def from_sklearn(cls, fitted: Any, **options: Any) -> Self:
        """The GMM with the parameters of a fitted `sklearn.mixture.GaussianMixture`."""
        cov, mean = torch.as_tensor(fitted.covariances_).double(), torch.as_tensor(fitted.means_).double()
        log_var = fitted.covariance_type in ("diag", "spherical")
        components: Components = STRUCTURES[fitted.covariance_type](mean, cov.log() if log_var else torch.linalg.cholesky(cov))
        return cls.of(Mixture(torch.as_tensor(fitted.weights_).double().log(), components), **options)

    def to_sklearn(self) -> Any:
        """A fitted `sklearn.mixture.GaussianMixture` with these parameters; scikit-learn must be installed."""
        p = self.mixture
        # By name: scikit-learn is no dependency of this package.
        fitted = importlib.import_module("sklearn.mixture").GaussianMixture(self.components, covariance_type=self.covariance)
        fitted.weights_, fitted.means_ = p.log_weight.exp().cpu().numpy(), self.mean.cpu().numpy()
        if isinstance(p.components, Diagonal | Spherical):
            fitted.covariances_ = p.components.log_var.exp().cpu().numpy()
            fitted.precisions_cholesky_ = (-0.5 * p.components.log_var).exp().cpu().numpy()
            fitted.precisions_ = fitted.precisions_cholesky_**2
        else:
            scale_tril = self.get_buffer("scale_tril")
            upper = torch.linalg.solve_triangular(scale_tril, torch.eye(scale_tril.shape[-1]).to(scale_tril), upper=False).mT
            fitted.covariances_ = (scale_tril @ scale_tril.mT).cpu().numpy()
            fitted.precisions_cholesky_, fitted.precisions_ = upper.cpu().numpy(), (upper @ upper.mT).cpu().numpy()
        fitted.converged_, fitted.n_iter_, fitted.n_features_in_ = self.converged, self.iterations, self.mean.shape[1]
        return fitted


def _later(events: list[Reseed], iterations: int) -> list[Reseed]:
    """`events` of a climb that went on after so many iterations of others."""
    return [event._replace(iteration=event.iteration + iterations) for event in events]


def _some(parts: list[str]) -> str:
    """Up to three of `parts`, and how many more there are."""
    more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
    return ", ".join(parts[:3]) + more


class _Precision:
    """In which dtype an E-step of float32 data is computed.

    The sums of a float32 step cannot resolve the covariances of a component that shrinks far below where it was: where
    `spread` or `ridge` is growing even rough steps are float64, and so is the first from covariances without correlations.
    """

    def __init__(self) -> None:
        self._last: float | None = None

    def __call__(self, p: Mixture, exact: bool) -> torch.dtype:
        ridges = ridge(p.components)
        rounding = torch.finfo(torch.float32).eps * (spread(p.components) + ridges - 1)
        mean = (rounding * p.log_weight.exp()).sum(-1).max()
        worst, mean_worst, steepest = torch.stack([rounding.max(), mean, ridges.max()]).tolist()
        last, self._last = self._last, worst
        if last is None:
            blind = steepest == 1 and p.components.mean.shape[-1] > 1 and isinstance(p.components, Tied | Full)
            return torch.float64 if blind or worst > _ROUNDING else torch.float32
        rough = not exact and worst <= min(_ROUGH_ROUNDING, 2 * last) and mean_worst <= _ROUGH_MEAN
        return torch.float32 if rough or worst <= _ROUNDING else torch.float64


@contextmanager
def _exact_products() -> Iterator[None]:
    """float32 products in float32, whatever `torch.set_float32_matmul_precision` says: TF32 and bfloat16 lose the moments."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
