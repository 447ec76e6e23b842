"""The rate taken apart: rate = mutual information + total correlation + dimension-wise KL, over a
whole data set.

    MI   = E log q(z|x) - E log q(z)                 I(x; z) under q
    TC   = E log q(z) - sum_d E log q(z_d)           KL(q(z) || prod_d q(z_d))
    DWKL = sum_d E [log q(z_d) - log p(z_d)]         sum_d KL(q(z_d) || p(z_d))

with q(z) = (1/N) sum_n q(z|x_n), the aggregate posterior (Hoffman & Johnson 2016; Chen et al. 2018,
arXiv 1802.04942, eq. 2).

Only E log q(z) has no closed form or cheap quadrature. Everything else is computed to rounding, so
the three terms, and marginal_kl = TC + DWKL, add up to the closed-form rate. (That they add up
proves nothing: any wrong log q(z) cancels.)

E log q(z) is a mean over draws z ~ q(z) of the exact log q(z), a sum over all N posteriors. Its
variance is reduced by regression on functions of the draw whose means are known: log q(z|x) of the
posterior it came from, and the first and second moments of z. Where q(z) is Gaussian, or the
posteriors do not overlap, nothing is left to chance.

Where they hardly overlap, MI is near log N, by a few of the draws, or by none where some should be:
their spread says little of the standard error then. It is at least what the posteriors' distances
make it (`bound.overlap`).

With a prior p that does not factorise, KL(q(z) || p) = TC + DWKL - E log [p(z) / prod_d p(z_d)]: a
fourth term. Of a prior without known marginals, such as a flow, there are rate, MI, TC and
marginal_kl; what is of single latents is None.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from jensen.base.errors import InputError, check_count
from jensen.bound import overlap
from jensen.bound.rate import log_density
from jensen.family import gaussian
from jensen.family.family import Family, Product, diagonal, gaussians
from jensen.family.gaussian import LOG_2PI, Gaussian
from jensen.family.mixture import BITS, Mixture

_BLOCK = 1 << 18
"""Numbers in a temporary: 2 MB in float64, which a core's cache holds."""

_ROUNDING = 1e-5
"""Nats that a product may be off by."""

_ALIKE = 1e-10
"""The share of the variance of all control variates below which one is another's rounding: its slope
would make a mean of what is left of its digits.
"""

_UNDERFLOW = -115.0
"""exp2 is many times slower where it underflows, and 2^-115 of anything that is summed with 1 is
nothing.
"""

_GRID = 4096
"""Points of a marginal's quadrature, or as many as there are draws; beyond, it is evaluated at the
draws.
"""

_NEAR = 0.1
"""Nats below log N from which overlaps may be too rare to show in the spread of the draws."""

_EVENTS = 30.0
"""Draws in an overlap, on average, from which that spread says enough of the standard error."""

_REACH = 9.0
"""Standard deviations beyond the outermost posteriors that a quadrature covers."""


class Decomposition(NamedTuple):
    """In nats per example, float64; `()` unless said otherwise. `..._se` is the standard error of a
    Monte-Carlo term.

    rate: E KL(q(z|x) || p(z)); closed form for a Gaussian prior, by log p(z) at the draws where
        nothing better is known.
    latent_rate: `(D,)`, E KL(q(z_d|x) || p(z_d)).
    mutual_information, total_correlation, dimension_wise_kl: the parts.
    latent_dimension_wise_kl: `(D,)`, KL(q(z_d) || p(z_d)).
    prior_dependence: E log [p(z) / prod_d p(z_d)] under q(z); 0 for a prior that factorises.
    marginal_kl: KL(q(z) || p(z)) = rate - MI = TC + DWKL - prior_dependence.
    log_n: log of the data set's size, the most that mutual_information can be. Near it TC measures
        that size, not the encoder.

    latent_rate, dimension_wise_kl, latent_dimension_wise_kl and prior_dependence are None where
    p(z_d) is unknown.
    """

    rate: Tensor
    rate_se: Tensor
    latent_rate: Tensor | None
    mutual_information: Tensor
    mutual_information_se: Tensor
    total_correlation: Tensor
    total_correlation_se: Tensor
    dimension_wise_kl: Tensor | None
    dimension_wise_kl_se: Tensor | None
    latent_dimension_wise_kl: Tensor | None
    prior_dependence: Tensor | None
    prior_dependence_se: Tensor | None
    marginal_kl: Tensor
    marginal_kl_se: Tensor
    log_n: Tensor


