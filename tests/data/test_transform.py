"""Random changes to observations: their range, their law, and what they depend on."""

import math

import pytest
import torch
from scipy import stats

from jensen.data.transform import binarise, colour, noise

TRANSFORMS = [colour, noise, binarise]


def images(count, side=8, seed=0):
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed))


def sprite(count, side=8):
    x = torch.zeros(count, 1, side, side)
    x[:, :, 2:5, 3:7] = 1
    return x


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_draw_belongs_to_its_example_and_key(transform):
    x = images(20)
    index = torch.arange(100, 120)
    together = transform(x, 5, index)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(transform(x[order], 5, index[order]), together[order])
    for row in (0, 7, 19):
        assert torch.equal(transform(x[row : row + 1], 5, index[row : row + 1])[0], together[row])
    assert not torch.equal(transform(x, 6, index), together)
    assert not torch.equal(transform(x, 5, index + 1), together)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_argument_is_left_as_it_was(transform):
    x = images(3)
    before = x.clone()
    found = transform(x, 0, torch.arange(3))
    assert torch.equal(x, before)
    assert found.dtype == torch.float32
    assert 0 <= found.min() <= found.max() <= 1


def test_transforms_of_one_key_draw_apart():
    half = torch.full((2000, 1, 1, 1), 0.5)
    index = torch.arange(2000)
    shade = colour(half, 3, index)[:, 0].flatten() * 4 - 1  # their uniforms
    background = noise(torch.zeros_like(half), 3, index)[:, 0].flatten()
    level = binarise(half, 3, index).flatten()
    for left, right in ((shade, background), (shade, level), (background, level)):
        assert torch.corrcoef(torch.stack([left, right]))[0, 1].abs() < 4 / math.sqrt(2000)


def test_a_colour_is_one_for_an_image_and_uniform_from_a_half_to_one():
    x = sprite(20_000, 6)
    found = colour(x, 1, torch.arange(20_000))
    assert found.shape == (20_000, 3, 6, 6)
    shade = found.amax((2, 3))
    assert torch.equal(found, x * shade[:, :, None, None])
    assert 0.5 <= shade.min() < 0.501
    assert 0.999 < shade.max() <= 1
    assert stats.kstest(shade.flatten().double().numpy(), stats.uniform(0.5, 0.5).cdf).pvalue > 1e-3
    assert (torch.corrcoef(shade.T) - torch.eye(3)).abs().max() < 4 / math.sqrt(20_000)


def test_noise_is_uniform_behind_the_sprite_and_never_above_one():
    x = sprite(200)
    found = noise(x, 1, torch.arange(200))
    assert found.shape == (200, 3, 8, 8)
    mask = x.expand_as(found) == 1
    assert torch.equal(found[mask], torch.ones(int(mask.sum())))
    background = found[~mask]
    assert stats.kstest(background.double().numpy(), "uniform").pvalue > 1e-3
    channels = found[:, :, 0].reshape(200, 3, -1)
    assert not torch.equal(channels[:, 0], channels[:, 1])


def test_noise_adds_to_grey_levels_and_is_clamped():
    x = images(50)
    index = torch.arange(50)
    added = noise(torch.zeros_like(x), 1, index)
    assert torch.equal(noise(x, 1, index), (x + added).clamp(max=1))


def test_binarised_pixels_are_one_with_the_probability_of_their_level():
    count = 20_000
    levels = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]).reshape(1, 1, 1, 5).expand(count, 1, 1, 5)
    found = binarise(levels, 2, torch.arange(count))
    assert found.shape == levels.shape
    assert set(found.unique().tolist()) == {0, 1}
    for level, ones in zip(
        levels[0].flatten().tolist(), found.sum((0, 1, 2)).tolist(), strict=True
    ):
        assert abs(ones - count * level) <= 4 * math.sqrt(count * level * (1 - level))


def test_binary_pixels_stay_as_they_are():
    x = sprite(30)
    assert torch.equal(binarise(x, 2, torch.arange(30)), x)


def test_pixels_of_one_image_are_binarised_apart():
    found = binarise(torch.full((2000, 1, 2, 2), 0.5), 2, torch.arange(2000)).flatten(1)
    assert (torch.corrcoef(found.T) - torch.eye(4)).abs().max() < 4 / math.sqrt(2000)
