"""The rate taken apart: rate = mutual information + total correlation + dimension-wise KL, over a whole data set.

    MI   = E log q(z|x) - E log q(z)                 I(x; z) under q
    TC   = E log q(z) - sum_d E log q(z_d)           KL(q(z) || prod_d q(z_d))
    DWKL = sum_d E [log q(z_d) - log p(z_d)]         sum_d KL(q(z_d) || p(z_d))

with q(z) = (1/N) sum_n q(z|x_n), the aggregate posterior (Hoffman & Johnson 2016; Chen et al. 2018, arXiv 1802.04942, eq. 2).

Only E log q(z) has no closed form or cheap quadrature. Everything else is computed to rounding, so the three terms, and
marginal_kl = TC + DWKL, add up to the closed-form rate. (That they add up proves nothing: any wrong log q(z) cancels.)

E log q(z) is a mean over draws z ~ q(z) of the exact log q(z), a sum over all N posteriors. Its variance is reduced by
regression on functions of the draw whose means are known: log q(z|x) of the posterior it came from, and the first and
second moments of z. Where q(z) is Gaussian, or the posteriors do not overlap, nothing is left to chance.

With a prior p that does not factorise, KL(q(z) || p) = TC + DWKL - E log [p(z) / prod_d p(z_d)]: a fourth term.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from jensen.core import gaussian, mixture
from jensen.core.errors import InputError, check_count
from jensen.core.gaussian import LOG_2PI, Gaussian
from jensen.core.mixture import Mixture

_BLOCK = 1 << 18
"""Numbers in a temporary: 2 MB in float64, which a core's cache holds."""

_UNDERFLOW = -80.0
"""exp is many times slower where it underflows, and exp(-80) of anything that is summed with 1 is nothing."""

_GRID = 4096
"""Points of a marginal's quadrature, or as many as there are draws; beyond, it is evaluated at the draws."""

_REACH = 9.0
"""Standard deviations beyond the outermost posteriors that a quadrature covers."""


class Decomposition(NamedTuple):
    """In nats per example, float64; `()` unless said otherwise. `..._se` is the standard error of a Monte-Carlo term.

    rate: E KL(q(z|x) || p(z)); closed form for the standard normal.
    latent_rate: `(D,)`, E KL(q(z_d|x) || p(z_d)).
    mutual_information, total_correlation, dimension_wise_kl: the parts.
    latent_dimension_wise_kl: `(D,)`, KL(q(z_d) || p(z_d)).
    prior_dependence: E log [p(z) / prod_d p(z_d)] under q(z); 0 for a prior that factorises.
    marginal_kl: KL(q(z) || p(z)) = rate - MI = TC + DWKL - prior_dependence.
    log_n: log of the data set's size, the most that mutual_information can be. Near it TC measures that size, not the encoder.
    """

    rate: Tensor
    rate_se: Tensor
    latent_rate: Tensor
    mutual_information: Tensor
    mutual_information_se: Tensor
    total_correlation: Tensor
    total_correlation_se: Tensor
    dimension_wise_kl: Tensor
    dimension_wise_kl_se: Tensor
    latent_dimension_wise_kl: Tensor
    prior_dependence: Tensor
    prior_dependence_se: Tensor
    marginal_kl: Tensor
    marginal_kl_se: Tensor
    log_n: Tensor


