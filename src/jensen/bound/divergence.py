"""The divergences that have a name, of one distribution from another, in nats.

    kl                KL(p || q) = E_p log p/q
    jeffreys          KL(p || q) + KL(q || p)
    jensen_shannon    the mean KL of p and q to (p + q) / 2, at most log 2
    renyi             log I(alpha) / (alpha - 1),  I(alpha) = int p^alpha q^(1 - alpha)
    alpha             (I(alpha) - 1) / (alpha (alpha - 1))   (Amari 1985, in Minka's 2005 form)
    bhattacharyya     -log I(1/2)
    hellinger         sqrt(1 - I(1/2)), at most 1
    fisher            E_p |grad log p - grad log q|^2 / 2, in nats a squared unit of x

The first seven do not change under an affine map of the space; the Fisher divergence has a unit and
keeps its value under rotations alone. Gaussians of any covariance structure have closed forms, all
but `jensen_shannon`. Of mixtures none has: in one dimension `integral` is exact, in more
`estimate` has a standard error, and `bounds` hold the KL between two numbers.
"""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from jensen.base.errors import InputError, check_choice, check_count, check_number
from jensen.base.tree import tree_map
from jensen.bound import between, quadrature
from jensen.bound.quadrature import Line, Places
from jensen.family import algebra, cholesky, mixture
from jensen.family.family import gaussians
from jensen.family.full import FullGaussian, full
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture

NAMES = (
    "kl",
    "jeffreys",
    "jensen_shannon",
    "renyi",
    "alpha",
    "bhattacharyya",
    "hellinger",
    "fisher",
)

_EDGE = 1e-14
"""A pivot that is none."""


class Estimate(NamedTuple):
    """A mean over draws and its standard error, `()` each, nats."""

    value: Tensor
    standard_error: Tensor


# ---- Gaussians, in closed form ------------------------------------------------------------------


def kl(p: object, q: object) -> Tensor:
    """KL(p || q) of Gaussians `(..., D)`, `(...)`, nats.

    Raises:
        InputError: another family, which has no closed form.

    >>> p, q = (Gaussian(torch.tensor([m]).double(), torch.zeros(1).double()) for m in (0.0, 2.0))
    >>> kl(p, q)
    tensor(2., dtype=torch.float64)
    """
    return algebra.kl(_full(p), _full(q))


def jeffreys(p: object, q: object) -> Tensor:
    """KL(p || q) + KL(q || p) of Gaussians, `(...)`, nats (Jeffreys 1946)."""
    return kl(p, q) + kl(q, p)


def renyi(p: object, q: object, alpha: float) -> Tensor:
    """The Renyi divergence of order `alpha` >= 0 of Gaussians, `(...)`, nats; at 1 the KL.

    Inf where alpha v_q + (1 - alpha) v_p is not positive definite (Gil, Alajaji & Linder 2013).
    """
    _check_order("renyi", alpha)
    return kl(p, q) if alpha == 1 else log_affinity(p, q, alpha) / (alpha - 1)


def alpha(p: object, q: object, alpha: float) -> Tensor:
    """The alpha-divergence of Gaussians, `(...)`, at any order but 0 and 1; inf as `renyi`."""
    _check_order("alpha", alpha)
    return torch.expm1(log_affinity(p, q, alpha)) / (alpha * (alpha - 1))


def bhattacharyya(p: object, q: object) -> Tensor:
    """-log int sqrt(p q) of Gaussians, `(...)`, nats (Bhattacharyya 1943)."""
    return -log_affinity(p, q, 0.5)


def hellinger(p: object, q: object) -> Tensor:
    """The Hellinger distance of Gaussians, `(...)`, of 0 to 1; its square is 1 - int sqrt(p q)."""
    return (-torch.expm1(log_affinity(p, q, 0.5))).clamp(min=0).sqrt()


def fisher_divergence(p: object, q: object) -> Tensor:
    """E_p |grad log p - grad log q|^2 / 2 of Gaussians, `(...)` (Hyvarinen 2005)."""
    first, second = _full(p), _full(q)
    ours, theirs = cholesky.precision(first.scale_tril), cholesky.precision(second.scale_tril)
    spread = ((theirs - ours) @ first.scale_tril.double()).square().sum((-2, -1))
    shift = theirs @ (first.mean - second.mean).double().unsqueeze(-1)
    return 0.5 * (spread + shift.square().sum((-2, -1)))


