"""Minibatch estimates of log q(z): enumerated over all batches of a tiny data set, against sums
written out with scipy.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

from jensen.base.errors import InputError
from jensen.bound.minibatch import (
    ESTIMATORS,
    gather_minibatch,
    log_weight,
    minibatch_log_density,
    minibatch_row,
)
from jensen.family.gaussian import Gaussian

N = 6
D = 3


def posteriors(count=N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean, log_var, noise = torch.randn(3, count, D, generator=generator, dtype=torch.float64)
    return Gaussian(mean, log_var), mean + (log_var / 2).exp() * noise


def scipy_log_density(z, q):
    """log N(z_i; x_j) of each dimension, `(len(z), len(q), D)`."""
    scale = np.exp(q.log_var.numpy() / 2)
    return stats.norm(q.mean.numpy(), scale).logpdf(z.numpy()[:, None])


def estimate(estimator, q, z, size=N):
    return minibatch_log_density(z, q, log_weight(estimator, len(z), size, like=z))


@pytest.mark.parametrize("batch", [2, 3, 4, N])
@pytest.mark.parametrize("estimator", ["stratified", "mss"])
def test_the_mean_over_all_batches_is_the_aggregate_density(estimator, batch):
    """T8: over every ordered batch that holds the point, exp(log q_hat) averages to q."""
    q, z = posteriors()
    joint = []
    marginals = []
    for rest in itertools.permutations(range(1, N), batch - 1):
        rows = torch.tensor([0, *rest])
        log_joint, log_marginals = estimate(
            estimator, Gaussian(q.mean[rows], q.log_var[rows]), z[rows]
        )
        joint.append(log_joint[0].exp().item())
        marginals.append(log_marginals[0].exp().numpy())
    density = scipy_log_density(z[:1], q)[0]
    assert math.log(np.mean(joint)) == pytest.approx(
        logsumexp(density.sum(1)) - math.log(N), abs=1e-10
    )
    assert np.log(np.mean(marginals, 0)) == pytest.approx(
        logsumexp(density, 0) - math.log(N), abs=1e-10
    )


@pytest.mark.parametrize("estimator", ["stratified", "mws", "plain"])
def test_the_whole_data_set_as_a_batch_is_exact(estimator):
    """Not by mss, which still gives one other row next to no weight."""
    q, z = posteriors()
    joint, marginals = estimate(estimator, q, z)
    density = scipy_log_density(z, q)
    constant = math.log(N) * (2 if estimator == "mws" else 1)
    assert joint.numpy() == pytest.approx(logsumexp(density.sum(2), 1) - constant, abs=1e-12)
    assert marginals.numpy() == pytest.approx(logsumexp(density, 1) - constant, abs=1e-12)


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_the_weights_are_those_of_the_papers(batch):
    size = 1000
    others = max(batch - 1, 1)
    stratified, mss, mws, plain = (
        log_weight(name, batch, size, like=torch.zeros((), dtype=torch.float64))
        for name in ESTIMATORS
    )
    same = torch.eye(batch, dtype=torch.bool)
    after = torch.roll(same, 1, 1) & ~same
    assert torch.equal(plain, torch.full_like(plain, -math.log(batch)))
    torch.testing.assert_close(mws, plain - math.log(size))
    for weight in (stratified, mss):
        assert weight[same].exp().tolist() == pytest.approx([1 / size] * batch)
        if batch > 1:
            assert weight.exp().sum(1).tolist() == pytest.approx([1] * batch)
    assert stratified[~same].exp().tolist() == pytest.approx(
        [(size - 1) / (size * others)] * (batch * (batch - 1))
    )
    assert mss[after].exp().tolist() == pytest.approx(
        [(size - batch + 1) / (size * others)] * int(after.sum())
    )
    assert mss[~same & ~after].exp().tolist() == pytest.approx(
        [1 / others] * int((~same & ~after).sum())
    )


@pytest.mark.parametrize("scale", [1e-4, 0.1, 1.0, 100.0])
@pytest.mark.parametrize("estimator", ["stratified", "mss"])
def test_no_point_is_more_than_log_n_nats_above_the_aggregate(estimator, scale):
    """I2, also where posteriors are so narrow that all else underflows; a plain estimate stops at
    log M.
    """
    q, z = posteriors(32, seed=1)
    q, z = (
        Gaussian(q.mean, torch.full_like(q.mean, 2 * math.log(scale))),
        q.mean + scale * (z - q.mean),
    )
    own = torch.distributions.Normal(q.mean, scale).log_prob(z)
    joint, marginals = estimate(estimator, q, z, 5000)
    assert (own.sum(1) - joint).max() <= math.log(5000) + 1e-9
    assert (own - marginals).max() <= math.log(5000) + 1e-9
    assert (own.sum(1) - estimate("plain", q, z, 5000)[0]).max() <= math.log(32) + 1e-9
    if scale == 1e-4:
        assert (own.sum(1) - joint).min() == pytest.approx(math.log(5000), abs=1e-9)


@pytest.mark.parametrize("estimator", ["stratified", "mws", "plain"])
def test_the_order_of_the_batch_does_not_matter(estimator):
    q, z = posteriors()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = estimate(estimator, Gaussian(q.mean[order], q.log_var[order]), z[order], 100)
    for before, after in zip(estimate(estimator, q, z, 100), shuffled, strict=True):
        torch.testing.assert_close(before[order], after, rtol=0, atol=1e-12)


def test_collapsed_posteriors_have_their_density():
    nothing = torch.zeros(5, D, dtype=torch.float64)
    z = posteriors(5)[1]
    standard = torch.distributions.Normal(0.0, 1.0).log_prob(z)
    for estimator in ("stratified", "mss", "plain"):
        joint, marginals = estimate(estimator, Gaussian(nothing, nothing), z, 77)
        torch.testing.assert_close(joint, standard.sum(1))
        torch.testing.assert_close(marginals, standard)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_are_finite_differences(estimator):
    q, z = posteriors(4)
    leaves = [part.clone().requires_grad_() for part in (z, *q)]
    assert torch.autograd.gradcheck(
        lambda z, mean, log_var: estimate(estimator, Gaussian(mean, log_var), z, 50), leaves
    )


def test_gradients_of_narrow_posteriors_are_finite():
    q, z = posteriors(8)
    mean = q.mean.float().requires_grad_()
    log_var = torch.full((8, D), -20.0, requires_grad=True)
    z = mean + (log_var / 2).exp() * torch.randn(8, D, generator=torch.Generator().manual_seed(0))
    joint, marginals = estimate("stratified", Gaussian(mean, log_var), z, 50)
    grads = torch.autograd.grad(joint.sum() + marginals.sum(), [mean, log_var])
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize(("batch", "world"), [(8, 2), (9, 3), (7, 2), (5, 4)])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_shares_of_the_ranks_are_the_rows_of_one_process(estimator, batch, world):
    whole = log_weight(estimator, batch, 100)
    columns = minibatch_row(batch, world)
    assert sorted(columns.tolist()) == list(range(batch))
    for rank in range(world):
        share = log_weight(estimator, batch, 100, rank=rank, world=world)
        assert torch.equal(share, whole[rank::world][:, columns])
        if batch % world == 0:
            own = rank * (batch // world) + torch.arange(batch // world)
            assert torch.equal(share[torch.arange(len(own)), own], whole.diagonal()[: len(own)])


def test_one_process_is_the_whole_minibatch():
    rows = torch.ones(3, 2)
    assert gather_minibatch(rows) is rows


def test_bad_input_is_one_sentence():
    with pytest.raises(
        InputError, match="dataset_size is 7: expected at least 8, the examples of a minibatch"
    ):
        log_weight("stratified", 8, 7)
    with pytest.raises(
        InputError, match="estimator is 'exact': expected one of stratified, mss, mws, plain"
    ):
        log_weight("exact", 8, 100)
