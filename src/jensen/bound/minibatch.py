"""log q(z) and log q(z_d) of the aggregate posterior q(z) = (1/N) sum_n q(z|x_n), estimated from a
minibatch, with gradient.

    log q(z_i) ~ logsumexp_j [log w_ij + log q(z_i|x_j)],    log q(z_id) ~ logsumexp_j [log w_ij +
    log q(z_id|x_jd)]

for rows i, j of a minibatch of M of the N examples. The estimators are their weights w:

    stratified   w_ii = 1/N, w_ij = (N-1) / (N (M-1)): over the other rows the mean of sum_j w_ij
    q(z_i|x_j) is q(z_i), and
                 log q(z|x) - log q(z) is at most log N. The one to use.
    mss          the same mean; Chen et al. 2018 (arXiv 1802.04942), appendix C.2: w_ii = 1/N,
    (N-M+1) / (N (M-1)) for one other
                 row (here the next of the minibatch), 1 / (M-1) for the rest.
    mws          w_ij = 1 / (N M); Chen et al. 2018, eq. 5. Its gradient is that of `plain`, its
    value is off by log N for each
                 log-density, so it is not a number to look at.
    plain        w_ij = 1/M: counts its own row M times too little, so log q(z|x) - log q(z) is at
    most log M.

A logarithm of a mean of few terms is too small on average (Jensen's inequality), so all of these
are training signals; what they estimate is computed exactly by `bound.decomposition`.

Under distributed training z is this rank's share of the minibatch and the posteriors are all of it:
`gather_minibatch`.
"""

import math

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_choice
from jensen.base.ranks import gather_batch, gather_rows
from jensen.family import gaussian
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import logsumexp

ESTIMATORS = ("stratified", "mss", "mws", "plain")


def gather_minibatch(rows: Tensor) -> Tensor:
    """This rank's `(b, ...)` rows of a minibatch to all `(M, ...)` of it, rank after rank; see
    `minibatch_row`.

    With gradient, where gradients are recorded, and then the shares must be equal, as they are in
    training.
    """
    return gather_batch(rows) if torch.is_grad_enabled() else gather_rows(rows)


def minibatch_row(batch: int, world: int = 1, device: torch.device | None = None) -> Tensor:
    """`(M,)`: which row of a minibatch of M each gathered row is. Rank r's share is rows r, r +
    world, r + 2 world, ...
    """
    return torch.cat([torch.arange(rank, batch, world, device=device) for rank in range(world)])


def log_weight(
    estimator: str,
    batch: int,
    dataset_size: int,
    *,
    rank: int = 0,
    world: int = 1,
    like: Tensor | None = None,
) -> Tensor:
    """`(b, M)` log w_ij for the b rows that are `rank`'s share of a minibatch of M = `batch`, and
    its gathered posteriors.

    With equal shares the own posterior of row i is column rank * b + i.

    Args:
        estimator: one of `ESTIMATORS`.
        batch: M.
        dataset_size: N, at least M.
        rank: whose rows.
        world: the number of ranks.
        like: gives dtype and device.

    Raises:
        InputError: another name; a data set smaller than the batch.
    """
    check_choice("estimator", estimator, ESTIMATORS)
    if dataset_size < batch:
        raise InputError(
            f"dataset_size is {dataset_size}: expected at least {batch}, the examples of a"
            " minibatch; the size of a stream is not known"
        )
    others = max(batch - 1, 1)
    own = after = rest = -math.log(batch)
    if estimator == "mws":
        own = after = rest = -math.log(batch) - math.log(dataset_size)
    if estimator in ("stratified", "mss"):
        own = -math.log(dataset_size)
        after = rest = (
            math.log(max(dataset_size - 1, 1)) - math.log(dataset_size) - math.log(others)
        )
    if estimator == "mss":
        after = math.log(dataset_size - batch + 1) - math.log(dataset_size) - math.log(others)
        rest = -math.log(others)
    like = torch.zeros(()) if like is None else like
    rows = torch.arange(rank, batch, world, device=like.device)
    distance = (minibatch_row(batch, world, like.device) - rows[:, None]) % batch
    return (
        like.new_full(distance.shape, rest)
        .masked_fill(distance == 1, after)
        .masked_fill(distance == 0, own)
    )


def minibatch_log_density(
    z: Tensor, posterior: Gaussian, log_weight: Tensor
) -> tuple[Tensor, Tensor]:
    """log q(z) `(b,)` and log q(z_d) `(b, D)` at `z` `(b, D)`, of M posteriors `(M, D)` weighted by
    `log_weight` `(b, M)`.

    From the b x M x D log-densities and not by a matrix product, which in float32 errs where
    posteriors are narrow.
    """
    pairwise = gaussian.log_density(z[:, None], posterior)
    return logsumexp(pairwise.sum(-1) + log_weight, 1), logsumexp(
        pairwise + log_weight[..., None], 1
    )


def minibatch_parts(
    z: Tensor, posterior: Gaussian, log_weight: Tensor, log_prior: Tensor
) -> Tensor:
    """MI, TC and DWKL, `(3,)`, of a whole minibatch `z` `(M, D)`, `log_prior` `(M,)`; their sum is
    its sampled rate, always.
    """
    joint, marginals = minibatch_log_density(z, posterior, log_weight)
    product = marginals.sum(-1)
    own = posterior.log_prob(z)
    return torch.stack(
        [(own - joint).mean(), (joint - product).mean(), (product - log_prior).mean()]
    )