def log_affinity(p: object, q: object, alpha: float) -> Tensor:
    """log int p^alpha q^(1 - alpha) of Gaussians, `(...)`, nats; inf where that has no limit.

    With R = L_p^-1 L_q and M = (1 - alpha) I + alpha R R' it is
    -alpha (1 - alpha) / 2 d' M^-1 d - log |M| / 2 + alpha log |R|, for d = L_p^-1 (m_q - m_p).
    """
    first, second = _full(p), _full(q)
    ratio: Tensor = torch.linalg.solve_triangular(first.scale_tril, second.scale_tril, upper=False)
    eye = torch.eye(ratio.shape[-1]).to(ratio)
    mixed = (1 - alpha) * eye + alpha * ratio @ ratio.mT
    factor, failed = torch.linalg.cholesky_ex(mixed)
    # on the edge itself too, where a pivot is all rounding
    infinite = (failed != 0) | (factor.diagonal(dim1=-2, dim2=-1).square().amin(-1) < _EDGE)
    factor = torch.where(infinite[..., None, None], eye, factor)
    move = cholesky.solve(first.scale_tril, second.mean - first.mean)
    distance = cholesky.solve(factor, move.expand(factor.shape[:-1])).square().sum(-1)
    logs = ratio.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    value = -0.5 * alpha * (1 - alpha) * distance - 0.5 * cholesky.log_det(factor) + alpha * logs
    return torch.where(infinite, math.inf, value)


def _full(p: object) -> FullGaussian:
    if isinstance(p, Mixture):
        raise InputError(
            "a divergence of mixtures has no closed form: expected Gaussians; use"
            " divergence.estimate, or divergence.integral in one dimension"
        )
    return full(p)


def _check_order(which: str, order: float | None) -> None:
    if order is None:
        raise InputError(f"{which} needs an order: expected alpha, as in alpha=0.5")
    check_number("alpha", order, low=0 if which == "renyi" else -math.inf)
    if which == "alpha" and order in (0, 1):
        other = "kl(p, q)" if order == 1 else "kl(q, p)"
        raise InputError(
            f"alpha is {order:g}, where the alpha-divergence is a limit: expected another number;"
            f" use {other}"
        )


# ---- mixtures -----------------------------------------------------------------------------------


def jensen_shannon(p: object, q: object) -> Tensor:
    """The Jensen-Shannon divergence in one dimension, `()`, nats, by quadrature.

    In more there is no such sum: see `estimate`.
    """
    return integral(p, q, "jensen_shannon")


def integral(p: object, q: object, which: str = "kl", alpha: float | None = None) -> Tensor:
    """Any divergence of the module in one dimension, `()`, nats, float64, by quadrature.

    To 1e-10 of the larger of what it is a difference of, at any scales: see `bound.quadrature`.

    Args:
        p: a Gaussian of any structure, or a mixture of them, of events `(1,)`.
        q: another.
        which: one of `NAMES`.
        alpha: the order, of `renyi` and `alpha`.

    Raises:
        InputError: more than one dimension, or mixtures for which quadrature does not settle.
    """
    found = settled(p, q, which, alpha)
    if found is None:
        raise InputError(
            f"the {which} of these mixtures cannot be integrated to rounding: expected numbers that"
            " float64 holds the squares of; use divergence.estimate, which has a standard error"
        )
    return found


def settled(p: object, q: object, which: str = "kl", alpha: float | None = None) -> Tensor | None:
    """`integral`, or None where quadrature does not settle."""
    _check(which, alpha)
    first, second = (quadrature.line(_mixture(each)) for each in (p, q))

    def fisher(at: Places) -> tuple[Tensor, Tensor]:
        slopes = first.slope(at), second.slope(at)
        density = first.log_prob(at).exp()
        gap = 0.5 * density * (slopes[0] - slopes[1]).square()
        size = density * (slopes[0].square() + slopes[1].square())
        return gap.unsqueeze(2), size.unsqueeze(2)

    def others(at: Places) -> tuple[Tensor, Tensor]:
        log_p, log_q = first.log_prob(at), second.log_prob(at)
        value, size = _density(which, alpha, log_p, log_q)
        return value.unsqueeze(2), size.unsqueeze(2)

    power = None if alpha is None or 0 <= alpha <= 1 else _power(first, second, alpha)
    if power is not None and not bool(power.deviation.isfinite()):
        return first.mean.new_tensor(math.inf)
    lines = (first, second) if power is None else (first, second, power)
    found = quadrature.integral(fisher if which == "fisher" else others, *lines)
    if bool(found.error != 0):
        return None
    value = found.value[0]
    return _finish(which, alpha, Estimate(value, value.new_zeros(()))).value


