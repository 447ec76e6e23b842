"""The aggregate posterior q(z) = (1/N) sum_n q(z|x_n) of N Gaussians: draws of it, and its log-density."""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from jensen.family import gaussian
from jensen.family.gaussian import LOG_2PI, Gaussian
from jensen.family.mixture import BITS

_BLOCK = 1 << 18
"""Numbers in a temporary: 2 MB in float64, which a core's cache holds."""

_ROUNDING = 1e-5
"""Nats that a product may be off by."""

_UNDERFLOW = -115.0
"""exp2 is many times slower where it underflows, and 2^-115 of anything that is summed with 1 is
nothing.
"""


class Draws(NamedTuple):
    """S draws of the aggregate posterior.

    z: `(S, D)`; row: `(S,)`, the posterior each came from; noise: `(S, D)`, (z - mean) / std of
        that posterior.
    """

    z: Tensor
    row: Tensor
    noise: Tensor


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
    q, draws = about_mean(q, draws)
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

    log_own = own_log_density(draws, q)
    if dataset_size == len(q.mean):
        return log_own + log_ratio - math.log(dataset_size)
    share = (dataset_size - 1) / max(len(q.mean) - 1, 1)
    return (
        log_own
        + log_ratio
        + torch.log(share + (1 - share) * (-log_ratio).exp())
        - math.log(dataset_size)
    )


def log_marginal(points: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
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


def about_mean(q: Gaussian, draws: Draws) -> tuple[Gaussian, Draws]:
    """Posteriors and draws about the mean of all: no density of z changes by it."""
    about = Gaussian(q.mean - q.mean.mean(0), q.log_var)
    z = gaussian.sample(Gaussian(about.mean[draws.row], about.log_var[draws.row]), draws.noise)
    return about, draws._replace(z=z)


def own_log_density(draws: Draws, q: Gaussian) -> Tensor:
    """log q(z|x_row), `(S,)`."""
    return -0.5 * (LOG_2PI + q.log_var[draws.row] + draws.noise.square()).sum(1)


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
