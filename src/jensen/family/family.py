"""A distribution as a value: what a posterior, a prior and a mixture's components are asked,
whatever family they are of.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, Self, cast, runtime_checkable

from torch import Tensor

from jensen.base.errors import InputError
from jensen.base.tree import tree_map
from jensen.family import algebra, gaussian
from jensen.family.codes import Codes
from jensen.family.flowed import FlowedGaussian
from jensen.family.full import Factored, FullGaussian, full
from jensen.family.gaussian import Gaussian
from jensen.family.moments import FLAT, Moments

_FLOW = "model/posterior=flow"


class Family(Protocol):
    """A distribution of events `(D,)`."""

    def log_prob(self, x: Tensor) -> Tensor:
        """The density's logarithm, `(N, D)` to `(N,)`, nats."""
        ...

    def marginal(self, latent: int) -> "Family | None":
        """The distribution of one coordinate, of events `(1,)`; None where it is unknown."""
        ...


@runtime_checkable
class Posterior(Protocol):
    """A distribution of each of B examples, of events `(D,)`, that can be drawn from with gradient:
    a NamedTuple of tensors.
    """

    @property
    def mean(self) -> Tensor:
        """`(B, D)`, the code."""
        ...

    def log_prob(self, x: Tensor) -> Tensor:
        """`(B, D)` to `(B,)`, nats."""
        ...

    def rsample(self, noise: Tensor) -> Tensor:
        """A draw from standard normal `noise`, `(B, D)`."""
        ...


@runtime_checkable
class Drawable(Protocol):
    """A distribution that turns standard normal noise into draws."""

    def rsample(self, noise: Tensor) -> Tensor:
        """`(B, D)` to `(B, D)`."""
        ...


class Layout(Protocol):
    """The sufficient statistics of points with `dim` coordinates, as a column of `width` numbers:
    1, the point, and others.
    """

    dim: int
    width: int
    common: int
    """The size c of `shared`."""

    def fill(self, x: Tensor, out: Tensor) -> None:
        """Fill `out` `(P, N)`, whose first row is 1 and whose next D rows hold the points, `x` `(D,
        N)`.
        """
        ...

    def shared(self, features: Tensor, weight: Tensor | None) -> Tensor | None:
        """The sums over points, `(c, c)` float64, of what enters the log-likelihood and no
        responsibility; None where there is nothing.
        """
        ...

    def collect(self, sums: Tensor, shared: Tensor | None) -> Moments:
        """Moments about 0 from `sums` of r * statistics, `(..., K, P)`, and the `shared` sums,
        `(..., c, c)`.
        """
        ...