def _power(p: Line, q: Line, order: float) -> Line:
    """The Gaussian that p^order q^(1 - order) is far out, for an order beyond 0 and 1: it may lie
    where neither of the two does. Of infinite deviation where the integral has no limit.
    """
    ours, theirs = p.deviation.argmax(), q.deviation.argmax()
    shares = order * p.deviation[ours].pow(-2), (1 - order) * q.deviation[theirs].pow(-2)
    precision = shares[0] + shares[1]
    # on the edge itself too, where a difference is all rounding
    if bool(precision < _EDGE * shares[0].abs()):
        precision = torch.zeros_like(precision)
    mean = (shares[0] * p.mean[ours] + shares[1] * q.mean[theirs]) / precision
    return Line(mean.new_zeros(1), mean[None], precision.rsqrt()[None])


def estimate(
    p: object,
    q: object,
    which: str = "kl",
    samples: int = 10_000,
    generator: Generator | None = None,
    alpha: float | None = None,
) -> Estimate:
    """A divergence of Gaussians or mixtures as a mean over draws, and its standard error.

    The draws are stratified by component: each has its share of them, give or take one. The
    standard error is that of strata of two. Renyi's and what is made of int p^alpha q^(1 - alpha)
    are means over (p + q) / 2, whose variance is finite wherever that of alpha in 0..1 is.

    Args:
        p: a Gaussian `(D,)` of any structure, or a mixture `(K,)` of them.
        q: another.
        which: one of `NAMES`.
        samples: the draws, of each of the two.
        generator: of the draws; by default one with seed 0.
        alpha: the order, of `renyi` and `alpha`.
    """
    _check(which, alpha)
    check_count("samples", samples, least=2)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    first, second = _mixture(p), _mixture(q)
    if first.components.mean.shape[-1] != second.components.mean.shape[-1]:
        raise InputError(
            f"p has {first.components.mean.shape[-1]} dimensions and q"
            f" {second.components.mean.shape[-1]}: expected the same space"
        )
    parts = []
    for source, from_p in ((first, True), (second, False)):
        if which in ("kl", "fisher") and not from_p:
            continue
        x = stratified(source, samples, generator)
        if which == "fisher":
            values = _score_gap(x, first, second)
        else:
            values = _integrand(which, alpha, first.log_prob(x), second.log_prob(x), from_p)
        parts.append(mean_of_strata(values))
    value = torch.stack([part.value for part in parts]).sum()
    error = torch.stack([part.standard_error for part in parts]).norm()
    return _finish(which, alpha, Estimate(value, error))


def entropy(p: object, samples: int = 10_000, generator: Generator | None = None) -> Estimate:
    """The differential entropy of a mixture as a mean over draws, and its standard error, nats."""
    check_count("samples", samples, least=2)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    own = _mixture(p)
    return mean_of_strata(-own.log_prob(stratified(own, samples, generator)))


def exact_entropy(p: object) -> Tensor | None:
    """The same of one component, or in one dimension by quadrature, `()`; None where that does not
    settle.
    """
    own = _mixture(p)
    if len(own.log_weight) == 1:
        return algebra.entropy(full(own.components))[0]
    line = quadrature.line(own)

    def integrand(at: Places) -> tuple[Tensor, Tensor]:
        log_p = line.log_prob(at)
        density = log_p.exp()
        return (-density * log_p).unsqueeze(2), (density * (1 + log_p.abs())).unsqueeze(2)

    found = quadrature.integral(integrand, line)
    return None if bool(found.error != 0) else found.value[0]


def stratified(p: Mixture, samples: int, generator: Generator) -> Tensor:
    """Draws `(S, D)` of a mixture, S even, component after component, each with its share of
    them.
    """
    count = samples + samples % 2
    place = torch.arange(count, dtype=torch.float64)
    uniform = torch.rand(count, dtype=torch.float64, generator=generator)
    dim = p.components.mean.shape[-1]
    noise = torch.randn(count, dim, dtype=torch.float64, generator=generator)
    device = p.log_weight.device
    return mixture.sample(p, ((place + uniform) / count).to(device), noise.to(device))


def mean_of_strata(values: Tensor) -> Estimate:
    """The mean of `(S,)` values of which each two are a stratum, and its standard error."""
    pairs = values.double().reshape(-1, 2)
    error = (pairs[:, 0] - pairs[:, 1]).norm() / len(values)
    return Estimate(values.double().mean(), error)


