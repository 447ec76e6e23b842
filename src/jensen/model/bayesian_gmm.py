"""A Bayesian mixture of Gaussians: fit it, compare it, score with it."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Self, final

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_choice, check_count, check_number, check_seed
from jensen.em.labels import log_orders
from jensen.em.missing import patterns
from jensen.em.variational import Belief, Shares, Sticks, expected
from jensen.family import cholesky
from jensen.family.believed import BELIEFS, DiagonalBelief, FullBelief, TiedBelief
from jensen.family.mixture import Mixture, logsumexp
from jensen.family.normal_gamma import student
from jensen.model.arrays import as_tensor, column_names
from jensen.model.bayesian_fit import FittedBelief, PriorAsked, fit_belief
from jensen.model.gmm import GMM
from jensen.model.held_out import check_columns, check_responsibilities, total
from jensen.model.points import Points, refuse_infinite
from jensen.model.recipe import Recipe
from jensen.model.scored import Scored

_WEIGHTS: dict[str, Any] = {"dirichlet": Shares, "stick": Sticks}


class Believing(Scored):
    """A posterior and the prior in float64 buffers, of which there are none before the first `_keep`."""

    elbo: Tensor
    recipe: Recipe
    _asked: PriorAsked
    _names: tuple[str, ...]
    _prior_names: tuple[str, ...]

    def _keep(self, fitted: FittedBelief) -> Self:
        prior = (*fitted.prior.components, *fitted.prior.weights)
        for names, values in ((self._names, fitted.state.components), (self._prior_names, prior)):
            for name, value in zip(names, values, strict=True):
                setattr(self, name, value.detach().double().clone())
        self.elbo = torch.tensor(fitted.elbo, dtype=torch.float64, device=self.elbo.device)
        for name in ("history", "converged", "iterations", "columns", "data", "failure"):
            setattr(self, name, getattr(fitted, name))
        return self

    @property
    def state(self) -> Mixture:
        """The posterior as EM's E-step takes it: E log weight, and components of beliefs."""
        values = [self.get_buffer(name) for name in self._names]
        if any(value is None for value in values):
            raise InputError(
                "this BayesianGMM has no parameters: call fit or load_state_dict first"
            )
        components = BELIEFS[self.recipe.covariance](*values)
        prior = self.prior
        return Mixture(prior.log_weight(prior.counts(components)), components)

    @property
    def prior(self) -> Belief:
        """The belief before any point."""
        values = [self.get_buffer(name) for name in self._prior_names]
        count = len(self._names)
        weights = _WEIGHTS[self._asked.weights](*values[count:])
        return Belief(weights, BELIEFS[self.recipe.covariance](*values[:count]))

    @property
    def counts(self) -> Tensor:
        """The points that each component has, `(K,)`."""
        return self.prior.counts(self.state.components)

    @property
    def weights(self) -> Any:
        """The belief of the weights: with `mean()` `(K,)`."""
        return self.prior.weights.updated(self.counts)

    @property
    def mixture(self) -> Mixture:
        """The mixture at the posterior means of weights, means and precisions."""
        components = expected(self.state).components
        return Mixture(self.weights.mean().log(), components)

    @property
    def parameter_count(self) -> int:
        return GMM.of(self.mixture).parameter_count

    @property
    def labelled(self) -> float:
        """The elbo, nats, and what it gains by counting the orders of its components: up to log K!, less
        where they are alike, such as unused ones, whose orders are one belief (`em.labels`). Sticks come in one
        order. It bounds log p(points) too, but after `partial_fit`, and compares numbers of components.
        """
        if self._asked.weights == "stick":
            return float(self.elbo)
        return float(self.elbo) + log_orders(self.state, self.prior)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Take the shapes from the checkpoint, since D is not known before."""
        for name in (*self._names, *self._prior_names):
            if (value := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(value, device=self.elbo.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[arg-type]

    def belief(self, mean: Tensor, variance: Tensor, origin: Tensor) -> Belief:
        return self.prior.shifted(-origin.double())

    def assign(self, p: Mixture) -> None:
        for name, value in zip(self._names, p.components, strict=True):
            self.get_buffer(name).copy_(value)


@final
class BayesianGMM(Believing):
    """A mixture of Gaussians of which a belief is kept, by variational Bayes: components that the points
    do not need switch off, and `elbo`, a lower bound of log p(points) with all its constants, can be
    compared between numbers of components, priors and structures.

    Args:
        components: K, the most there can be; it may exceed the number of points.
        covariance: "full", "tied", "diag" or "spherical", each with its exact conjugate prior.
        concentration: of the Dirichlet; with weights="stick" b of each stick's Beta(1, b). Less
            switches more components off.
        mean: `(D,)`, what means are believed to be about; None: the data's.
        mean_count: how many points that belief is worth.
        df: degrees of freedom of the Wishart, more than D - 1; half of them are the shape of the
            gamma of "diag" and "spherical". None: D.
        scale: `(D, D)`, or its diagonal `(D,)`, the inverse of the Wishart's scale matrix, in units of a
            covariance (scikit-learn's `covariance_prior`). None: the data's covariance.
        weights: "dirichlet", or "stick" for a Dirichlet process cut off at K, the last stick whole.
        seed, init, restarts, tolerance, max_iter, order, missing: as of a `GMM`; some of several
            restarts begin with fewer components, or at points, and there is no search beyond them; `order` is of
            "dirichlet" alone.

    Attributes, after `fit`: history (each `Step` with the elbo as `bound` and None as `gap`), converged,
    iterations, columns, failure, as of a `GMM`; `data`: which data it was fitted to.

    Mean field: beliefs of components and of points' components are taken as independent, so it is
    over-sure of both (of 10 rows of Old Faithful p(z1 = z2) is .98 instead of .61), and the elbo counts
    one of K! equal labellings: `labelled` adds their share, log K! where no two components are alike, to
    compare as `jensen.compare` does.

    >>> spread = torch.linspace(-1, 1, 50).unsqueeze(1)
    >>> x = torch.cat([spread - 3, spread + 3])
    >>> len(BayesianGMM(5, concentration=0.01).fit(x).used())
    2
    """

    concentration: Tensor
    elbo: Tensor

    def __init__(
        self,
        components: int,
        covariance: str = "full",
        *,
        concentration: float = 1.0,
        mean: Any = None,
        mean_count: float = 1.0,
        df: float | None = None,
        scale: Any = None,
        weights: str = "dirichlet",
        seed: int = 0,
        init: Any = "kmeans++",
        restarts: int = 1,
        tolerance: float = 1e-6,
        max_iter: int = 1000,
        order: str | None = None,
        missing: bool = False,
    ) -> None:
        check_choice("weights", weights, [*_WEIGHTS])
        asked = PriorAsked(concentration, mean, mean_count, df, scale, weights)
        asked.check()
        recipe = Recipe(
            components=components,
            covariance=covariance,
            seed=seed,
            init=init.mixture if isinstance(init, GMM) else init,
            restarts=restarts,
            tolerance=tolerance,
            max_iter=max_iter,
            prior=None,
            beta=1.0,
            missing=missing,
            accelerate=False,
            warm_start=False,
            order=order,
        )
        recipe.check()
        super().__init__()
        self.recipe = recipe
        self._asked = asked
        fields = (*BELIEFS[covariance]._fields, *_WEIGHTS[weights]._fields)
        self._names = tuple(f"{name}_" for name in BELIEFS[covariance]._fields)
        self._prior_names = tuple(f"prior_{name}" for name in fields)
        for name in (*self._names, *self._prior_names):
            self.register_buffer(name, None)
        self.register_buffer("elbo", torch.tensor(math.nan, dtype=torch.float64))
        self._unfitted()

    def fit(self, x: Any, weights: Any = None) -> Self:
        """Fit to points `(N, D)`, of which each counts `weights` `(N,)` times; as of a `GMM`."""
        return self._keep(self._fitted(x, weights, None))

    def partial_fit(self, x: Any, weights: Any = None) -> Self:
        """Fit to further points: what is believed so far is the prior (streaming variational Bayes:
        Broderick et al. 2013). The elbo grows by that of these points, which together bounds nothing
        but is near the elbo of all.
        """
        if self._buffers[self._names[0]] is None:
            return self.fit(x, weights)
        state = self.state
        before = self.prior
        counts = before.counts(state.components)
        now = Belief(before.weights.updated(counts), state.components)
        so_far = self.elbo.clone()
        self._keep(self._fitted(x, weights, (state, now)))
        self.elbo += so_far
        return self

    def _fitted(self, x: Any, weights: Any, before: Any) -> FittedBelief:
        points = Points(x, weights, self.elbo.device, self.recipe.missing)
        with torch.inference_mode(points.array):
            return fit_belief(self.recipe, self._asked, points, before)

    # ---- beliefs --------------------------------------------------------------------------------

    def used(self, threshold: float = 1.0) -> list[int]:
        """The components with more than `threshold` points, the heaviest first."""
        check_number("threshold", threshold, low=0)
        counts = self.counts
        order = counts.argsort(descending=True)
        return [place for place in order.tolist() if counts[place] > threshold]

    def prune(self, threshold: float = 1.0) -> "BayesianGMM":
        """A BayesianGMM of the `used` components alone, as they are; its elbo is not known before it is
        fitted.
        """
        kept = torch.tensor(self.used(threshold), device=self.elbo.device)
        if self._asked.weights == "stick":
            raise InputError(
                'prune needs weights="dirichlet": the sticks of a Dirichlet process depend on those'
                ' before them; fit with weights="dirichlet"'
            )
        small = BayesianGMM(len(kept), **self._options)
        shared = isinstance(self.state.components, TiedBelief)
        for name in (*self._names, *self._prior_names):
            own = not (shared and name.rstrip("_").removeprefix("prior_") in ("df", "scatter_tril"))
            value = self.get_buffer(name)
            setattr(small, name, (value[kept] if own else value).clone())
        small.columns = self.columns
        small.data = self.data
        return small

    @property
    def _options(self) -> dict[str, Any]:
        recipe = self.recipe
        names = ("covariance", "seed", "tolerance", "max_iter", "order", "missing")
        return self._asked._asdict() | {name: getattr(recipe, name) for name in names}

    def sample_mixtures(self, draws: int, seed: int = 0) -> Mixture:
        """Mixtures that are believed, `(draws, K)`: of the posterior, which is over-sure."""
        check_count("draws", draws)
        check_seed("seed", seed)
        generator = torch.Generator(self.elbo.device).manual_seed(seed)
        weights = self.weights.drawn(draws, generator)
        beliefs: Any = self.state.components
        components = beliefs.drawn(draws, generator)
        return Mixture(weights.clamp(min=1e-300).log(), components)

    def credible(self, level: float = 0.9, draws: int = 4000) -> dict[str, Tensor]:
        """Central intervals that hold `level` of the belief: of `weights` `(K, 2)` and of `means` `(K, D,
        2)`, from so many draws.
        """
        check_number("level", level, low=0, high=1)
        p = self.sample_mixtures(draws)
        ends = torch.tensor([0.5 - level / 2, 0.5 + level / 2]).to(self.elbo)
        found = {"weights": p.log_weight.exp(), "means": p.components.mean}
        return {
            name: torch.quantile(part, ends, dim=0).movedim(0, -1) for name, part in found.items()
        }

    def sample(self, n: int, seed: int | None = None) -> Tensor:
        """`(n, D)` draws of `mixture`, as of a `GMM`."""
        return GMM.of(self.mixture, seed=self.recipe.seed).sample(n, seed)

    # ---- scoring --------------------------------------------------------------------------------

    @property
    def _held_out(self) -> "PredictiveHeldOut":
        return PredictiveHeldOut(
            self.mixture, self.state.components, self.recipe.missing, self.columns
        )


class PredictiveHeldOut(NamedTuple):
    """A posterior and the points that it is asked about: p(x | points), a mixture of Student t (Bishop
    2006, eq. 10.81).
    """

    mixture: Mixture
    beliefs: Any
    missing: bool
    columns: tuple[str, ...] | None

    def points(self, x: Any, before: int = 0) -> Tensor:
        """`x` as a tensor `(N, D)`; `before` it came so many other rows."""
        names = column_names(x)
        check_columns(names, self.columns)
        mean = self.beliefs.mean
        x = as_tensor("x", x, self.missing).to(mean.device)
        if x.dim() != 2 or x.shape[1] != mean.shape[1]:
            raise InputError(
                f"x has the shape {tuple(x.shape)}: expected (N, {mean.shape[1]}), the coordinates"
                " this BayesianGMM was fitted to"
            )
        refuse_infinite(x, before, self.missing, names)
        return x

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, k), `(N, D)` to `(N, K)`."""
        x = x.double()
        if not bool(x.isnan().any()):
            parts = [self.beliefs.student(part) for part in x.split(4096)]
            return self.mixture.log_weight + torch.cat(parts)
        found = x.new_empty(len(x), len(self.mixture.log_weight))
        for rows, there, _ in patterns(x):
            found[rows] = _marginal(self.beliefs, x[rows][:, there], there)
        return self.mixture.log_weight + found

    def log_prob(self, x: Tensor, before: int = 0) -> Tensor:
        """log p(x), `(N, D)` to `(N,)`."""
        return logsumexp(self.log_joint(x), -1)

    def total(self, x: Any) -> tuple[float, int]:
        """The sum of log p(x) over points of any kind, and their number."""
        return total(self, x, self.missing, self.columns)

    def responsibilities(self, r: Any, joint: Tensor) -> Tensor:
        return check_responsibilities(r, joint)


def _marginal(beliefs: Any, x: Tensor, there: Tensor) -> Tensor:
    """The Student t of some of the columns: with the same degrees of freedom."""
    if isinstance(beliefs, FullBelief | TiedBelief):
        scatter = (beliefs.scatter_tril @ beliefs.scatter_tril.mT)[..., there, :][..., there]
        factor = cholesky.factor(scatter)
        dim = beliefs.mean.shape[-1]
        widening = 1 + 1 / beliefs.mean_count
        move = cholesky.solve(factor, x.unsqueeze(-2) - beliefs.mean[:, there])
        log_det = cholesky.log_det(factor) + len(there) * (0.5 * widening).log()
        distance = move.square().sum(-1) / widening
        return student(distance, beliefs.df - dim + 1, log_det, len(there))
    some = beliefs._replace(mean=beliefs.mean[:, there])
    if isinstance(beliefs, DiagonalBelief):
        some = some._replace(rate=beliefs.rate[:, there])
    found: Tensor = some.student(x)
    return found
