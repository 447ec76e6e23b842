"""Counter-based draws: functions of their key, example and position, with the distribution they
claim.
"""

import math
from collections import Counter

import pytest
import torch
from cases import some
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jensen.base import random as module
from jensen.base.random import bits, fold, normal, permutation, uniform

few = settings(derandomize=True, deadline=None, max_examples=30)
KEYS = (0, 1, fold(0, "noise", 7))
WORD = 1 << 64


def splitmix(state, count):
    """Steele, Lea & Flood 2014, figure 16, in unbounded integers."""
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % WORD
        yield finalise(state)


def finalise(word):
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % WORD
    return word ^ (word >> 31)


def test_the_oracle_is_splitmix64():
    assert list(splitmix(1234567, 3)) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@given(st.integers(-(2**63), 2**63 - 1), st.lists(st.integers(0, 2**40), min_size=1, max_size=4))
@few
def test_bits_are_those_of_splitmix64_seeded_by_key_and_example(key, index):
    found = bits(key, torch.tensor(index), (2, 3))
    assert found.shape == (len(index), 2, 3)
    assert found.dtype == torch.int64
    for row, place in zip(found, index, strict=True):
        seed = finalise((place * 0x9E3779B97F4A7C15 + key) % WORD)
        assert [word % WORD for word in row.flatten().tolist()] == list(splitmix(seed, 6))


@pytest.mark.parametrize("draw", [bits, uniform, normal])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3, 4), (0,)])
def test_shapes(draw, shape):
    assert draw(3, torch.arange(4), shape).shape == (4, *shape)
    assert draw(3, torch.arange(0), shape).shape == (0, *shape)


@pytest.mark.parametrize("draw", [uniform, normal])
def test_dtypes(draw):
    index = torch.arange(3)
    assert draw(0, index, (2,)).dtype == torch.float32
    single = draw(0, index, (200,))
    double = draw(0, index, (200,), torch.float64)
    assert double.dtype == torch.float64
    torch.testing.assert_close(single, double.float(), rtol=1e-4, atol=1e-4)
    assert (double.float().double() != double).any()


def test_uniforms_are_the_leading_bits():
    index = torch.arange(50)
    words = [word % WORD for word in bits(9, index, (4,)).flatten().tolist()]
    assert uniform(9, index, (4,)).flatten().tolist() == [(word >> 40) / 2**24 for word in words]
    assert uniform(9, index, (4,), torch.float64).flatten().tolist() == [
        (word >> 11) / 2**53 for word in words
    ]


@pytest.mark.parametrize("draw", [bits, uniform, normal])
@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=9), st.randoms(use_true_random=False))
@few
def test_a_row_is_the_same_alone_and_in_any_batch(draw, index, order):
    together = draw(5, torch.tensor(index), (3, 2))
    for row, place in zip(together, index, strict=True):
        assert torch.equal(row, draw(5, torch.tensor([place]), (3, 2))[0])
    shuffled = list(range(len(index)))
    order.shuffle(shuffled)
    assert torch.equal(draw(5, torch.tensor(index)[shuffled], (3, 2)), together[shuffled])


@pytest.mark.parametrize("draw", [bits, uniform, normal])
def test_a_key_for_each_row_draws_what_each_key_draws_alone(draw):
    keys = torch.tensor([fold(0, "noise", step) for step in range(40)])
    index = torch.randint(10**12, (40, 3), generator=torch.Generator().manual_seed(0))
    together = draw(keys.repeat_interleave(3), index.flatten(), (1, 7))
    alone = [draw(key, each, (1, 7)) for key, each in zip(keys, index, strict=True)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_draws_made_in_blocks_are_those_of_one(monkeypatch, dtype):
    index = torch.arange(1000)
    keys = index * 17
    monkeypatch.setattr(module, "_BLOCK", 10**9)
    whole = [normal(key, index, (2, 5), dtype) for key in (3, keys)]
    monkeypatch.setattr(module, "_BLOCK", 333)
    parts = [normal(key, index, (2, 5), dtype) for key in (3, keys)]
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one, other)


def test_draws_do_not_read_or_advance_the_global_generator():
    torch.manual_seed(0)
    first = normal(1, torch.arange(3), (2,)), permutation(1, 10)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    torch.rand(5)
    assert torch.equal(normal(1, torch.arange(3), (2,)), first[0])
    assert torch.equal(permutation(1, 10), first[1])
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


def layouts(draw, key):
    """A million draws over both examples and positions; with the last of KEYS also over one of
    them, and over keys.
    """
    yield "both", draw(key, torch.arange(1000), (1000,)).flatten()
    if key == KEYS[-1]:
        yield "positions", draw(key, torch.tensor([3]), (1_000_000,))[0]
        yield "examples", draw(key, torch.arange(1_000_000), ())
        yield (
            "keys",
            torch.cat(
                [draw(key + step, torch.arange(1000), (10,)).flatten() for step in range(100)]
            ),
        )


@some(1, "key", KEYS)
def test_uniforms_are_uniform(key):
    for name, draws in layouts(uniform, key):
        count = len(draws)
        assert 0 <= draws.min() < 1e-4, name
        assert 1 - 1e-4 < draws.max() < 1, name
        values = draws.double()
        assert abs(values.mean() - 1 / 2) < 4 * math.sqrt(1 / 12 / count), name
        assert abs(values.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / count), name
        assert stats.kstest(values.numpy(), "uniform").pvalue > 1e-3, name


@some(1, "key", KEYS)
def test_normals_are_standard_normal(key):
    for name, draws in layouts(normal, key):
        count = len(draws)
        values = draws.double()
        assert abs(values.mean()) < 4 / math.sqrt(count), name
        assert abs(values.var() - 1) < 4 * math.sqrt(2 / count), name
        assert stats.kstest(values.numpy(), "norm").pvalue > 1e-3, name


