"""Distributions as values: densities and divergences against torch.distributions, and who says what
is missing.
"""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, distributions

from jensen.base.errors import InputError
from jensen.base.tree import tree_map
from jensen.bound.bound import Bound
from jensen.family import gaussian
from jensen.family.family import Posterior, Product, diagonal, entropy, kl, marginals
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def a_normal(*batch, dim=3, seed=0):
    factor = torch.tril(0.4 * randn(*batch, dim, dim, seed=seed), -1)
    scales = torch.diag_embed((0.3 * randn(*batch, dim, seed=seed + 1)).exp())
    return FullGaussian(randn(*batch, dim, seed=seed + 2), factor + scales)


def a_gaussian(*batch, dim=3, seed=0):
    return Gaussian(randn(*batch, dim, seed=seed), 0.5 * randn(*batch, dim, seed=seed + 1))


def in_torch(p, dim=3):
    """The same distribution as torch has it."""
    if isinstance(p, FullGaussian):
        return distributions.MultivariateNormal(p.mean, scale_tril=p.scale_tril)
    mean, log_var = (part.double().expand(*part.shape[:-1], dim) for part in p)
    return distributions.MultivariateNormal(mean, torch.diag_embed(log_var.exp()))


OTHERS = {"standard": gaussian.STANDARD, "diagonal": a_gaussian(seed=7), "full": a_normal(seed=9)}


@pytest.mark.parametrize("p", OTHERS)
@pytest.mark.parametrize("make", [a_gaussian, a_normal])
def test_a_divergence_in_closed_form_is_that_of_torch(make, p):
    q = make(5)
    expected = distributions.kl_divergence(in_torch(q), in_torch(OTHERS[p]))
    torch.testing.assert_close(kl(q, OTHERS[p]), expected)


@pytest.mark.parametrize("make", [a_gaussian, a_normal])
def test_density_entropy_and_marginals_are_those_of_torch(make):
    q = make(5)
    x = randn(5, 3, seed=4)
    assert isinstance(q, Posterior)
    torch.testing.assert_close(q.log_prob(x), in_torch(q).log_prob(x))
    torch.testing.assert_close(entropy(q), in_torch(q).entropy())
    torch.testing.assert_close(q.marginals().log_var.exp(), in_torch(q).variance)
    one = q.marginal(1)
    expected = distributions.Normal(in_torch(q).mean[:, 1], in_torch(q).variance[:, 1].sqrt())
    torch.testing.assert_close(one.log_prob(x[:, [1]]), expected.log_prob(x[:, 1]))


def test_draws_have_the_covariance():
    q = a_normal()
    draws = q.rsample(randn(200_000, 3, seed=5))
    assert (torch.cov(draws.T) - in_torch(q).covariance_matrix).abs().max() < 0.03


def test_a_divergence_without_closed_form_is_none():
    p = Mixture(torch.zeros(1), Gaussian(torch.zeros(1, 3), torch.zeros(1, 3)))
    assert kl(a_gaussian(5), p) is None
    assert kl(object(), gaussian.STANDARD) is None


def test_a_product_and_a_mixture_know_their_marginals():
    parts = [
        Mixture(
            randn(4, seed=s).log_softmax(0), Gaussian(randn(4, 1, seed=s), randn(4, 1, seed=s + 9))
        )
        for s in range(2)
    ]
    product = Product(tree_map(lambda *each: torch.stack(each), *parts))
    x = randn(6, 2)
    expected = sum(part.log_prob(x[:, [d]]) for d, part in enumerate(parts))
    torch.testing.assert_close(product.log_prob(x), expected)
    torch.testing.assert_close(tuple(product.marginal(1).components), tuple(parts[1].components))

    p = Mixture(randn(4).log_softmax(0), Gaussian(randn(4, 2, seed=1), randn(4, 2, seed=2)))
    choice = distributions.Categorical(logits=p.log_weight)
    each = distributions.Normal(p.components.mean[:, 1], (0.5 * p.components.log_var[:, 1]).exp())
    expected = distributions.MixtureSameFamily(choice, each).log_prob(x[:, 1])
    torch.testing.assert_close(p.marginal(1).log_prob(x[:, [1]]), expected)


class Laplace(NamedTuple):
    """A posterior of one's own."""

    mean: Tensor
    scale: Tensor


@pytest.mark.parametrize("ask", [diagonal, marginals])
def test_another_family_is_named(ask):
    own = a_gaussian(5)
    assert ask(own, "objective=dip") is own
    with pytest.raises(
        InputError,
        match=r"objective=dip needs .* model.encoder gives a Laplace: expected .*; choose",
    ):
        ask(Laplace(torch.zeros(2, 3), torch.ones(2, 3)), "objective=dip")


def test_a_full_covariance_is_not_taken_for_a_diagonal_one():
    with pytest.raises(InputError, match="gives a FullGaussian"):
        diagonal(a_normal(5), "objective=dip")
    torch.testing.assert_close(
        marginals(a_normal(5), "codes").log_var.exp(), in_torch(a_normal(5)).variance
    )


def test_a_function_on_a_tree_keeps_its_make():
    tree = (a_gaussian(4), Bound(torch.ones(4), torch.zeros(4)), torch.arange(4))
    posterior, bound, row = tree_map(lambda part: part[1:], tree)
    assert isinstance(posterior, Gaussian)
    assert isinstance(bound, Bound)
    assert posterior.mean.shape == (3, 3)
    assert row.tolist() == [1, 2, 3]
    assert tree_map(torch.add, bound, bound).distortion.tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="zip"):
        tree_map(torch.add, (row,), (row, row))
