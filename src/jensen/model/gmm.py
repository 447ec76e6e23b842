"""A Gaussian mixture with parameters: fit it, score with it, draw from it."""

import math
from collections.abc import Sequence
from typing import Any, Self, final

import torch
from torch import Tensor

from jensen.base import random
from jensen.base.errors import InputError, check_count, check_seed
from jensen.base.tree import tree_map
from jensen.em.fit import Step
from jensen.em.reseed import Reseed
from jensen.family import mixture
from jensen.family.mixture import Mixture
from jensen.family.moments import PseudoCounts
from jensen.family.structures import structure_of
from jensen.model import interop
from jensen.model.described import Described
from jensen.model.held_out import HeldOut
from jensen.model.informed import Informed
from jensen.model.many_fit import Asked, FittedMany, fit_many, is_many
from jensen.model.mixture_fit import Fitted, fit_mixture
from jensen.model.noise import covariances
from jensen.model.points import Points
from jensen.model.recipe import Recipe


@final
class GMM(Informed, Described):
    """p(x) = sum_k weight_k N(x; k), fitted by EM. Its float64 parameters are buffers, so
    `state_dict` holds plain tensors.

    Args:
        components: K.
        covariance: "full", "tied", "diag" or "spherical".
        seed: for starts and draws.
        init: "kmeans++" (the likeliest of five k-means from greedy k-means++ centres), "random" (K
            of the points, the data's variance or, where that is far less, that of the cells about
            them), `(K, D)` means, or a `Mixture` or fitted `GMM` to start from. Components that
            start alike stay alike.
        restarts: starts that are fitted together, as one batch; one that meets another goes no
            further. From the best, as many swaps of a component, and as many splits of one in exchange
            for another, are tried at a time, as long as one ends higher; the best is kept.
        tolerance: EM ends when a step gains less than this many nats per example; at 0 only after
            `max_iter`.
        max_iter: the most M-steps.
        prior: pseudo-counts for a maximum a posteriori fit; `variance` and `floor` in units of each
            column's variance. By default none, with the floor `family.floor.Rounding`: variances
            that say more than how the numbers were rounded.
        beta: temperatures of deterministic annealing, fitted one after another: `(4, 2, 1)`.
        missing: take NaN for missing values and marginalise them, rather than refuse them.
        accelerate: SQUAREM, which ends at the same kind of maximum in a fraction of the steps.
        warm_start: a later `fit` goes on from the parameters of the last.
        order: "mean" or "weight" sorts the components, by ascending mean (first coordinate first)
            or descending weight, so that labels agree between fits; None leaves them as they came.

    Attributes, after `fit`:
        history: a `Step` for each iteration. reseeded: the components that were started anew.
            converged, iterations.
        columns: the names of the columns of the frame it was fitted to, or None.
        collapsed: the components that ended on the floor, of copies of a point or of points in a
            plane.
        log_likelihood: of all points, nats. data: which they are. failure: why a fit could not proceed and kept its last
            good parameters, or None.

    >>> spread = torch.linspace(-1, 1, 50).unsqueeze(1)
    >>> x = torch.cat([spread - 3, spread + 3])
    >>> GMM(2, order="mean").fit(x).predict(torch.tensor([[-3.0], [3.0]]))
    tensor([0, 1])
    """

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
        prior: PseudoCounts | None = None,
        beta: float | Sequence[float] = 1.0,
        missing: bool = False,
        accelerate: bool = True,
        warm_start: bool = False,
        order: str | None = None,
    ) -> None:
        recipe = Recipe(
            components=components,
            covariance=covariance,
            seed=seed,
            # A module would become part of this one.
            init=init.mixture if isinstance(init, GMM) else init,
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
        super().__init__(components, covariance, recipe.structure)
        self.recipe = recipe
        self._unfitted()
        self.reseeded: list[Reseed] = []
        self.collapsed: list[int] = []
        self.log_likelihood = math.nan
        self.noisy = False

    @classmethod
    def of(cls, p: Mixture, **options: Any) -> Self:
        """The GMM with the parameters of `p`, a mixture without leading axes."""
        gmm = cls(len(p.log_weight), structure_of(p.components), **options)
        gmm.keep(p)
        return gmm

    def fit(self, x: Any, weights: Any = None, noise: Any = None, mask: Any = None) -> Self:
        """Fit to points `(N, D)`, of which each counts `weights` `(N,)` times.

        Of sets of points `(M, N, D)`, M fits are made as one batch, each equal to its own;
        parameters, `log_likelihood`, `converged`, `iterations` and `history` have a leading M, and
        `gmm[m]` is one of them. mask: `(M, N)`, true for each point that is there. With weights
        `(M, N)`, noise `(M, N, ...)`, restarts, a prior or another init they are made one after
        another, which takes as long as a loop.

        noise: the variances `(N, D)` or covariances `(N, D, D)` of an error that each point of an
            array has of its own; the mixture is that of points without it (extreme deconvolution,
            Bovy, Hogg & Roweis 2011). `log_likelihood` is that of the points with it.
        x: a tensor, a numpy array or memory map, a frame, or a DataLoader (see `Points`); only a
            chunk is held at a time.
        Raises `InputError` for points that no mixture can be fitted to, before any work.
        """
        if is_many(x) or mask is not None:
            return self._fit_many(x, weights, noise, mask)
        points = Points(x, weights, self._place.device, self.recipe.missing)
        before = None if self.log_weight is None or self.log_weight.dim() > 1 else self.mixture
        # A sixth faster on few points. What a loader makes, and may keep, is to be fit for
        # gradients.
        with torch.inference_mode(points.array):
            fitted = fit_mixture(self.recipe, points, before, covariances(noise, x, points))
        self.keep(fitted.mixture)
        self.noisy = noise is not None
        for name in Fitted._fields[1:]:
            setattr(self, name, getattr(fitted, name))
        return self

    def _fit_many(self, x: Any, weights: Any, noise: Any, mask: Any) -> Self:
        if not is_many(x):
            raise InputError("mask came with one set of points: expected x of (M, N, D)")
        fitted = fit_many(self.recipe, x, Asked(mask, weights, noise), self._place.device)
        self.keep(fitted.mixture)
        self.columns, self.data, self.noisy = None, "", noise is not None
        for name in FittedMany._fields[1:]:
            setattr(self, name, getattr(fitted, name))
        return self

    def __getitem__(self, fit: int) -> Self:
        """One of the fits to sets of points."""
        many = self.log_weight is not None and self.log_weight.dim() == 2
        if not many or not -len(self.log_weight) <= fit < len(self.log_weight):
            count = len(self.log_weight) if many else 0
            raise InputError(f"this GMM holds {count} fits of sets of points: there is no [{fit}]")
        one = type(self)(**self.recipe._asdict())
        one.keep(tree_map(lambda part: part[fit], self.mixture))
        whole: Any = self
        steps = torch.stack([*whole.history], -1)[fit]
        one.history = [Step(*step) for step in steps[~steps[:, 0].isnan()].tolist()]
        one.reseeded, one.collapsed = whole.reseeded[fit], whole.collapsed[fit]
        one.converged, one.iterations = bool(whole.converged[fit]), int(whole.iterations[fit])
        one.log_likelihood, one.failure = float(whole.log_likelihood[fit]), whole.failure[fit]
        one.noisy = self.noisy
        return one

    def belief(self, mean: Tensor, variance: Tensor, origin: Tensor) -> PseudoCounts:
        return self.recipe.pseudo_counts(variance, origin, shared=True)

    @property
    def _one(self) -> Mixture:
        """The mixture, of one fit."""
        p = self.mixture
        if p.log_weight.dim() > 1:
            raise InputError(
                f"this GMM holds {len(p.log_weight)} fits of sets of points: expected one; take one"
                " of them, such as gmm[0]"
            )
        return p

    @property
    def _held_out(self) -> HeldOut:
        return HeldOut(self._one, self.recipe.missing, self.columns)

    # ---- drawing and taking apart ---------------------------------------------------------------

    def sample(self, n: int, seed: int | None = None) -> Tensor:
        """`(n, D)` draws in the parameters' dtype; the same every time for one seed, by default
        that of the GMM.
        """
        check_count("n", n, least=0)
        if seed is not None:
            check_seed("seed", seed)
        p = self._one
        key = self.recipe.seed if seed is None else seed
        index = torch.arange(n, device=self.mean.device)
        uniform = random.uniform(random.fold(key, "component"), index, (), torch.float64)
        noise = random.normal(random.fold(key, "noise"), index, self.mean.shape[1:], torch.float64)
        return mixture.sample(p, uniform, noise)

    def marginal(self, dims: Sequence[int | str]) -> Mixture:
        """The mixture of the coordinates `dims`, in that order."""
        return self._held_out.marginal(dims)

    def conditional(self, dims: Sequence[int | str], values: Any) -> Mixture:
        """The mixture of the other coordinates given that `dims` have `values`, `(len(dims),)` or
        `(N, len(dims))`.

        Of N values the result has N as its leading axis. `family.mixture.mean` of it is the
        regression on `dims`.
        """
        return self._held_out.conditional(dims, values)

    # ---- other libraries ------------------------------------------------------------------------

    @classmethod
    def from_sklearn(cls, fitted: Any, **options: Any) -> Self:
        """The GMM with the parameters of a fitted `sklearn.mixture.GaussianMixture`."""
        return cls.of(interop.from_sklearn(fitted), **options)

    def to_sklearn(self) -> Any:
        """A fitted `sklearn.mixture.GaussianMixture` with these parameters; scikit-learn must be
        installed.
        """
        return interop.to_sklearn(self._one, self.converged, self.iterations)
