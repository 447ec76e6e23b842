"""Divergences of each two of several distributions."""

import pytest
import torch
from mixtures import mixed

from jensen.base.errors import InputError
from jensen.bound import divergence
from jensen.bound.pairs import Source, pairs
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian


def source(p, count=4000, seed=0):
    draws = divergence.stratified(p, count, torch.Generator().manual_seed(seed))
    return Source(draws, p.log_prob)


def test_each_is_the_estimate_of_its_pair():
    several = [mixed(FullGaussian, seed=0), mixed(Gaussian, seed=1), mixed(FullGaussian, seed=2)]
    found = pairs([source(p, seed=at) for at, p in enumerate(several)])
    for i, p in enumerate(several):
        for j, q in enumerate(several):
            for which, value, error in (
                ("kl", found.kl, found.kl_error),
                ("jensen_shannon", found.jensen_shannon, found.jensen_shannon_error),
            ):
                other = divergence.estimate(p, q, which, 20_000)
                apart = (value[i, j] - other.value).abs()
                assert apart <= 4 * (error[i, j] + other.standard_error) + 1e-12
    assert torch.equal(found.jensen_shannon, found.jensen_shannon.T)
    assert bool((found.kl.diagonal() == 0).all())


def test_other_spaces_are_refused_in_a_sentence():
    with pytest.raises(InputError, match="have 3 and 4 dimensions: expected the same space"):
        pairs([source(mixed(Gaussian, d=dim)) for dim in (3, 4)])
