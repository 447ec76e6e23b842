"""The likelihood's check sees every value that is stored: of every split, behind any transform,
wherever it lies.
"""

import math
from functools import partial

import numpy as np
import pytest
import torch

from jensen.base.errors import InputError
from jensen.data import domain
from jensen.data.codes import codes
from jensen.data.examples import Examples, identity, pixels
from jensen.data.module import DataModule
from jensen.data.sprites import sprites, unpack
from jensen.data.transform import binarise, colour, noise
from jensen.model.likelihood import (
    Bernoulli,
    ContinuousBernoulli,
    CrossEntropy,
    LearnedNormal,
    Normal,
    OptimalNormal,
)

NORMALS = [Normal(), LearnedNormal(), OptimalNormal()]
UNIT = [CrossEntropy(), ContinuousBernoulli()]


def data(train, test=None, decode=pixels, bytewise=True, transform=None):
    """A module of stored tensors, one a split."""
    stored = {"train": train} if test is None else {"train": train, "test": test}

    def source(split="train"):
        return Examples(stored[split], decode, bytewise=bytewise)

    shape = (3, *train.shape[2:]) if transform in (colour, noise) else train.shape[1:]
    return DataModule(source, shape, 2, seed=0, splits=[*stored], validation=1, transform=transform)


def binary(count=1000, shape=(1, 4, 4)):
    return (
        torch.randint(
            0, 2, (count, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
        )
        * 255
    )


def with_one(level, row, stored):
    stored = stored.clone()
    stored[row].view(-1)[3] = level
    return stored


@pytest.mark.parametrize("bytewise", [True, False])
@pytest.mark.parametrize("row", [0, 1, 499, 998, 999])
@pytest.mark.parametrize("split", ["train", "test"])
def test_one_grey_pixel_anywhere_is_refused_and_named(monkeypatch, split, row, bytewise):
    monkeypatch.setattr(domain, "_CHUNK", 100)
    stored = {"train": binary(), "test": binary()}
    stored[split] = with_one(128, row, stored[split])
    message = rf"data hold 0\.502: use cross_entropy .* \(example {row} of the {split} split, counted from 0\)"
    with pytest.raises(InputError, match=message):
        data(**stored, bytewise=bytewise).check_values(Bernoulli().check)


@pytest.mark.parametrize("bytewise", [True, False])
def test_data_of_zeros_and_ones_pass(bytewise):
    data(binary(), bytewise=bytewise).check_values(Bernoulli().check)
    for likelihood in (*UNIT, *NORMALS):
        data(with_one(128, 7, binary()), bytewise=bytewise).check_values(likelihood.check)


def test_a_byte_that_is_not_there_refuses_nothing():
    for shape in ((1, 1), (300,), (2, 3, 5)):
        data(binary(10, shape)).check_values(Bernoulli().check)


@pytest.mark.parametrize("likelihood", [Bernoulli(), *UNIT, *NORMALS])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_number_that_is_not_finite_is_refused_by_every_likelihood(split, bad, likelihood):
    stored = {"train": torch.zeros(3000, 5), "test": torch.zeros(3000, 5)}
    stored[split][2345, 2] = bad
    with pytest.raises(InputError, match=f"NaN or infinite .*example 2345 of the {split} split"):
        data(**stored, decode=identity, bytewise=False).check_values(likelihood.check)


@pytest.mark.parametrize("likelihood", UNIT)
def test_a_number_beyond_the_unit_interval_is_refused(likelihood):
    stored = torch.full((3000, 5), 0.5)
    stored[2999, 4] = 1.001
    with pytest.raises(InputError, match=r"lie in \[0\.5, 1\]: .*example 2999"):
        data(stored, decode=identity, bytewise=False).check_values(likelihood.check)


@pytest.mark.parametrize("wrap", [lambda transform: transform, partial])
def test_what_a_transform_makes_is_what_counts(wrap):
    grey = with_one(128, 700, binary())
    data(grey, transform=wrap(binarise)).check_values(Bernoulli().check)
    for transform in (colour, noise):
        with pytest.raises(InputError, match="example"):
            data(binary(), transform=transform).check_values(Bernoulli().check)
        data(binary(), transform=transform).check_values(CrossEntropy().check)


def test_a_transform_of_yours_is_run_on_every_example():
    def double_one(x, key, index):
        return torch.where((index == 765)[:, None, None, None], 2 * x, x)

    with pytest.raises(InputError, match=r"lie in \[0, 2\]: .*example 765"):
        data(binary(), transform=double_one).check_values(CrossEntropy().check)


def test_sprites_are_not_even_read(monkeypatch):
    monkeypatch.setattr(domain, "_telling_rows", lambda stored: pytest.fail("was read"))
    data_of = DataModule(partial(sprites, ["shape"]), (1, 64, 64), 2, seed=0, validation=1)
    for likelihood in (Bernoulli(), *UNIT, *NORMALS):
        data_of.check_values(likelihood.check)


def test_the_rows_that_tell_are_the_first_of_each_byte(monkeypatch):
    monkeypatch.setattr(domain, "_CHUNK", 64)
    stored = torch.randint(
        0, 256, (500, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    expected = sorted(
        {
            min(row for row in range(500) if byte in stored[row].tolist())
            for byte in stored.unique().tolist()
        }
    )
    assert domain._telling_rows(stored).tolist() == expected


def test_packed_bits_of_any_byte_are_zeros_and_ones():
    packed = torch.randint(
        0, 256, (50, 512), generator=torch.Generator().manual_seed(2), dtype=torch.uint8
    )
    assert set(unpack(packed).unique().tolist()) == {0.0, 1.0}


def test_codes_are_checked_too(tmp_path):
    points = np.zeros((5000, 2), np.float32)
    points[4321] = 3
    np.savez(tmp_path / "codes.npz", codes=points)
    module = DataModule(codes, (2,), 2, seed=0, validation=1, path=str(tmp_path / "codes.npz"))
    with pytest.raises(InputError, match=r"takes x in .*example 4321"):
        module.check_values(CrossEntropy().check)