class Draws(NamedTuple):
    """S draws of the aggregate posterior.

    z: `(S, D)`; row: `(S,)`, the posterior each came from; noise: `(S, D)`, (z - mean) / std of
        that posterior.
    """

    z: Tensor
    row: Tensor
    noise: Tensor


LogDensity = Callable[[Draws, Gaussian, int], Tensor]


def decompose(
    posterior: Gaussian,
    *,
    samples: int,
    generator: Generator,
    prior: Family = gaussian.STANDARD,
    dataset_size: int | None = None,
    log_density: LogDensity | None = None,
) -> Decomposition:
    """The parts of the rate of N posteriors, `(N, D)`.

    Args:
        posterior: q(z|x_n) of every example of a data set, or of N of its `dataset_size` examples.
        samples: S, draws of z for E log q(z). The work is S x N x D; the memory does not grow with
            S x N.
        generator: of the draws.
        prior: p(z); by default N(0, I). Its marginals are integrated if they are a `Gaussian` or a
            `Mixture`; those of another family are evaluated at the draws.
        dataset_size: where the N posteriors are not all there are: log q(z) is then the stratified
            estimate, see `aggregate_log_density`.
        log_density: used in place of `aggregate_log_density`, to share out the draws.

    Raises:
        InputError: posteriors that are none, not `(N, D)` or not finite; fewer than 2 samples; a
            dataset_size below N.
    """
    q = _checked(posterior)
    check_count("samples", samples, least=2)
    size = len(q.mean) if dataset_size is None else dataset_size
    check_count("dataset_size", size, least=len(q.mean))

    draws = draw(q, samples, generator)
    about, centred = _centred(q, draws)
    controls = _controls(centred, about)
    log_q = (log_density or aggregate_log_density)(draws, q, size)
    own = _own_log_density(draws, q)
    latent_conditional = -gaussian.entropy(q).mean(0)  # E log q(z_d|x)
    # E log q(z), less the chance in log q(z|x): so MI is a mean of log q(z|x) - log q(z), each at
    # most log N.
    joint = _Term.estimate(log_q - own + latent_conditional.sum(), controls)
    joint = joint.with_rare_overlaps(log_q - own, q, size)
    latents = range(q.mean.shape[1])
    entropy = [_marginal_entropy(latent, centred, about, controls) for latent in latents]
    latent_prior = [_marginal_log_prior(latent, draws, q, controls, prior) for latent in latents]
    entropies = _Term.sum(entropy)
    log_prior = _log_prior(prior, latent_prior, draws, controls, posterior.mean.dtype)
    conditional = _Term.exact(latent_conditional.sum())

    rate = conditional - log_prior
    mutual_information = conditional - joint
    total_correlation = joint + entropies
    marginal_kl = joint - log_prior
    return Decomposition(
        rate=rate.mean,
        rate_se=rate.standard_error,
        mutual_information=mutual_information.mean,
        mutual_information_se=mutual_information.standard_error,
        total_correlation=total_correlation.mean,
        total_correlation_se=total_correlation.standard_error,
        **_of_latents(latent_conditional, entropy, latent_prior, log_prior),
        marginal_kl=marginal_kl.mean,
        marginal_kl_se=marginal_kl.standard_error,
        log_n=torch.tensor(math.log(size), dtype=torch.float64, device=q.mean.device),
    )


