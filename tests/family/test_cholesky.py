"""Factors of covariances."""

import pytest
import torch
from mixtures import normal

from jensen.family import cholesky


@pytest.mark.parametrize("dim", [1, 2, 4, 5])
def test_many_factors_are_solved_as_each_is(dim):
    some = normal(30, 20, dim, dim)
    factor = torch.linalg.cholesky(some @ some.mT + torch.eye(dim).double()).requires_grad_()
    x = normal(2, 1, 20, dim, 3, seed=1).requires_grad_()  # of several for each
    found = cholesky.solve_columns(factor, x)
    expected = torch.linalg.solve_triangular(factor, x, upper=False)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(factor @ found, x.expand_as(found), rtol=1e-11, atol=1e-11)
    ours, theirs = (
        torch.autograd.grad(each.square().sum(), (factor, x)) for each in (found, expected)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