def bounds(p: object, q: object) -> tuple[Tensor, Tensor]:
    """A lower and an upper bound of KL(p || q) of mixtures, `()` each, nats, without sampling.

    Hershey & Olsen 2007: of E_p log p and E_p log q each is at least what the best responsibilities
    make it (their variational approximation) and at most what products of Gaussians do; so of the
    difference (Durrieu, Thiran & Kelly 2012). Above it is also their variational upper bound,
    whichever is less; below it is 0. Exact for two Gaussians.
    """
    return between.bounds(_mixture(p), _mixture(q))


def _mixture(p: object) -> Mixture:
    """A Gaussian `(D,)` or a mixture `(K,)` as a mixture in float64."""
    if isinstance(p, Mixture):
        gaussians(p.components)
        found = p
    elif isinstance(p, Gaussian):
        found = Mixture(p.mean.new_zeros(1), tree_map(lambda part: part[None], p))
    else:
        whole = full(p)
        found = Mixture(
            whole.mean.new_zeros(1), FullGaussian(whole.mean[None], whole.scale_tril[None])
        )
    if found.log_weight.dim() != 1 or found.components.mean.dim() != 2:
        raise InputError(
            f"the distribution has means of shape {tuple(found.components.mean.shape)}: expected"
            " one of events (D,), without leading axes"
        )
    return tree_map(lambda part: part.double(), found)


def _check(which: str, order: float | None) -> None:
    check_choice("which", which, NAMES)
    if which in ("renyi", "alpha"):
        _check_order(which, order)
    elif order is not None:
        raise InputError(f"alpha is {order:g} and {which} has no order: leave it out")


def _order(which: str, order: float | None) -> float:
    return 0.5 if order is None else order


def _integrand(
    which: str, order: float | None, log_p: Tensor, log_q: Tensor, from_p: bool
) -> Tensor:
    """The value of each draw of p, or of q, whose two means add up to the divergence, or to
    int p^alpha q^(1 - alpha).
    """
    both = torch.logaddexp(log_p, log_q) - math.log(2)
    if which == "kl" or (which == "renyi" and order == 1):
        return log_p - log_q if from_p else torch.zeros_like(log_p)
    if which == "jeffreys":
        return log_p - log_q if from_p else log_q - log_p
    if which == "jensen_shannon":
        return 0.5 * ((log_p if from_p else log_q) - both)
    power = _order(which, order)
    return 0.5 * (power * log_p + (1 - power) * log_q - both).exp()


def _density(
    which: str, order: float | None, log_p: Tensor, log_q: Tensor
) -> tuple[Tensor, Tensor]:
    """The integrand of the divergence, or of int p^alpha q^(1 - alpha); and the size of what that is a
    difference of.
    """
    p, q = log_p.exp(), log_q.exp()
    whole = log_p.abs() + log_q.abs() + 1
    if which == "kl" or (which == "renyi" and order == 1):
        return p * (log_p - log_q), p * whole
    if which == "jeffreys":
        return (p - q) * (log_p - log_q), (p + q) * whole
    if which == "jensen_shannon":
        both = torch.logaddexp(log_p, log_q) - math.log(2)
        return 0.5 * (p * (log_p - both) + q * (log_q - both)), (p + q) * whole
    power = _order(which, order)
    value = (power * log_p + (1 - power) * log_q).exp()
    return value, value


def _finish(which: str, order: float | None, found: Estimate) -> Estimate:
    """The divergence from what was averaged; errors by its slope."""
    value, error = found
    power = _order(which, order)
    if which == "alpha":
        scale = power * (power - 1)
        return Estimate((value - 1) / scale, error / abs(scale))
    if which == "bhattacharyya":
        return Estimate(-value.log(), error / value)
    if which == "renyi" and power != 1:
        return Estimate(value.log() / (power - 1), error / value / abs(power - 1))
    if which == "hellinger":
        distance = (1 - value).clamp(min=0).sqrt()
        return Estimate(distance, error / (2 * distance).clamp(min=1e-300))
    return found


def _score_gap(x: Tensor, p: Mixture, q: Mixture) -> Tensor:
    """|grad log p - grad log q|^2 / 2 at `(S, D)`, `(S,)`."""
    with torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        gap = (p.log_prob(point) - q.log_prob(point)).sum()
        (slope,) = torch.autograd.grad(gap, point)
    return 0.5 * slope.square().sum(-1)