class GaussianLayout(Layout, Protocol):
    """The layout of Gaussians, whose sums can be made of moments."""

    def pack(self, total: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """The `sums` for `collect` from moments about 0 that hold all of `second`, `(..., K, D,
        D)`.
        """
        ...


class Components(Protocol):
    """The components of a mixture: K distributions of events `(D,)`, of one exponential family, log
    p(x; k) = natural_k . statistics(x) + log base(x).

    They are a NamedTuple of tensors, the first of them the mean, with any leading axes `...`: a
    stack of mixtures, such as several starts of one fit. Sums over points are taken about a point
    near the means, in float64, so moving the data by 1e6 moves the means and changes nothing else.
    `log_density` and `moments` are plain, differentiable torch; `natural` and `layout` are the same
    mathematics as matrix products for `em.stream`. Results are promoted to the wider dtype of the
    arguments, computed in float64.
    """

    @property
    def mean(self) -> Tensor:
        """`(..., K, D)`."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """The parameters: tensors, or tuples of them."""
        ...

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x; k), `(..., N, D)` to `(..., N, K)`, nats."""
        ...

    def moments(self, x: Tensor, r: Tensor) -> Moments:
        """The moments of `x` `(..., N, D)` under weights `r` `(..., N, K)`: responsibilities times
        any weights of the points.

        A point with `r` = 0 must still be finite: 0 * NaN is NaN.
        """
        ...

    def maximise(self, m: Moments, prior: Any = FLAT) -> Self:
        """The closed-form maximum of sum r log p(x; k) + log `prior`, `PseudoCounts` or what the
        family has for them; a component without any points stays as it is.

        Bishop 2006, eq. 9.24-9.25, and 10.61-10.63 for the pseudo-counts. Raises torch's
        LinAlgError where a covariance is not positive definite and `prior` has neither floor nor
        pseudo-counts.
        """
        ...

    def log_prior(self, prior: Any) -> Tensor:
        """log density of all but weights and means under `prior`, `(...)`, nats, up to a
        constant.
        """
        ...

    def natural(self) -> Tensor:
        """`(..., K, P)`: log p(x; k) = natural_k . statistics(x), but for what `common` adds."""
        ...

    def common(self, shared: Tensor) -> Tensor | None:
        """The part of sum log p(x; k) that is the same for all components, so that no
        responsibility depends on it, from the layout's `shared` sums, `(...)`; None for none.
        """
        ...

    def layout(self, dim: int) -> Layout:
        """The layout of the statistics of a point with `dim` coordinates."""
        ...

    def free(self, about: Self) -> Tensor:
        """Coordinates `(..., F)` without constraints or units, zero at `about`: how many deviations
        of its component there a mean moves, and the logarithm of how much wider a component is.

        A linear map of the data does not change them.
        """
        ...

    def of_free(self, free: Tensor) -> Self:
        """The components whose coordinates about these are `free`."""
        ...


class GaussianComponents(Components, Protocol):
    """Components that are Gaussians, of any covariance structure."""

    def marginals(self) -> Gaussian:
        """Gaussians with each component's own mean and variance in each dimension, `(..., K,
        D)`.
        """
        ...

    def cholesky(self) -> Tensor:
        """The factor of each covariance, `(..., K, D, D)`."""
        ...

    @classmethod
    def at(cls, mean: Tensor, variance: Tensor) -> Self:
        """Components at `mean` `(..., K, D)` that all have the covariance diag(variance),
        `(D,)`.
        """
        ...

    def layout(self, dim: int) -> GaussianLayout: ...


_FACTORED: dict[type, bool] = {}
"""Whether components of a type are Gaussians: to ask a protocol takes longer than a kernel."""


def are_gaussians(components: object) -> bool:
    """Tell whether components are Gaussians."""
    family = type(components)
    if family not in _FACTORED:
        _FACTORED[family] = isinstance(components, Factored)
    return _FACTORED[family]


def gaussians(components: Components) -> GaussianComponents:
    """The components, where only Gaussians will do.

    Raises:
        InputError: they are of another family.
    """
    if not are_gaussians(components):
        full(components)
    return cast(GaussianComponents, components)


class Product(NamedTuple):
    """Independent coordinates: D distributions of events `(1,)`, one value with the leading axis
    D.
    """

    factors: Any

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), `(N, D)` to `(N,)`, nats."""
        each: Tensor = self.factors.log_prob(x.mT.unsqueeze(-1))
        return each.sum(0)

    def marginal(self, latent: int) -> Any:
        """The distribution of one coordinate, of events `(1,)`."""
        return tree_map(lambda part: part[latent], self.factors)


@runtime_checkable
class DrawnWithDensity(Protocol):
    """A posterior whose draws come with their density, which is dear at other points."""

    def rsample_and_log_prob(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """z `(B, D)` from standard normal `noise`, `(B, D)`, and log q(z) `(B,)`, nats."""
        ...


def is_standard(p: object) -> bool:
    """Tell whether it is N(0, I)."""
    return isinstance(p, Gaussian) and not any(bool(part.any()) for part in p)


def kl(q: object, p: object) -> Tensor | None:
    """KL(q || p), `(B,)`, nats, in closed form; None for a pair that has none."""
    if isinstance(q, Gaussian) and isinstance(p, Gaussian):
        return gaussian.kl(q, p).sum(-1)
    if isinstance(q, Gaussian | FullGaussian) and isinstance(p, Gaussian | FullGaussian):
        return algebra.kl(_full(q, q), _full(p, q))
    return None


def entropy(q: Gaussian | FullGaussian) -> Tensor:
    """Differential entropy, `(B,)`, nats."""
    return gaussian.entropy(q).sum(-1) if isinstance(q, Gaussian) else algebra.entropy(q)


def _full(p: Gaussian | FullGaussian, like: Gaussian | FullGaussian) -> FullGaussian:
    """With a covariance matrix, of the shape of `like` where it is broadcast."""
    if isinstance(p, FullGaussian):
        return p
    mean = p.mean.expand_as(like.mean)
    return FullGaussian(mean, (0.5 * p.log_var).exp().expand_as(mean).diag_embed())


def diagonal(posterior: object, who: str) -> Gaussian:
    """The posterior, for a formula that holds for diagonal Gaussians alone.

    Raises:
        InputError: it is of another family, which `who` cannot take.
    """
    if isinstance(posterior, Gaussian):
        return posterior
    raise InputError(
        f"{who} needs a diagonal Gaussian and {giver(type(posterior))} gives"
        f" {noun(type(posterior))}: expected a jensen.Gaussian; {remedy(type(posterior))}, or leave"
        " that out"
    )


def marginals(posterior: object, who: str) -> Gaussian:
    """The diagonal Gaussian with the posterior's marginals, for what asks each latent alone.

    Raises:
        InputError: its marginals are not Gaussian, which `who` cannot take.
    """
    if isinstance(posterior, Gaussian | FullGaussian):
        return posterior.marginals()
    raise InputError(
        f"{who} needs Gaussian marginals and {giver(type(posterior))} gives"
        f" {noun(type(posterior))}: expected a jensen.Gaussian or a jensen.FullGaussian;"
        f" {remedy(type(posterior))}, or leave that out"
    )


def giver(posterior: type) -> str:
    """The part of a model that makes posteriors of this family."""
    if posterior is Codes:
        return "the run of a mixture, or a file of codes without log_var,"
    return _FLOW if posterior is FlowedGaussian else "model.encoder"


def noun(posterior: type) -> str:
    """The words for posteriors of this family."""
    return "codes alone" if posterior is Codes else f"a {posterior.__name__}"


def remedy(posterior: type) -> str:
    """The change of the configuration after which posteriors are of another family."""
    if posterior is Codes:
        return "take the run of a VAE, or codes with log_var"
    return f"leave {_FLOW} out" if posterior is FlowedGaussian else "choose another encoder"