def test_the_tails_of_normals_in_float64_are_those_of_the_normal():
    counts = Counter()
    size = 2_000_000
    for start in range(0, size, 500_000):
        draws = normal(2, torch.arange(start, start + 500_000), (), torch.float64)
        for limit in (3.0, 4.0, 4.5):
            counts[limit] += int((draws > limit).sum())
            counts[-limit] += int((draws < -limit).sum())
    for limit, found in counts.items():
        assert stats.binomtest(found, size, stats.norm.sf(abs(limit))).pvalue > 1e-3, limit


def test_ten_million_draws_are_finite_and_within_the_documented_limit():
    greatest = torch.zeros(())
    for start in range(0, 10_000, 1000):
        draws = normal(4, torch.arange(start, start + 1000), (1000,))
        assert draws.isfinite().all()
        greatest = torch.maximum(greatest, draws.abs().max())
    assert 5 < greatest <= 5.8


def check_bits(words):
    for place in range(64):
        ones = int(((words >> place) & 1).sum())
        assert abs(ones - len(words) / 2) < 4 * math.sqrt(len(words) / 4), place


@pytest.mark.parametrize(
    ("dtype", "digits", "limit"), [(torch.float32, 24, 5.8), (torch.float64, 53, 8.6)]
)
def test_normals_are_finite_at_the_least_and_the_greatest_uniforms(
    monkeypatch, dtype, digits, limit
):
    ends = torch.tensor([0.0, 0.5, 1 - 2.0**-digits], dtype=dtype)
    monkeypatch.setattr(
        module, "uniform", lambda key, index, shape, dtype: torch.cartesian_prod(ends, ends).T[None]
    )
    draws = normal(0, torch.arange(1), (9,), dtype)
    assert draws.isfinite().all()
    assert limit - 0.1 < draws.abs().max() <= limit


def test_each_of_the_64_bits_is_fair():
    check_bits(bits(6, torch.arange(200_000), ()))


def correlation(left, right):
    return torch.corrcoef(torch.stack([left.flatten(), right.flatten()]))[
        0, 1
    ].abs().item() * math.sqrt(left.numel())


@pytest.mark.parametrize("draw", [uniform, normal])
def test_neighbours_are_uncorrelated(draw):
    shape = (1000,)
    index = torch.arange(1000)
    draws = draw(11, index, shape, torch.float64)
    for lag in (1, 2, 32, 500):
        assert correlation(draws[:, lag:], draws[:, :-lag]) < 4, f"positions {lag} apart"
        assert correlation(draws[lag:], draws[:-lag]) < 4, f"examples {lag} apart"
        assert correlation(draws, draw(11 + lag, index, shape, torch.float64)) < 4, (
            f"keys {lag} apart"
        )
    assert correlation(draws, draw(fold(0, "noise", 1), index, shape, torch.float64)) < 4


@pytest.mark.parametrize("what", ["positions", "examples", "keys"])
def test_pairs_of_neighbours_fill_the_square_evenly(what):
    draws = uniform(12, torch.arange(1000), (1000,))
    left, right = {
        "positions": (draws[:, ::2], draws[:, 1::2]),
        "examples": (draws[::2], draws[1::2]),
        "keys": (draws, uniform(13, torch.arange(1000), (1000,))),
    }[what]
    cell = (left * 16).long() * 16 + (right * 16).long()
    assert stats.chisquare(torch.bincount(cell.flatten(), minlength=256).numpy()).pvalue > 1e-3


def test_no_word_comes_twice_in_a_million():
    words = torch.cat([bits(key, torch.arange(1000), (250,)).flatten() for key in (0, 1, 2, -1)])
    assert len(words.unique()) == len(words)


def test_a_key_is_the_same_in_every_process():
    assert (
        fold(0, "noise", 7) == 6771629725129447101
    )  # `b2sum -l 64` of "(0, 'noise', 7)", read as a little-endian word


def test_every_word_of_a_key_counts_and_so_does_their_order():
    keys = [
        fold(0),
        fold(1),
        fold(0, "noise"),
        fold(1, "noise"),
        fold(0, "order"),
        fold(0, "noise", 0),
        fold(0, "noise", 1),
        fold(0, "noise", "1"),
        fold(0, 1, "noise"),
        fold(0, "noise", 1, 0),
        fold(0, "noise1"),
        fold(0, "no", "ise"),
        fold(0, 12),
        fold(0, 1, 2),
        fold(-1),
        fold(2**70),
    ]
    assert len(set(keys)) == len(keys)
    assert all(-(2**63) <= key < 2**63 for key in keys)
    assert len({fold(0, "noise", step) for step in range(100_000)}) == 100_000


def test_the_bits_of_consecutive_keys_are_fair():
    keys = torch.tensor([fold(0, "noise", step) for step in range(20_000)])
    check_bits(keys)


@pytest.mark.parametrize("size", [0, 1, 2, 17, 10_000])
def test_a_permutation_has_every_place_once(size):
    order = permutation(fold(0, "order"), size)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(size))
    assert torch.equal(order, permutation(fold(0, "order"), size))


def test_permutations_of_three_are_equally_frequent():
    found = Counter(tuple(permutation(fold(0, key), 3).tolist()) for key in range(6000))
    assert len(found) == 6
    assert stats.chisquare(list(found.values())).pvalue > 1e-3


@pytest.mark.parametrize("bit", [0, 31, 32, 62])
def test_a_permutation_depends_on_every_bit_of_its_key(bit):
    key = fold(0, "order")
    assert not torch.equal(permutation(key, 100), permutation(key ^ (1 << bit), 100))
