"""Flags and seeds of data sets: taken as what they are, never by their truth."""

import math
from functools import partial

import pytest

from jensen.base.errors import InputError
from jensen.data import idx
from jensen.data.blobs import blobs
from jensen.data.dsprites import dsprites
from jensen.data.gaussian import covariance, gaussian
from jensen.data.module import DataModule
from jensen.data.normals import normals
from jensen.data.sprites import sprites

module = partial(DataModule, gaussian, (5,), 2, validation=1)
FLAGS = [
    (partial(gaussian, 10), "rotate"),
    (partial(gaussian, 10), "exact"),
    (partial(covariance, [1.0, 2.0]), "rotate"),
    (partial(module, seed=0), "shuffle"),
    (partial(idx.mnist, "nowhere"), "download"),
    (partial(idx.fashion_mnist, "nowhere"), "download"),
]
SEEDED = [
    partial(blobs, 10),
    partial(normals, 10),
    partial(gaussian, 10),
    partial(covariance, [1.0, 2.0]),
    partial(sprites, ["shape"]),
    partial(dsprites, "nowhere"),
    module,
]


@pytest.mark.parametrize(
    "value", ["false", "no", "", 0, 1, 0.0, math.nan, None, [], [False]], ids=repr
)
@pytest.mark.parametrize(("source", "flag"), FLAGS)
def test_a_flag_is_true_or_false(source, flag, value):
    with pytest.raises(InputError, match=f"^{flag} is .*: expected true or false"):
        source(**{flag: value})


@pytest.mark.parametrize("value", [-1, 1 << 32, 1.0, math.nan, True, "0", None, [], [1]], ids=repr)
@pytest.mark.parametrize("source", SEEDED)
def test_a_seed_is_an_integer_that_every_generator_takes(source, value):
    with pytest.raises(InputError, match=r"^seed is .*: expected an integer"):
        source(seed=value)


@pytest.mark.parametrize(
    "means", [5.0, [0.0], [0.0, 1.0, 2.0], [0.0, math.nan], [0.0, "1"], "01", None], ids=repr
)
def test_two_normals_have_two_means(means):
    with pytest.raises(InputError, match=r"^means is .*: expected"):
        normals(10, means=means)
