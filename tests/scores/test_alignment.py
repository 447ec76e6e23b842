"""Which latent is which: information by quadrature, and permuted, scaled and turned codes."""

import math

import pytest
import torch

from jensen import Gaussian
from jensen.base.errors import InputError
from jensen.scores.alignment import alignment, shared_information


def codes(count=400, dim=4, width=-3.0, seed=0):
    draw = torch.Generator().manual_seed(seed)
    mean = torch.randn(count, dim, generator=draw, dtype=torch.float64)
    return Gaussian(mean, torch.full_like(mean, width))


def test_the_information_of_two_latents_is_that_of_quadrature():
    """On a grid: the joint density is a mean of products of normals, the marginals its sums."""
    one = codes(60, 1, -1.0)
    mean = 0.7 * one.mean + 0.3 * codes(60, 1, seed=1).mean
    other = Gaussian(mean, torch.full_like(mean, -2.0))
    grid = torch.linspace(-9, 9, 1501, dtype=torch.float64)
    step = 18 / 1500
    rows = [
        torch.distributions.Normal(each.mean, (0.5 * each.log_var).exp()).log_prob(grid).exp()
        for each in (one, other)
    ]
    joint = rows[0].T @ rows[1] / 60
    ratio = joint.log() - joint.sum(1, keepdim=True).log() - joint.sum(0, keepdim=True).log()
    exact = (torch.nan_to_num(joint * (ratio - 2 * math.log(step)), 0.0)).sum() * step**2
    many = [
        shared_information(Gaussian(*(part.repeat(30, 1) for part in one)),
                           Gaussian(*(part.repeat(30, 1) for part in other)))
    ][0]  # fmt: skip
    assert many.standard_error.item() < 0.02
    assert abs(many.information.item() - exact) < 4 * many.standard_error
    apart = rows[0].mean(0)
    within = -0.5 * (1 + math.log(2 * math.pi) - 1.0)
    whole = within - (apart * apart.log().nan_to_num(neginf=0.0)).sum() * step
    assert many.own.item() == pytest.approx(whole.item(), abs=0.1)


def test_permuted_scaled_and_noisier_latents_are_found_again():
    one = codes()
    order = torch.tensor([2, 0, 3, 1])
    scale = torch.tensor([-1.0, 0.2, 5.0, 1.0]).double()
    other = Gaussian(one.mean[:, order] * scale, one.log_var[:, order] + 2 * scale.abs().log())
    found = alignment(one, other)
    assert [order[match.other].item() for match in found] == [match.latent for match in found]
    assert min(match.share for match in found) > 0.75  # two draws of one code: not all of it
    assert [match.latent for match in found] == [0, 1, 2, 3]


def test_the_matching_is_the_best_of_all_and_not_the_greedy_one():
    """z0 shares most with both, but z1 shares with the first of them alone."""
    one = codes(600, 2)
    a, b = one.mean.unbind(1)
    mean = torch.stack([a + 0.8 * b, a], 1)
    found = alignment(one, Gaussian(mean, torch.full_like(mean, -3.0)))
    assert [(match.latent, match.other) for match in found] == [(0, 1), (1, 0)]


def test_unused_latents_and_independent_ones_share_nothing():
    one = codes(dim=3)
    mean = one.mean.clone()
    mean[:, 1] = 0.0
    other = Gaussian(mean, torch.where(mean == 0, 0.0, one.log_var))
    found = alignment(one, other)
    assert [(match.latent, match.other) for match in found] == [(0, 0), (2, 2)]
    apart = shared_information(codes(2000, 2), codes(2000, 2, seed=5))
    assert bool((apart.information.abs() < 4 * apart.standard_error + 0.15).all())


def test_codes_of_other_examples_are_refused_in_a_sentence():
    with pytest.raises(
        InputError, match="codes of 400 examples and the other of 399: expected the"
    ):
        alignment(codes(), codes(399))
