"""Mixtures: the fitted GMM, the prior of a VAE, and the aggregate posterior q(z).

Densities are in nats. Weights may differ from point to point, which is what a stratified minibatch
estimate needs.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from jensen.base.tree import tree_map
from jensen.family import gaussian
from jensen.family.believed import TiedBelief
from jensen.family.columns import Columns
from jensen.family.family import Components, gaussians
from jensen.family.full import FullGaussian, full
from jensen.family.gaussian import Gaussian
from jensen.family.tied import TiedGaussian

_LIMIT = 1 << 22
"""Elements that a step of a streamed sum may hold: 32 MiB of float64."""

BITS = 1 / math.log(2)
"""Bits of a nat: on a CPU exp2 takes .4 to .75 of the time of exp."""


class Mixture(NamedTuple):
    """p(x) = sum_k weight_k N(x; k).

    log_weight: `(..., K)` normalised log-weights; or `(..., N, K)`, one axis more, for other
        weights at each point.
    components: a `Gaussian`, `SphericalGaussian`, `TiedGaussian` or `FullGaussian`, or `Columns`.
    """

    log_weight: Tensor
    components: Components

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), `(..., N, D)` to `(..., N)`, in nats and in the precision of the mixture."""
        return log_prob(x.to(self.components.mean), self)

    def marginal(self, latent: int) -> "Mixture":
        """The mixture of one coordinate, of the same weights."""
        mean, log_var = gaussians(self.components).marginals()
        return Mixture(self.log_weight, Gaussian(mean[..., [latent]], log_var[..., [latent]]))

    def log_weight_of_points(self) -> Tensor:
        """`(..., N or 1, K)`."""
        own = self.log_weight.dim() >= self.components.mean.dim()
        return self.log_weight if own else self.log_weight.unsqueeze(-2)


def shift(p: Mixture, offset: Tensor) -> Mixture:
    """The mixture of x + offset, `(D,)`."""
    if isinstance(p.components, Columns):
        return p._replace(components=p.components.shifted(offset))
    structure: Callable[..., Components] = type(p.components)
    mean, *others = p.components
    return Mixture(p.log_weight, structure(mean + offset, *others))


def own(components: Components) -> list[Tensor]:
    """The parameters that every component has for itself, the mean first: all but what they share, the
    last fields.
    """
    parameters = list(components)
    if isinstance(components, TiedBelief):
        return parameters[:2]
    return parameters[:1] if isinstance(components, TiedGaussian) else parameters


def reordered(p: Mixture, order: Tensor) -> Mixture:
    """`p` `(K,)` with its components in another order."""
    structure: Callable[..., Components] = type(p.components)
    mine = tuple(own(p.components))
    shared = list(p.components)[len(mine) :]
    moved = tree_map(lambda part: part[order], mine)
    return Mixture(p.log_weight[order], structure(*moved, *shared))


def logsumexp(joint: Tensor, dim: int) -> Tensor:
    """`torch.logsumexp` without subnormal numbers, which make exp about ten times slower on a CPU.

    Terms below exp(-80) of the largest (exp(-700) in float64) count as that much.
    """
    top = joint.detach().amax(dim, keepdim=True)
    low = BITS * (-700 if joint.dtype == torch.float64 else -80)
    return ((joint - top) * BITS).clamp(min=low).exp2().sum(dim).log() + top.squeeze(dim)


def log_joint(x: Tensor, p: Mixture) -> Tensor:
    """log p(x, k), `(..., N, D)` to `(..., N, K)`."""
    return p.log_weight_of_points() + p.components.log_density(x)


def log_prob(
    x: Tensor, p: Mixture, joint: Callable[[Tensor, Mixture], Tensor] = log_joint
) -> Tensor:
    """log p(x), `(..., N, D)` to `(..., N)`; of many points part after part, so an (N, K) array is
    never held.
    """
    wide = hasattr(p.components, "scale_tril") or joint is not log_joint
    each = p.components.mean.numel() if wide else p.components.mean[..., 0].numel()
    return _streamed(lambda part, p: logsumexp(joint(part, p), -1), x, p, each, dim=-1)


def responsibilities(x: Tensor, p: Mixture) -> Tensor:
    """p(k|x), `(..., N, D)` to `(..., N, K)`."""
    return log_joint(x, p).softmax(-1)


def log_marginals(x: Tensor, p: Mixture) -> Tensor:
    """log p(x_d) of each dimension, `(..., N, D)` to `(..., N, D)`; the mixture's marginals have
    its weights.
    """
    marginals = tree_map(lambda part: part.unsqueeze(-3), gaussians(p.components).marginals())

    def part(x: Tensor, p: Mixture) -> Tensor:
        return logsumexp(
            p.log_weight_of_points().unsqueeze(-1)
            + gaussian.log_density(x.unsqueeze(-2), marginals),
            -2,
        )

    return _streamed(part, x, p, p.components.mean.numel(), dim=-2)


def aggregate(posterior: Gaussian) -> Mixture:
    """q(z) = (1/N) sum_n q(z|x_n), one component a point, of a posterior `(N, D)`."""
    mean, log_var = posterior
    log_weight = mean.new_full(mean.shape[:-1], -math.log(mean.shape[-2]))
    return Mixture(log_weight, Gaussian(mean, log_var))


def mean(p: Mixture) -> Tensor:
    """E[x], `(..., D)`."""
    return (p.log_weight.exp().unsqueeze(-1) * p.components.mean).sum(-2)


def sample(p: Mixture, uniform: Tensor, noise: Tensor) -> Tensor:
    """Draws `(N, D)` of a mixture without leading axes, from draws in [0, 1) `(N,)` and standard
    normal `(N, D)`.
    """
    cumulative = p.log_weight.exp().cumsum(-1)
    component = torch.searchsorted(cumulative, uniform.to(cumulative) * cumulative[-1], right=True)
    component = component.clamp(max=len(cumulative) - 1)
    drawn: FullGaussian = tree_map(lambda part: part[component], full(p.components))
    return drawn.rsample(noise.to(drawn.mean))


def _streamed(
    value: Callable[[Tensor, Mixture], Tensor], x: Tensor, p: Mixture, each: int, dim: int
) -> Tensor:
    """`value` of all points, joined along `dim`, from parts for which `each` numbers a point come
    to at most `_LIMIT`.
    """
    size = max(1, _LIMIT // max(each, 1))
    if x.shape[-2] <= size:
        return value(x, p)
    own = p.log_weight.dim() >= p.components.mean.dim()
    weights = (
        torch.split(p.log_weight, size, -2) if own else [p.log_weight] * -(-x.shape[-2] // size)
    )
    mixtures = [p._replace(log_weight=weight) for weight in weights]
    return torch.cat(
        [value(part, p) for part, p in zip(torch.split(x, size, -2), mixtures, strict=True)], dim
    )