class Draws(NamedTuple):
    """S draws of the aggregate posterior.

    z: `(S, D)`; row: `(S,)`, the posterior each came from; noise: `(S, D)`, (z - mean) / std of that posterior.
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
    prior: Mixture | None = None,
    dataset_size: int | None = None,
    log_density: LogDensity | None = None,
) -> Decomposition:
    """The parts of the rate of N posteriors, `(N, D)`.

    Args:
        posterior: q(z|x_n) of every example of a data set, or of N of its `dataset_size` examples.
        samples: S, draws of z for E log q(z). The work is S x N x D; the memory does not grow with S x N.
        generator: of the draws.
        prior: p(z); None is the standard normal.
        dataset_size: where the N posteriors are not all there are: log q(z) is then the stratified estimate, see
            `aggregate_log_density`.
        log_density: used in place of `aggregate_log_density`, to share out the draws.

    Raises:
        InputError: posteriors that are none, not `(N, D)` or not finite; fewer than 2 samples; a dataset_size below N.
    """
    q = _checked(posterior)
    check_count("samples", samples, least=2)
    size = len(q.mean) if dataset_size is None else dataset_size
    check_count("dataset_size", size, least=len(q.mean))

    draws = draw(q, samples, generator)
    controls = _controls(draws, q)
    log_q = (log_density or aggregate_log_density)(draws, q, size)
    own = _own_log_density(draws, q)
    latent_conditional = -gaussian.entropy(q).mean(0)  # E log q(z_d|x)
    # E log q(z), less the chance in log q(z|x): so MI is a mean of log q(z|x) - log q(z), each at most log N.
    joint = _Term.estimate(log_q - own + latent_conditional.sum(), controls)
    marginals = [_marginal(latent, draws, q, controls, prior) for latent in range(q.mean.shape[1])]
    entropies = sum((entropy for entropy, _ in marginals), _Term.zero(joint))  # sum_d H(z_d)
    cross = sum((log_prior for _, log_prior in marginals), _Term.zero(joint))  # sum_d E log p(z_d)
    log_prior = cross if prior is None else _Term.estimate(mixture.log_prob(draws.z, prior), controls)
    conditional = _Term.exact(latent_conditional.sum())

    rate = conditional - log_prior
    mutual_information = conditional - joint
    total_correlation = joint + entropies
    dimension_wise_kl = _Term.zero(joint) - entropies - cross
    dependence = log_prior - cross
    marginal_kl = joint - log_prior
    return Decomposition(
        rate=rate.mean,
        rate_se=rate.standard_error,
        latent_rate=latent_conditional - torch.stack([log_prior.mean for _, log_prior in marginals]),
        mutual_information=mutual_information.mean,
        mutual_information_se=mutual_information.standard_error,
        total_correlation=total_correlation.mean,
        total_correlation_se=total_correlation.standard_error,
        dimension_wise_kl=dimension_wise_kl.mean,
        dimension_wise_kl_se=dimension_wise_kl.standard_error,
        latent_dimension_wise_kl=torch.stack([-entropy.mean - log_prior.mean for entropy, log_prior in marginals]),
        prior_dependence=dependence.mean,
        prior_dependence_se=dependence.standard_error,
        marginal_kl=marginal_kl.mean,
        marginal_kl_se=marginal_kl.standard_error,
        log_n=torch.tensor(math.log(size), dtype=torch.float64, device=q.mean.device),
    )


def draw(q: Gaussian, samples: int, generator: Generator) -> Draws:
    """Draws of the aggregate of `q` `(N, D)`: each posterior as often as any other, give or take one."""
    count, dim = q.mean.shape
    device = q.mean.device
    rest = torch.randperm(count, generator=generator, device=generator.device)[: samples % count]
    row = torch.cat([torch.arange(count, device=generator.device).repeat(samples // count), rest]).to(device)
    noise = torch.randn(samples, dim, dtype=torch.float64, generator=generator, device=generator.device).to(device)
    return Draws(gaussian.sample(Gaussian(q.mean[row], q.log_var[row]), noise), row, noise)


def aggregate_log_density(draws: Draws, q: Gaussian, dataset_size: int) -> Tensor:
    """log q(z) of the draws, `(S,)`, for the aggregate of `q` `(N, D)`, in float64.

    If N is the `dataset_size` this is the exact log [(1/N) sum_n q(z|x_n)]. Else it is the stratified estimate, which keeps
    the weight 1 / dataset_size of the posterior that the draw came from and gives the others the rest in equal shares; its
    expectation over the others is q(z), so its logarithm is biased down where N is small.

    log q(z|x_n) is linear in (z, z^2), so all S x N of them are a matrix product, made and summed a block at a time. Its terms
    are of size (mean / std)^2 and cancel: hence float64. The log-density of the draw's own posterior is subtracted first. So
    its own term is 1, there is no search for the largest, and only where another is e^700 times as dense must the sum be
    taken again.
    """
    mean, precision = q.mean, (-q.log_var).exp()
    constant = -0.5 * (q.log_var + mean.square() * precision).sum(1, keepdim=True)
    weights = torch.cat([mean * precision, -0.5 * precision, constant], 1)  # (N, 2 D + 1)
    features = torch.cat([draws.z, draws.z.square(), torch.ones_like(draws.z[:, :1])], 1)  # (S, 2 D + 1)
    own = (features * weights[draws.row]).sum(1, keepdim=True)
    features, weights = torch.cat([features, -own], 1), torch.cat([weights, torch.ones_like(constant)], 1).T.contiguous()

    ratio = torch.zeros_like(own[:, 0])  # sum_n q(z|x_n) / q(z|x_row)
    height = max(min(len(features), 512), 1)
    buffer = features.new_empty(height * max(_BLOCK // height, 1))
    for block in torch.split(weights, len(buffer) // height, 1):
        for rows, total in zip(torch.split(features, height), torch.split(ratio, height), strict=True):
            logs = torch.mm(rows, block, out=buffer[: len(rows) * block.shape[1]].view(len(rows), block.shape[1]))
            total += logs.clamp_(min=_UNDERFLOW).exp_().sum(1)
    log_ratio = ratio.log()
    (stuck,) = ratio.isinf().nonzero(as_tuple=True)
    for some in torch.split(stuck, max(_BLOCK // len(q.mean), 1)):
        log_ratio[some] = (features[some] @ weights).logsumexp(1)

    log_own = _own_log_density(draws, q)
    if dataset_size == len(q.mean):
        return log_own + log_ratio - math.log(dataset_size)
    share = (dataset_size - 1) / max(len(q.mean) - 1, 1)
    return log_own + log_ratio + torch.log(share + (1 - share) * (-log_ratio).exp()) - math.log(dataset_size)


def _own_log_density(draws: Draws, q: Gaussian) -> Tensor:
    """log q(z|x_row), `(S,)`."""
    return -0.5 * (LOG_2PI + q.log_var[draws.row] + draws.noise.square()).sum(1)


@dataclass(frozen=True)
class _Term:
    """The mean of a function of z under q(z), and what of each draw `(S,)` is left to chance; nothing if it is exact."""

    mean: Tensor
    residual: Tensor
    freedom: int

    @staticmethod
    def exact(mean: Tensor) -> "_Term":
        return _Term(mean, torch.zeros_like(mean), 1)

    @staticmethod
    def zero(like: "_Term") -> "_Term":
        return _Term.exact(torch.zeros_like(like.mean))

    @staticmethod
    def estimate(values: Tensor, controls: Tensor) -> "_Term":
        """From the values at the draws, `(S,)`, and `controls` `(S, C)`, functions of the draws whose mean is 0.

        The regression estimator (Owen 2013, "Monte Carlo theory, methods and examples", section 8.9).
        """
        centred = controls - controls.mean(0)
        inverse = torch.linalg.pinv(centred.T @ centred, hermitian=True)
        slope = inverse @ (centred.T @ (values - values.mean()))
        rest = values - controls @ slope
        return _Term(rest.mean(), rest - rest.mean(), max(len(values) - 1 - controls.shape[1], 1))

    @property
    def standard_error(self) -> Tensor:
        count = max(self.residual.numel(), 1)
        return (self.residual.square().sum() / (self.freedom * count)).sqrt()

    def __add__(self, other: "_Term") -> "_Term":
        return _Term(self.mean + other.mean, self.residual + other.residual, max(self.freedom, other.freedom))

    def __sub__(self, other: "_Term") -> "_Term":
        return _Term(self.mean - other.mean, self.residual - other.residual, max(self.freedom, other.freedom))


def _controls(draws: Draws, q: Gaussian) -> Tensor:
    """Functions of the draws with a known mean, less that mean, in units of their size: `(S, C)`, C at most S / 10.

    log q(z|x_row), which is all of log q(z) where posteriors do not overlap; and the first two moments of z, which are all of
    it where q(z) is Gaussian.
    """
    own_entropy = gaussian.entropy(q).sum(1)
    columns = [0.5 * (1 - draws.noise.square()).sum(1, keepdim=True), (own_entropy[draws.row] - own_entropy.mean())[:, None]]
    centre = q.mean.mean(0)
    z, mean = draws.z - centre, q.mean - centre
    squares = z.square() - (mean.square() + q.log_var.exp()).mean(0)
    first, second = torch.triu_indices(z.shape[1], z.shape[1], offset=1, device=z.device)
    products = z[:, first] * z[:, second] - (mean.T @ mean / len(mean))[first, second]
    for more in (z, squares, products):
        if sum(column.shape[1] for column in columns) + more.shape[1] <= len(z) // 10:
            columns.append(more)
    if len(z) < 20:
        columns = [z[:, :0]]
    controls = torch.cat(columns, 1)
    size = controls.square().mean(0).sqrt()
    return controls / torch.where(size > 0, size, torch.ones_like(size))


def _marginal(latent: int, draws: Draws, q: Gaussian, controls: Tensor, prior: Mixture | None) -> tuple[_Term, _Term]:
    """H(z_d) and E log p(z_d) under q(z), by the trapezoidal rule; at the draws, where that would take too many points.

    At a spacing of half the smallest standard deviation the rule is exact on Gaussians to rounding, and on q log q to some
    1e-9; the logarithm of a mixture prior turns more sharply: it takes half of that, and of its own narrowest component.
    """
    mean, log_var = q.mean[:, latent], q.log_var[:, latent]
    std = (0.5 * log_var).exp()
    low, high = (mean - _REACH * std).min(), (mean + _REACH * std).max()
    spacing = 0.5 * std.min()
    if prior is not None:
        narrowest = (0.5 * prior.components.marginals().log_var[:, latent].min()).exp()
        spacing = 0.25 * torch.minimum(std.min(), narrowest.to(std))
    count = int(((high - low) / spacing).ceil().clamp(max=2**31)) + 1
    if count <= max(_GRID, len(draws.z)):
        points = torch.linspace(0, 1, count, dtype=mean.dtype, device=mean.device) * (high - low) + low
    else:
        points = draws.z[:, latent]
    log_q = _log_marginal(points, mean, log_var)
    log_p = _log_prior_marginal(points, latent, prior)
    if count > max(_GRID, len(draws.z)):
        entropy, log_prior = _Term.estimate(-log_q, controls), _Term.estimate(log_p, controls)
    else:
        mass = log_q.exp() * ((high - low) / (count - 1))
        entropy, log_prior = _Term.exact(-(mass * log_q).sum()), _Term.exact((mass * log_p).sum())
    if prior is None:
        log_prior = _Term.exact(-0.5 * (LOG_2PI + (mean.square() + log_var.exp()).mean()))
    return entropy, log_prior


def _log_marginal(points: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """log of the mean of N Gaussians of one dimension at G points, `(G,)`; floored far out in the tails."""
    precision = (-log_var).exp()
    weights = torch.stack([mean * precision, -0.5 * precision, -0.5 * (LOG_2PI + log_var + mean.square() * precision)])
    features = torch.stack([points, points.square(), torch.ones_like(points)], 1)
    total = torch.zeros_like(points)
    for block in torch.split(weights, max(_BLOCK // len(points), 1), 1):
        total += (features @ block).clamp_(min=_UNDERFLOW).exp_().sum(1)
    return total.log() - math.log(len(mean))


def _log_prior_marginal(points: Tensor, latent: int, prior: Mixture | None) -> Tensor:
    """log p(z_d) at points `(G,)`."""
    if prior is None:
        return gaussian.log_density(points, gaussian.standard(points))
    marginals = prior.components.marginals()
    components = Gaussian(marginals.mean[:, latent].to(points), marginals.log_var[:, latent].to(points))
    return (prior.log_weight.to(points) + gaussian.log_density(points[:, None], components)).logsumexp(1)


def _checked(posterior: Gaussian) -> Gaussian:
    """In float64, detached."""
    mean, log_var = posterior
    if mean.dim() != 2 or mean.shape != log_var.shape or not mean.numel():
        shapes = f"mean {list(mean.shape)} and log_var {list(log_var.shape)}"
        raise InputError(f"posterior has {shapes}: expected (N, D) for both, with N and D at least 1")
    if not (mean.isfinite().all() and log_var.isfinite().all()):
        raise InputError("posterior holds NaN or infinite numbers: expected finite ones; find the step at which training broke")
    return Gaussian(mean.detach().double(), log_var.detach().double())