def _of_latents(
    conditional: Tensor, entropy: "list[_Term]", log_prior: "list[_Term | None]", whole: "_Term"
) -> dict[str, Tensor | None]:
    """The fields of a `Decomposition` that need p(z_d) of every latent.

    conditional: `(D,)`, E log q(z_d|x). whole: E log p(z).
    """
    known = [term for term in log_prior if term is not None]
    if len(known) < len(log_prior):
        names = ("latent_rate", "dimension_wise_kl", "latent_dimension_wise_kl", "prior_dependence")
        return dict.fromkeys([*names, "dimension_wise_kl_se", "prior_dependence_se"])
    cross = _Term.sum(known)
    dimension_wise_kl = _Term.zero(cross) - _Term.sum(entropy) - cross
    dependence = whole - cross
    each = torch.stack([term.mean for term in known])
    return {
        "latent_rate": conditional - each,
        "dimension_wise_kl": dimension_wise_kl.mean,
        "dimension_wise_kl_se": dimension_wise_kl.standard_error,
        "latent_dimension_wise_kl": -torch.stack([term.mean for term in entropy]) - each,
        "prior_dependence": dependence.mean,
        "prior_dependence_se": dependence.standard_error,
    }


def draw(q: Gaussian, samples: int, generator: Generator) -> Draws:
    """Draws of the aggregate of `q` `(N, D)`: each posterior as often as any other, give or take
    one.
    """
    count, dim = q.mean.shape
    device = q.mean.device
    rest = torch.randperm(count, generator=generator, device=generator.device)[: samples % count]
    row = torch.cat(
        [torch.arange(count, device=generator.device).repeat(samples // count), rest]
    ).to(device)
    noise = torch.randn(
        samples, dim, dtype=torch.float64, generator=generator, device=generator.device
    ).to(device)
    return Draws(gaussian.sample(Gaussian(q.mean[row], q.log_var[row]), noise), row, noise)


def aggregate_log_density(draws: Draws, q: Gaussian, dataset_size: int) -> Tensor:
    """log q(z) of the draws, `(S,)`, for the aggregate of `q` `(N, D)`, in float64.

    If N is the `dataset_size` this is the exact log [(1/N) sum_n q(z|x_n)]. Else it is the
    stratified estimate, which keeps the weight 1 / dataset_size of the posterior that the draw came
    from and gives the others the rest in equal shares; its expectation over the others is q(z), so
    its logarithm is biased down where N is small.

    log q(z|x_n) is linear in (z, z^2), so all S x N of them are a matrix product, made and summed a
    block at a time. Its terms are of size (mean / std)^2 and cancel: hence float64, about the mean of
    all, and differences in place of products for the posteriors of which that would leave too few
    digits. The log-density of the draw's own posterior is subtracted first. So its own term is 1,
    there is no search for the largest, and only where another is e^700 times as dense must the sum
    be taken again.
    """
    q, draws = _centred(q, draws)
    far = _far(q)
    near = Gaussian(*(part[~far] for part in q))
    rest = Gaussian(*(part[far] for part in q))
    features = torch.cat(
        [draws.z, draws.z.square(), torch.ones_like(draws.z[:, :1])], 1
    )  # (S, 2 D + 1)
    exact = -0.5 * BITS * (q.log_var[draws.row] + draws.noise.square()).sum(1, keepdim=True)
    product = (features * _weights(q)[draws.row]).sum(1, keepdim=True)
    own = torch.where(far[draws.row].unsqueeze(1), exact, product)  # rounded as its own term
    features = torch.cat([features, -own], 1)
    weights = _weights(near)
    weights = torch.cat([weights, torch.ones_like(weights[:, :1])], 1).T.contiguous()

    ratio = torch.zeros_like(own[:, 0])  # sum_n q(z|x_n) / q(z|x_row)
    height = max(min(len(features), 512), 1)
    buffer = features.new_empty(height * max(_BLOCK // height, 1))
    for block in torch.split(weights, len(buffer) // height, 1):
        for rows, total in zip(
            torch.split(features, height), torch.split(ratio, height), strict=True
        ):
            logs = torch.mm(
                rows,
                block,
                out=buffer[: len(rows) * block.shape[1]].view(len(rows), block.shape[1]),
            )
            total += logs.clamp_(min=_UNDERFLOW).exp2_().sum(1)
    if len(rest.mean):
        height = max(_BLOCK // len(rest.mean), 1)
        parts = (torch.split(part, height) for part in (draws.z, exact, ratio))
        for rows, base, total in zip(*parts, strict=True):
            total += (_logs(rows, rest) - base).clamp_(min=_UNDERFLOW).exp2_().sum(1)
    log_ratio = ratio.clamp_(min=1).log()  # a draw's own term is 1, which rounding may miss
    (stuck,) = ratio.isinf().nonzero(as_tuple=True)
    for some in torch.split(stuck, max(_BLOCK // len(q.mean), 1)):
        both = [features[some] @ weights, _logs(draws.z[some], rest) - exact[some]]
        log_ratio[some] = (torch.cat(both, 1) / BITS).logsumexp(1)

    log_own = _own_log_density(draws, q)
    if dataset_size == len(q.mean):
        return log_own + log_ratio - math.log(dataset_size)
    share = (dataset_size - 1) / max(len(q.mean) - 1, 1)
    return (
        log_own
        + log_ratio
        + torch.log(share + (1 - share) * (-log_ratio).exp())
        - math.log(dataset_size)
    )


def _centred(q: Gaussian, draws: Draws) -> tuple[Gaussian, Draws]:
    """Posteriors and draws about the mean of all: no density of z changes by it."""
    about = Gaussian(q.mean - q.mean.mean(0), q.log_var)
    z = gaussian.sample(Gaussian(about.mean[draws.row], about.log_var[draws.row]), draws.noise)
    return about, draws._replace(z=z)


def _far(q: Gaussian) -> Tensor:
    """Tell which posteriors lie so many deviations from 0 that products have too few digits, `(N,)`."""
    spread = (q.mean.square() * (-q.log_var).exp()).sum(1)
    return torch.finfo(q.mean.dtype).eps * spread > _ROUNDING


def _weights(q: Gaussian) -> Tensor:
    """Factors of (z, z^2, 1) for log q(z|x_n), in bits and without 2 pi, `(N, 2 D + 1)`."""
    precision = (-q.log_var).exp()
    linear = q.mean * precision
    constant = -0.5 * (q.log_var + q.mean * linear).sum(1, keepdim=True)
    return BITS * torch.cat([linear, -0.5 * precision, constant], 1)


def _logs(z: Tensor, q: Gaussian) -> Tensor:
    """log q(z|x_n) in bits and without 2 pi, `(S, N)`, from differences, one latent after the other."""
    precision = -0.5 * BITS * (-q.log_var).exp()
    logs = (-0.5 * BITS * q.log_var.sum(1)).repeat(len(z), 1)
    for latent in range(z.shape[1]):
        squares = (z[:, latent, None] - q.mean[:, latent]).square_()
        logs.addcmul_(squares, precision[:, latent])
    return logs


def _own_log_density(draws: Draws, q: Gaussian) -> Tensor:
    """log q(z|x_row), `(S,)`."""
    return -0.5 * (LOG_2PI + q.log_var[draws.row] + draws.noise.square()).sum(1)


@dataclass(frozen=True)
class _Term:
    """The mean of a function of z under q(z), and what of each draw `(S,)` is left to chance;
    nothing if it is exact.
    """

    mean: Tensor
    residual: Tensor
    freedom: int
    unseen: Tensor | float = 0.0  # variance of the mean beyond that of the residuals

    @staticmethod
    def exact(mean: Tensor) -> "_Term":
        return _Term(mean, torch.zeros_like(mean), 1)

    @staticmethod
    def sum(terms: "list[_Term]") -> "_Term":
        """The estimate of one or more."""
        return functools.reduce(_Term.__add__, terms)

    @staticmethod
    def zero(like: "_Term") -> "_Term":
        return _Term.exact(torch.zeros_like(like.mean))

    @staticmethod
    def estimate(values: Tensor, controls: Tensor) -> "_Term":
        """From the values at the draws, `(S,)`, and `controls` `(S, C)`, functions of the draws
        whose mean is 0.

        The regression estimator (Owen 2013, "Monte Carlo theory, methods and examples", section
        8.9).
        """
        centred = controls - controls.mean(0)
        inverse = torch.linalg.pinv(centred.T @ centred, rtol=_ALIKE, hermitian=True)
        slope = inverse @ (centred.T @ (values - values.mean()))
        rest = values - controls @ slope
        return _Term(rest.mean(), rest - rest.mean(), max(len(values) - 1 - controls.shape[1], 1))

    @property
    def standard_error(self) -> Tensor:
        count = max(self.residual.numel(), 1)
        return (self.residual.square().sum() / (self.freedom * count) + self.unseen).sqrt()

    def with_rare_overlaps(self, log_ratio: Tensor, q: Gaussian, dataset_size: int) -> "_Term":
        """Add what an estimate of E log q(z) lacks in variance; `log_ratio` `(S,)` is log q(z) -
        log q(z|x_row).
        """
        if log_ratio.mean() + math.log(dataset_size) > _NEAR:
            return self
        found = overlap.excess(q)
        count = len(log_ratio)
        # events of one size: their number; also 0 of 0
        if count * found.mean.square() >= _EVENTS * found.square:
            return self
        share = (dataset_size - 1) / max(len(q.mean) - 1, 1)  # each stands for so many
        lacking = share * found.square / count - self.standard_error.square()
        return replace(self, unseen=self.unseen + lacking.clamp(min=0))

    def __add__(self, other: "_Term") -> "_Term":
        return self._combined(self.mean + other.mean, self.residual + other.residual, other)

    def __sub__(self, other: "_Term") -> "_Term":
        return self._combined(self.mean - other.mean, self.residual - other.residual, other)

    def _combined(self, mean: Tensor, residual: Tensor, other: "_Term") -> "_Term":
        return _Term(mean, residual, max(self.freedom, other.freedom), self.unseen + other.unseen)


def _controls(draws: Draws, q: Gaussian) -> Tensor:
    """Functions of the draws with a known mean, less that mean, in units of their size: `(S, C)`, C
    at most S / 10.

    log q(z|x_row), which is all of log q(z) where posteriors do not overlap; and the first two
    moments of z, which are all of it where q(z) is Gaussian. They keep their digits of what is
    `_centred`.
    """
    own_entropy = gaussian.entropy(q).sum(1)
    columns = [
        0.5 * (1 - draws.noise.square()).sum(1, keepdim=True),
        (own_entropy[draws.row] - own_entropy.mean())[:, None],
    ]
    z = draws.z
    squares = z.square() - (q.mean.square() + q.log_var.exp()).mean(0)
    room = len(z) // 10 - len(columns)
    for more in (z, squares):
        if more.shape[1] <= room:
            columns.append(more)
            room -= more.shape[1]
    if math.comb(z.shape[1], 2) <= room:
        first, second = torch.triu_indices(z.shape[1], z.shape[1], offset=1, device=z.device)
        expected = (q.mean.T @ q.mean / len(q.mean))[first, second]
        columns.append(z[:, first] * z[:, second] - expected)
    if len(z) < 20:
        columns = [z[:, :0]]
    controls = torch.cat(columns, 1)
    size = controls.square().mean(0).sqrt()
    return controls / torch.where(size > 0, size, torch.ones_like(size))


def _marginal_entropy(latent: int, draws: Draws, q: Gaussian, controls: Tensor) -> _Term:
    """H(z_d) under q(z), by the trapezoidal rule; at the draws, where that would take too many
    points.

    At a spacing of half the smallest standard deviation the rule is exact on Gaussians to rounding,
    and on q log q to some 1e-9.
    """
    grid = _grid(latent, draws, q, 0.5 * (0.5 * q.log_var[:, latent].min()).exp())
    if grid is None:
        log_q = _log_marginal(draws.z[:, latent], q.mean[:, latent], q.log_var[:, latent])
        one = q.marginal(latent)
        own = -0.5 * (LOG_2PI + one.log_var[draws.row, 0] + draws.noise[:, latent].square())
        return _Term.estimate(-log_q, controls).with_rare_overlaps(log_q - own, one, len(one.mean))
    points, spacing = grid
    log_q = _log_marginal(points, q.mean[:, latent], q.log_var[:, latent])
    return _Term.exact(-(log_q.exp() * spacing * log_q).sum())


def _marginal_log_prior(
    latent: int, draws: Draws, q: Gaussian, controls: Tensor, prior: Family
) -> _Term | None:
    """E log p(z_d) under q(z): closed form, by quadrature, or at the draws; None where p(z_d) is
    unknown.

    The logarithm of a mixture turns more sharply than that of q(z_d): the quadrature takes a
    quarter of the smallest standard deviation, and of its own narrowest component.
    """
    marginal = prior.marginal(latent)
    if marginal is None:
        return None
    mean = q.mean[:, latent]
    log_var = q.log_var[:, latent]
    if isinstance(marginal, Gaussian):
        centre, log_scale = (part.to(mean).reshape(()) for part in marginal)
        squares = ((mean - centre).square() + log_var.exp()).mean()
        return _Term.exact(-0.5 * (LOG_2PI + log_scale + squares * (-log_scale).exp()))
    grid = None
    if isinstance(marginal, Mixture):
        narrowest = gaussians(marginal.components).marginals().log_var.min().to(log_var)
        grid = _grid(latent, draws, q, 0.25 * (0.5 * torch.minimum(log_var.min(), narrowest)).exp())
    if grid is None:
        return _Term.estimate(marginal.log_prob(draws.z[:, [latent]]), controls)
    points, spacing = grid
    mass = _log_marginal(points, mean, log_var).exp() * spacing
    return _Term.exact((mass * marginal.log_prob(points[:, None])).sum())


def _log_prior(
    prior: Family,
    marginals: "list[_Term | None]",
    draws: Draws,
    controls: Tensor,
    dtype: torch.dtype,
) -> _Term:
    """E log p(z) under q(z), by its marginals where it is their product.

    A family of one's own is asked in `dtype`, that of the model.
    """
    known = [term for term in marginals if term is not None]
    if isinstance(prior, Gaussian | Product) and len(known) == len(marginals):
        return _Term.sum(known)
    z = draws.z if isinstance(prior, Mixture) else draws.z.to(dtype)
    return _Term.estimate(log_density(prior, z, draws.noise).detach().double(), controls)


def _grid(latent: int, draws: Draws, q: Gaussian, spacing: Tensor) -> tuple[Tensor, Tensor] | None:
    """Points `(G,)` over all of q(z_d), at most `spacing` apart, and how far apart; None if they
    would be too many.
    """
    mean = q.mean[:, latent]
    std = (0.5 * q.log_var[:, latent]).exp()
    low = (mean - _REACH * std).min()
    high = (mean + _REACH * std).max()
    count = int(((high - low) / spacing).ceil().clamp(max=2**31)) + 1
    if count > max(_GRID, len(draws.z)):
        return None
    points = torch.linspace(0, 1, count, dtype=mean.dtype, device=mean.device) * (high - low) + low
    return points, (high - low) / (count - 1)


def _log_marginal(points: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """log of the mean of N Gaussians of one dimension at G points, `(G,)`; floored far out in the
    tails.
    """
    centre = mean.mean()
    q = Gaussian((mean - centre).unsqueeze(1), log_var.unsqueeze(1))
    z = (points - centre).unsqueeze(1)
    far = _far(q)
    constant = 0.5 * BITS * LOG_2PI
    weights = _weights(Gaussian(*(part[~far] for part in q))).T
    weights[2] -= constant
    features = torch.cat([z, z.square(), torch.ones_like(z)], 1)
    total = torch.zeros_like(points)
    width = max(_BLOCK // len(points), 1)
    for block in torch.split(weights, width, 1):
        total += (features @ block).clamp_(min=_UNDERFLOW).exp2_().sum(1)
    rest = Gaussian(*(part[far] for part in q))
    for some in zip(*(torch.split(part, width) for part in rest), strict=True):
        logs = _logs(z, Gaussian(*some)) - constant
        total += logs.clamp_(min=_UNDERFLOW).exp2_().sum(1)
    return total.log() - math.log(len(mean))


def _checked(posterior: Gaussian) -> Gaussian:
    """In float64, detached."""
    mean, log_var = diagonal(posterior, "the decomposition of the rate")
    if mean.dim() != 2 or mean.shape != log_var.shape or not mean.numel():
        shapes = f"mean {list(mean.shape)} and log_var {list(log_var.shape)}"
        raise InputError(
            f"posterior has {shapes}: expected (N, D) for both, with N and D at least 1"
        )
    if not (mean.isfinite().all() and log_var.isfinite().all()):
        raise InputError(
            "posterior holds NaN or infinite numbers: expected finite ones; find the step at which"
            " training broke"
        )
    return Gaussian(mean.detach().double(), log_var.detach().double())
