"""A matching of the latents of one model with those of another, by the information that they share."""

from typing import NamedTuple

import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.base.random import fold
from jensen.family.gaussian import LOG_2PI, Gaussian

MOST = 2_000
"""Examples of which each latent's mixture is made, if there are more."""

LEAST = 0.01
"""Nats about the example, below which a latent is unused."""

_ROWS = 1 << 22
"""Densities that are held at a time."""


class Shared(NamedTuple):
    """Information that latents of two models have of one another.

    information: `(D, E)`, I(z_d; z'_e) in nats, and its standard error.
    own, others: `(D,)` and `(E,)`, I(x; z_d) and I(x; z'_e), the most that they could share.
    """

    information: Tensor
    standard_error: Tensor
    own: Tensor
    others: Tensor


class Match(NamedTuple):
    """A latent of one model, the latent of the other that is it, what they share in nats, and how
    much that is of the most they could, in [0, 1].
    """

    latent: int
    other: int
    information: float
    share: float


def shared_information(one: Gaussian, other: Gaussian, seed: int = 0) -> Shared:
    """The mutual information of each latent of one model with each of another, whose codes of the same
    N examples are `(N, D)` and `(N, E)`.

    Given an example their latents are independent, so of all examples a pair of them is a mixture of N
    products of Gaussians, and its information is a mean over draws of log-densities that are known: no
    bins, no means of posteriors, no neighbours. It is at most log N.

    >>> z = Gaussian(torch.linspace(-2, 2, 200).double().unsqueeze(1), torch.full((200, 1), -4.0).double())
    >>> found = shared_information(z, Gaussian(-3 * z.mean, z.log_var))
    >>> bool(found.information[0, 0] > 1.5)
    True

    Raises:
        InputError: codes of another number of examples.
    """
    if len(one.mean) != len(other.mean):
        raise InputError(
            f"one model has codes of {len(one.mean)} examples and the other of {len(other.mean)}: expected"
            " the same examples in the same order"
        )
    draw = torch.Generator().manual_seed(fold(seed, "alignment") % (1 << 63))
    kept = torch.randperm(len(one.mean), generator=draw)[:MOST]
    kept = kept[: len(kept) - len(kept) % 2] if len(kept) > 1 else kept.repeat(2)
    codes = [
        Gaussian(each.mean[kept].double().cpu(), each.log_var[kept].double().cpu())
        for each in (one, other)
    ]
    noises = [torch.randn(each.mean.shape, generator=draw, dtype=torch.float64) for each in codes]
    draws = [
        each.mean + (0.5 * each.log_var).exp() * noise
        for each, noise in zip(codes, noises, strict=True)
    ]
    joint, alone = [], []
    at_a_time = max(1, _ROWS // (len(kept) * sum(each.mean.shape[1] for each in codes)))
    for rows in torch.arange(len(kept)).split(at_a_time):
        first, second = (_densities(each, z[rows]) for each, z in zip(codes, draws, strict=True))
        joint.append(torch.einsum("dsn,esn->sde", first, second) / len(kept))
        alone.append([each.mean(-1).T for each in (first, second)])
    marginals = [torch.cat(parts).log() for parts in zip(*alone, strict=True)]
    values = torch.cat(joint).log() - marginals[0].unsqueeze(2) - marginals[1].unsqueeze(1)
    own, others = (
        (-0.5 * (each.log_var + LOG_2PI + noise.square()) - marginal).mean(0)
        for each, noise, marginal in zip(codes, noises, marginals, strict=True)
    )
    errors = (values[::2] - values[1::2]).square().sum(0).sqrt() / len(values)
    return Shared(values.mean(0), errors, own, others)


def _densities(q: Gaussian, z: Tensor) -> Tensor:
    """The densities of draws `(S, D)` under each of N posteriors, `(D, S, N)`."""
    mean, log_var = q.mean.T.unsqueeze(1), q.log_var.T.unsqueeze(1)
    square = (z.T.unsqueeze(2) - mean).square_().mul_((-log_var).exp())
    return square.add_(log_var + LOG_2PI).mul_(-0.5).exp_()


def alignment(one: Gaussian, other: Gaussian, seed: int = 0) -> list[Match]:
    """Match latents of two models, so that matched ones share the most information in sum (Kuhn 1955,
    the Hungarian method), by the latents of `one` that are used.

    Latents that tell less than 0.01 nats of the example are left out.
    """
    from scipy.optimize import linear_sum_assignment

    found = shared_information(one, other, seed)
    rows, columns = ((each > LEAST).nonzero().flatten() for each in (found.own, found.others))
    gain = found.information[rows][:, columns]
    matches = []
    for row, column in zip(*linear_sum_assignment(gain.numpy(), maximize=True), strict=True):
        most = min(float(found.own[rows[row]]), float(found.others[columns[column]]))
        value = float(gain[row, column])
        share = min(max(value / most, 0.0), 1.0)
        matches.append(Match(int(rows[row]), int(columns[column]), value, share))
    return matches
