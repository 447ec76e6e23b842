"""A mixture of Gaussians, and how well its points know its parameters."""

from typing import Any

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_choice
from jensen.em import information
from jensen.em.collapse import on_floor
from jensen.em.information import KINDS, Convergence, Plain
from jensen.family.moments import FLAT
from jensen.model.parameters import Parameters
from jensen.model.points import Points


class Informed(Parameters):
    """`Parameters` with their Fisher information and what follows from it."""

    collapsed: list[int]
    noisy: bool

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of the free parameters, `(P,)`: the first K - 1 weights, the means, and the
        variances or lower triangles of covariances, as `covariance[1,0,0]`: component, row, column.
        """
        return Plain(self.mixture).names

    def fisher(self, x: Any, which: str = "observed", weights: Any = None) -> Tensor:
        """The Fisher information of the points `x` `(N, D)`, `(P, P)` float64, in the order of
        `parameter_names`.

        Args:
            x: points, as for `log_prob`; what is missing counts by its marginal.
            which: "observed", minus the second derivatives of log p(x); "opg", the sum of scores
                times scores; "expected", that of as many draws of the mixture itself (exact in one
                dimension, 131,072 stratified draws in more).
            weights: `(N,)`, how often each point counts.

        >>> from jensen.model.gmm import GMM
        >>> x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
        >>> x = (x - x.mean()) / x.std(correction=0)
        >>> GMM(1).fit(x).standard_errors(x)  # sqrt(1 / N) and sqrt(2 / N)
        tensor([0.0500, 0.0707], dtype=torch.float64)
        """
        check_choice("which", which, KINDS)
        points, counts = self._points(x, weights)
        if which == "expected":
            return information.expected(float(counts.sum()), self.mixture, self.recipe.seed)
        made = information.observed if which == "observed" else information.opg
        return made(points, self.mixture, counts)

    def standard_errors(self, x: Any, which: str = "observed", weights: Any = None) -> Tensor:
        """The standard error of each parameter, `(P,)` float64: roots of the inverse information's
        diagonal, in the order of `parameter_names`.

        They say how far a fit to other points of the same source would come to lie, where there are
        enough of them; not whether K is right.

        Raises:
            InputError: a component on the floor, or without points, or parameters that are no
                maximum, of which there are no standard errors.
        """
        self._check_inside(float(self._points(x, weights)[1].sum()))
        found = information.covariance(self.fisher(x, which, weights))
        if found is None and which == "expected":
            raise InputError(
                "the expected information is not positive definite: expected components that differ,"
                " for their parameters to have standard errors; fit fewer"
            )
        if found is None:
            raise InputError(
                "the information of x is not positive definite at these parameters: expected a"
                " maximum of the likelihood of x; fit to x, with a smaller tolerance or fewer"
                " components"
            )
        return found.diagonal().sqrt()

    def information_missing(self, x: Any, weights: Any = None) -> float:
        """The largest part of the information in any direction that is lost since components are
        not seen, of 0 to 1: the largest eigenvalue of 1 - complete^-1 observed.

        It is the rate of plain EM, by which each step is shorter than the last: see `em_rate`.
        Dempster, Laird & Rubin 1977.
        """
        points, counts = self._points(x, weights)
        self._check_inside(float(counts.sum()))
        return float(information.rates(points, self.mixture, counts)[-1])

    def em_rate(self, x: Any, weights: Any = None) -> float:
        """The measured ratio of successive steps of plain EM near these parameters; by its square
        the gains fall.
        """
        points, counts = self._points(x, weights)
        self._check_inside(float(counts.sum()))
        return information.measured_rate(points, self.mixture, counts, self.recipe.seed)

    def convergence(self, x: Any, weights: Any = None) -> Convergence:
        """The information missing beside the measured ratios of successive steps and gains of plain
        EM; printed, a line of each.

        >>> from jensen.model.gmm import GMM
        >>> x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
        >>> x[:200] += 3
        >>> print(GMM(2, "tied", tolerance=1e-9).fit(x).convergence(x))
        each of EM's steps, of the last: 0.6446 by information missing, 0.6446 measured
        each of EM's gains, of the last: 0.4155 by information missing, 0.4155 measured
        """
        points, counts = self._points(x, weights)
        self._check_inside(float(counts.sum()))
        return information.convergence(points, self.mixture, counts, self.recipe.seed)

    def _total(self, x: Any) -> tuple[float, int]:
        if self.noisy:
            raise InputError(
                "this GMM was fitted to points with noise, and a criterion is of points without:"
                " expected log_likelihood, which counts the noise, in its place; compare by that"
            )
        return super()._total(x)

    def _points(self, x: Any, weights: Any) -> tuple[Tensor, Tensor]:
        if self.noisy:
            raise InputError(
                "this GMM was fitted to points with noise: expected one of points without, whose"
                " information is that of log_prob; fit without noise, or take the curvature of your"
                " own likelihood"
            )
        points = self._held_out.points(x)
        if weights is None:
            return points, torch.ones(len(points)).to(self.log_weight)
        counted = Points(x, weights, self.log_weight.device, self.recipe.missing)
        return points, torch.cat(
            [w for _, w in counted.chunks(1 << 16) if w is not None]
        ) * counted.unit

    def _check_inside(self, count: float) -> None:
        """Refuse parameters on the edge of what they may be, where likelihoods have no
        curvature.
        """
        p = self.mixture
        few = (p.log_weight.exp() * count < 1).nonzero().flatten().tolist()
        if few:
            raise InputError(
                f"component {few[0]} has {float(p.log_weight[few[0]].exp()) * count:.2g} points:"
                " expected at least one, for its parameters to have standard errors; fit fewer"
                " components"
            )
        floor = (FLAT if self.recipe.prior is None else self.recipe.prior).floor
        narrow = self.collapsed or on_floor(p, floor).nonzero().flatten().tolist()
        if narrow:
            raise InputError(
                f"component {narrow[0]} is on the floor of its covariance: expected one inside, for"
                " its parameters to have standard errors; fit fewer components, or remove copies"
                " and outliers from x"
            )
