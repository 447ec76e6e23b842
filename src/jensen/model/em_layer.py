"""EM inside a network: sets of points in, the parameters of a mixture for each set out, with
gradients.
"""

import warnings
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from jensen.base import random
from jensen.base.errors import InputError, check_choice, check_count, check_number, check_seed
from jensen.base.tree import tree_map, tree_where
from jensen.em import implicit as fixed_point
from jensen.em.coordinates import coordinates, mixture_at
from jensen.family.mixture import Mixture, log_joint, logsumexp
from jensen.family.moments import PseudoCounts
from jensen.family.structures import STRUCTURES
from jensen.model.sets import check_prior, check_shapes, check_values

GRADIENTS = ("unroll", "implicit", "one_step", "none")
PRIOR = PseudoCounts(weight=1.0, covariance=1.0)
"""One point for each component and one of variance 1 for each covariance: then every set has finite
values and gradients.
"""

RESIDUAL_LIMIT = 1e-3
"""Implicit gradients are of a fixed point; a step that still moves the parameters by more than this
is far from one.
"""

_UNROLLED = 5
_CONVERGED = 1000
"""Steps by default: unrolled, and at most when run to convergence."""

_TOLERANCE = 1e-6

_RTOL = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Relative tolerance of the linear system, by the dtype of the results."""


class ImplicitGradientWarning(UserWarning):
    """An implicit gradient is inaccurate, because EM or the linear solve stopped too early."""


class EMResult(NamedTuple):
    """`EMLayer`'s word on B sets of N points with D dimensions.

    mixture: the parameters after the last step, with the leading axis B.
    responsibilities: `(B, N, K)`, p(k|x) under them; 0 at masked points.
    log_likelihood: `(B,)`, nats per example: the mean of log p(x) over a set's points, weighted; 0
        for a set without any.
    residual: `(B,)`, how far one more step would move the parameters, in `em.coordinates`: standard
        deviations and logarithms, so it has no units. A constant to gradients.
    """

    mixture: Mixture
    responsibilities: Tensor
    log_likelihood: Tensor
    residual: Tensor


@final
class EMLayer(nn.Module):
    """EM as a layer: it pools each set of points, in any order, to a mixture fitted to it.

    The result does not depend on the order of the points, nor on what else is in the batch. EM runs
    in float64 whatever the dtype of x, also under autocast; results have that of x, or float32
    where x is narrower.

    Args:
        components: K.
        dim: D.
        covariance: "full", "tied", "diag" or "spherical".
        steps: the number of EM steps; the most steps where there is a tolerance. By default 5, or
            1,000 with a tolerance.
        gradient: how it passes through EM.
            "unroll": exactly, through every step; memory grows with the steps. The default for up
            to 5 steps. "implicit": that of the fixed point, by at most 25 vector-Jacobian products,
            each of one step, or of up to 16 where EM converges slowly, in memory that does not grow
            with `steps`. The default otherwise. It is right only at
            convergence: see `EMResult.residual`; a residual above `RESIDUAL_LIMIT` warns, once. It
                cannot be differentiated
            again.
            "one_step": that of the last step alone (Bolte, Pauwels & Vaiter 2023, arXiv
            2305.13768): cheapest, and off by the fraction of missing information, so good for well
            separated components. "none": the mixture is a constant; responsibilities and
            log-likelihood still depend on x.
        tolerance: a set stops when its residual is at most this. By default 1e-6 for "implicit" and
            "one_step", and none, which is exactly `steps` steps, for "unroll" and "none". An
            implicit gradient errs by about this much divided by 1 - the rate of convergence.
            Unrolling has the gradient of the steps that were taken: of a single step for a set
            whose start has converged already.
        starts: "learned" are parameters of this layer, the same for all sets; "given" are passed to
            `forward`. Components that start alike stay alike.
        prior: pseudo-counts of a maximum a posteriori fit, `PRIOR` by default, with the variance in
            units of x. Without any for the covariance, one that collapses has no gradient. It has
            no floor, for the same reason.
        seed: of the learned starts: means drawn from N(0, I), variances 1, equal weights. Only
            "unroll" has gradients for them: where EM converges to does not depend on small changes
            of its start. Otherwise they are constants.
    """

    def __init__(
        self,
        components: int,
        dim: int,
        covariance: str = "diag",
        *,
        steps: int | None = None,
        gradient: str | None = None,
        tolerance: float | None = None,
        starts: str = "learned",
        prior: PseudoCounts = PRIOR,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_count("components", components)
        check_count("dim", dim)
        check_choice("covariance", covariance, list(STRUCTURES))
        check_choice("starts", starts, ("learned", "given"))
        check_seed("seed", seed)
        if steps is not None:
            check_count("steps", steps)
        if tolerance is not None:
            check_number("tolerance", tolerance, low=0)
        if gradient is None:
            gradient = (
                "unroll" if tolerance is None and (steps or _UNROLLED) <= _UNROLLED else "implicit"
            )
        check_choice("gradient", gradient, GRADIENTS)
        if tolerance is None and gradient in ("implicit", "one_step"):
            tolerance = _TOLERANCE
        check_prior(prior, dim)
        self.components = components
        self.dim = dim
        self.covariance = covariance
        self.gradient = gradient
        self.starts = starts
        self.steps = steps or (_UNROLLED if tolerance is None else _CONVERGED)
        self.tolerance = tolerance
        self._pseudo_counts = prior.weight, prior.covariance
        self.register_buffer("prior_variance", torch.as_tensor(prior.variance, dtype=torch.float64))
        self._structure = STRUCTURES[covariance]
        self._warned = False
        if starts == "learned":
            mean = random.normal(random.fold(seed, "em_layer"), torch.arange(components), (dim,))
            shape = self._structure.at(mean, torch.ones(dim))[1]
            if "scale_tril" in self._structure._fields:
                shape = torch.zeros_like(shape)  # the logarithm of the diagonal
            learn = (
                gradient == "unroll"
            )  # a parameter that never gets a gradient would stop DistributedDataParallel
            self.start_log_weight = nn.Parameter(torch.zeros(components), learn)
            self.start_mean = nn.Parameter(mean, learn)
            self.start_shape = nn.Parameter(shape.clone(), learn)

    @property
    def start(self) -> Mixture:
        """The learned start, without leading axes, float64."""
        if self.starts == "given":
            raise InputError('this EMLayer has no start of its own: make it with starts="learned"')
        shape = self.start_shape.double()
        if "scale_tril" in self._structure._fields:
            shape = shape.tril(-1) + shape.diagonal(dim1=-2, dim2=-1).exp().diag_embed()
        return Mixture(
            self.start_log_weight.double().log_softmax(-1),
            self._structure(self.start_mean.double(), shape),
        )

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
        start: Mixture | None = None,
    ) -> EMResult:
        """Fit a mixture to each of B sets `(B, N, D)`.

        mask: `(B, N)` bool, False where there is no point; whatever stands there, NaN too, has no
            effect and no gradient.
        weights: `(B, N)`, how many times each point counts, at least 0.
        start: with starts="given", a `Mixture` with or without the leading axis B. Gradients reach
            it under "unroll".

        A set without any points, or with weights of 0 only, keeps its start and has zero gradients.
        """
        check_shapes(self, x, mask, weights, start)
        dtype = torch.promote_types(x.dtype, torch.float32)
        rtol = _RTOL[dtype]
        with torch.autocast(x.device.type, enabled=False):
            points = x.double()
            counts = x.new_ones(x.shape[:2], dtype=torch.float64)
            if weights is not None:
                counts = weights.to(x.device).double()
            if mask is not None:
                mask = mask.to(x.device)
                # Zeroed as well as given no weight: 0 * NaN is NaN.
                points = points.where(mask.unsqueeze(-1), 0.0)
                counts = counts.where(mask, 0.0)
            first = self._first(start, x)
            occupied = counts.detach().sum(-1) > 0
            if check_values(self, points, counts, occupied, first):
                p, residual = self._fit(points, counts, first, rtol)
            else:  # only sets with points are fitted; the others are no part of any gradient
                at = occupied.nonzero().flatten()
                found, moved = self._fit(
                    points[at], counts[at], tree_map(lambda part: part[at], first), rtol
                )
                p = tree_map(lambda old, new: old.detach().index_copy(0, at, new), first, found)
                residual = counts.new_zeros(len(counts)).index_copy(0, at, moved)
            joint = log_joint(points, p)
            r = joint.softmax(-1)
            share = counts / counts.sum(-1, keepdim=True).where(occupied.unsqueeze(-1), 1.0)
            log_likelihood = (share * logsumexp(joint, -1)).sum(-1)
            if mask is not None:
                r = r.where(mask.unsqueeze(-1), 0.0)
        return EMResult(
            tree_map(lambda part: part.to(dtype), p),
            r.to(dtype),
            log_likelihood.to(dtype),
            residual.to(dtype),
        )

    def extra_repr(self) -> str:
        tolerance = "" if self.tolerance is None else f", tolerance={self.tolerance:g}"
        return (
            f"components={self.components}, dim={self.dim}, covariance={self.covariance!r},"
            f" steps={self.steps}, gradient={self.gradient!r}{tolerance}, starts={self.starts!r}"
        )

    # ---- EM -------------------------------------------------------------------------------------

    @property
    def prior(self) -> PseudoCounts:
        """With the variance in float64, on the layer's device."""
        variance: Tensor = self.prior_variance  # type: ignore[assignment]
        return PseudoCounts(*self._pseudo_counts, variance.double())

    def _fit(self, x: Tensor, counts: Tensor, p: Mixture, rtol: float) -> tuple[Mixture, Tensor]:
        """The mixtures `(B, K)` of sets that have points, and their residuals `(B,)`."""
        try:
            if self.gradient == "unroll":
                p = self._run(x, counts, p)
                return p, self._residual(x, counts, p)
            with torch.no_grad():
                p = self._run(x, counts, p)
            if self.gradient == "none" or not torch.is_grad_enabled():
                return p, self._residual(x, counts, p)
            return self._last_step(x, counts, p, rtol)
        except torch.linalg.LinAlgError as error:
            raise InputError(
                "a covariance of the mixture is singular: expected points that spread in every"
                f" direction; use PseudoCounts(covariance=1.0), or more points ({error})"
            ) from None

    def _run(self, x: Tensor, counts: Tensor, p: Mixture) -> Mixture:
        prior = self.prior
        for _ in range(self.steps):
            new = fixed_point.step(x, p, weights=counts, prior=prior)
            if self.tolerance is None:
                p = new
                continue
            # A set that has converged stays, so that its result does not depend on the rest of the
            # batch.
            with torch.no_grad():
                moving = coordinates(new, p).norm(dim=-1) > self.tolerance
            p = tree_where(moving, new, p)
            if not bool(moving.any()):
                break
        return p

    @torch.no_grad()
    def _residual(self, x: Tensor, counts: Tensor, p: Mixture) -> Tensor:
        return coordinates(fixed_point.step(x, p, weights=counts, prior=self.prior), p).norm(dim=-1)

    def _last_step(
        self, x: Tensor, counts: Tensor, p: Mixture, rtol: float
    ) -> tuple[Mixture, Tensor]:
        """`p` with the gradient of one step from it, or of the fixed point it is."""
        prior = self.prior
        residual = self._residual(x, counts, p)
        times: int | Tensor = 1
        if self.gradient == "implicit":
            times = fixed_point.steps_in_one(x.detach(), p, weights=counts.detach(), prior=prior)
        theta = coordinates(fixed_point.step(x, p, weights=counts, prior=prior, times=times), p)
        if not theta.requires_grad:
            return p, residual
        if self.gradient == "implicit":
            self._check_residual(residual)

            def move(theta: Tensor, x: Tensor, counts: Tensor) -> Tensor:
                # A component without any points stays at p: it is no function of theta.
                at = mixture_at(theta, p)
                following = fixed_point.step(
                    x, at, weights=counts, prior=prior, kept=p, times=times
                )
                return coordinates(following, p)

            theta = fixed_point.implicit(
                theta, move, (x.detach(), counts.detach()), rtol=rtol, report=self._check_solution
            )
        return mixture_at(theta - theta.detach(), p), residual

    def _check_residual(self, residual: Tensor) -> None:
        if not self._warned and bool((residual > RESIDUAL_LIMIT).any()):
            self._warn(
                f"EM has not converged: after {self.steps} steps one more moves the parameters of"
                f" a set by {residual.max().item():.2g}, and an implicit gradient expects at most"
                f" {RESIDUAL_LIMIT:g}; raise steps, or"
                ' use gradient="unroll"'
            )

    def _check_solution(self, error: Tensor) -> None:
        if not self._warned and bool((error > RESIDUAL_LIMIT).any()):
            self._warn(
                f"the linear system of an implicit gradient is solved to {error.max().item():.2g}"
                f" only, after {fixed_point.MOST_PRODUCTS} products, since EM converges too"
                " slowly; use fewer components, or"
                ' gradient="unroll"'
            )

    def _warn(self, message: str) -> None:
        self._warned = True
        warnings.warn(message, ImplicitGradientWarning, stacklevel=2)

    # ---- input ----------------------------------------------------------------------------------

    def _first(self, start: Mixture | None, x: Tensor) -> Mixture:
        """The start of each set, `(B, K)`, float64."""
        p = self.start if start is None else start
        lead = p.components.mean.dim() == 2

        def each(part: Tensor) -> Tensor:
            part = part.to(x.device).double()
            return part.expand(len(x), *part.shape) if lead else part

        p = tree_map(each, p)
        return p._replace(log_weight=p.log_weight.log_softmax(-1))
