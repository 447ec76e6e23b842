"""Mixtures with parameters, and what each says of points, whatever its components are."""

import math
from abc import ABC, abstractmethod
from typing import Any, Protocol

from torch import Tensor, nn

from jensen.bound.bound import Bound
from jensen.em import steps as em
from jensen.em.steps import Prior
from jensen.family.mixture import Mixture
from jensen.model.points import Survey


class Recipe(Protocol):
    """The arguments that a fit was asked for with, as `algorithm=em` reads them."""

    @property
    def seed(self) -> int: ...

    @property
    def missing(self) -> bool: ...


class HeldOut(Protocol):
    """A mixture and the points that it is asked about."""

    @property
    def mixture(self) -> Mixture: ...

    def points(self, x: Any) -> Tensor:
        """`x` as a tensor `(N, D)`, or a sentence of why it is none."""
        ...

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, k), `(N, D)` to `(N, K)`."""
        ...

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), `(N, D)` to `(N,)`."""
        ...

    def total(self, x: Any) -> tuple[float, int]:
        """The sum of log p(x) over points of any kind, and their number."""
        ...

    def responsibilities(self, r: Any, joint: Tensor) -> Tensor:
        """`r` as a tensor of the shape of `joint` `(N, K)`."""
        ...


class Climbed(nn.Module, ABC):
    """The part that `algorithm=em` needs of a mixture to fit it."""

    recipe: Any
    sample: Any

    @property
    @abstractmethod
    def mixture(self) -> Mixture:
        """The parameters as a value."""

    @property
    def state(self) -> Mixture:
        """The result of the M-step, which the E-step takes: the mixture, or a belief of it."""
        return self.mixture

    def in_order(self, x: Tensor) -> Tensor:
        """Points `(B, D)` with their columns in the order that the components have them in."""
        return x

    def as_given(self, x: Tensor) -> Tensor:
        """The inverse of `in_order`."""
        return x

    def check_values(self, x: Tensor) -> None:
        """Refuse values of `x` `(B, D)` that no component can have, in a sentence."""

    def origin_of(self, survey: Survey) -> Tensor:
        """The point that sums over points are taken about, `(D,)`, in the data's own dtype."""
        return survey.mean.to(survey.dtype)

    @abstractmethod
    def belief(self, mean: Tensor, variance: Tensor, origin: Tensor) -> Prior:
        """The belief of the parameters about `origin`, for points whose columns have this mean
        and variance, `(D,)` each.
        """

    @abstractmethod
    def assign(self, p: Mixture) -> None:
        """Take the parameters of `p`, in place."""


class Scored(Climbed):
    """A mixture's word on points, and how its last fit went.

    history: a `Step` for each iteration. columns: the names of the columns of the frame it was fitted to,
        or None. converged, iterations. failure: why the fit could not proceed, or None. data: which
        points they were, "" of none.
    """

    history: Any
    columns: tuple[str, ...] | None
    converged: Any
    iterations: Any
    failure: Any
    data: str

    def _unfitted(self) -> None:
        """Say that there was no fit yet."""
        self.history = []
        self.columns = None
        self.converged = False
        self.iterations = 0
        self.failure = None
        self.data = ""

    @property
    @abstractmethod
    def _held_out(self) -> HeldOut: ...

    @property
    @abstractmethod
    def parameter_count(self) -> int:
        """Free parameters, for `bic` and `aic`."""

    def log_prob(self, x: Any) -> Tensor:
        """log p(x), `(N, D)` to `(N,)`, nats; differentiable in x. Of missing values the
        marginal.
        """
        return self._held_out.log_prob(self._held_out.points(x))

    forward = log_prob

    def responsibilities(self, x: Any) -> Tensor:
        """p(k|x), `(N, D)` to `(N, K)`."""
        return self._held_out.log_joint(self._held_out.points(x)).softmax(-1)

    def predict(self, x: Any) -> Tensor:
        """The most probable component, `(N, D)` to `(N,)` int64."""
        return self._held_out.log_joint(self._held_out.points(x)).argmax(-1)

    def bound(self, x: Any, r: Any = None) -> Bound:
        """The bound on log p(x) at responsibilities `r` `(N, K)`, `(N,)` each part; by default
        where it is tight.

        Of missing values it is that on the marginal, as `log_prob` is.
        """
        joint = self._held_out.log_joint(self._held_out.points(x))
        r = joint.softmax(-1) if r is None else self._held_out.responsibilities(r, joint)
        log_weight = self._held_out.mixture.log_weight
        return em.bound_of(joint - log_weight, log_weight, r)

    def _total(self, x: Any) -> tuple[float, int]:
        """The log-likelihood that a criterion is made of, and the number of points."""
        return self._held_out.total(x)

    def bic(self, x: Any) -> float:
        """Bayesian information criterion, -2 log p(x) + parameters log N (Schwarz 1978); less is
        better.
        """
        total, count = self._total(x)
        return -2 * total + self.parameter_count * math.log(count)

    def aic(self, x: Any) -> float:
        """Akaike's information criterion, -2 log p(x) + 2 parameters (Akaike 1974); less is
        better.
        """
        return -2 * self._total(x)[0] + 2 * self.parameter_count

    def icl(self, x: Any) -> float:
        """Integrated completed likelihood, -2 log p(x, k) + parameters log N at the most probable k
        of each point (Biernacki, Celeux & Govaert 2000); less is better. It is `bic` and what overlap
        costs.
        """
        total, count = self._total(x)
        held_out = self._held_out
        joint = held_out.log_joint(held_out.points(x))
        unsure = float(-joint.log_softmax(-1).amax(-1).double().sum())
        return -2 * (total - unsure) + self.parameter_count * math.log(count)
