"""Which rows make up a batch: every rank, every resumed run and every epoch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jensen.base.errors import InputError
from jensen.data.order import InTurn, Shuffled

few = settings(derandomize=True, deadline=None, max_examples=60)
ROWS = torch.arange(1000, 1103)
SIZE = 10
EPOCH = len(ROWS) // SIZE


def shuffled(seed=0, rank=0, world=1, position=0, rows=ROWS):
    return Shuffled(rows, SIZE, seed, rank, world, lambda: position)


def batches(**options):
    return [batch.tolist() for batch in shuffled(**options)]


def run(count, position=0, **options):
    """`count` batches of a run that stands at `position`, over as many epochs as it takes."""
    seen = position
    order = Shuffled(ROWS, SIZE, 0, 0, 1, lambda: seen)
    found = []
    while len(found) < count:
        for batch in order:
            found.append(batch.tolist())
            seen += 1
    return found[:count]


def test_an_epoch_has_full_batches_of_different_rows():
    found = batches()
    assert len(found) == len(shuffled()) == EPOCH
    assert {len(batch) for batch in found} == {SIZE}
    rows = [row for batch in found for row in batch]
    assert len(set(rows)) == len(rows) == EPOCH * SIZE
    assert set(rows) <= set(ROWS.tolist())
    assert rows != sorted(rows)


def test_an_epoch_of_whole_batches_visits_every_row():
    rows = torch.tensor([5, 9, 2, 7, 11, 3, 1, 8, 4, 6, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29])
    assert sorted(row for batch in batches(rows=rows) for row in batch) == sorted(rows.tolist())


def test_every_row_is_visited_over_the_epochs():
    visited = {row for batch in run(5 * EPOCH) for row in batch}
    assert visited == set(ROWS.tolist())


def test_epochs_and_seeds_differ():
    first = batches()
    assert batches(position=EPOCH) != first
    assert batches(position=2 * EPOCH) != batches(position=EPOCH)
    assert batches(seed=1) != first
    assert batches() == first


@pytest.mark.parametrize("position", [0, 1, 7, EPOCH - 1, EPOCH, EPOCH + 3, 2 * EPOCH])
def test_a_resumed_run_goes_on_with_the_rest_of_the_uninterrupted_one(position):
    whole = run(4 * EPOCH)
    assert run(4 * EPOCH - position, position) == whole[position:]


@given(st.integers(1, 2 * EPOCH), st.integers(1, 3), st.integers(0, 30))
@few
def test_epochs_that_are_limited_go_through_one_order_after_another(limit, together, begin):
    whole = run(60 * EPOCH)
    seen = begin * together
    order = Shuffled(ROWS, SIZE, 0, 0, 1, lambda: seen, together, lambda: limit)
    most = min(limit, len(order))
    steps = -(-most // together)
    for epoch in range(begin // steps, begin // steps + 3):
        found = [batch.tolist() for batch in order]
        left = (epoch + 1) * steps * together - seen
        assert len(found) == left - (steps * together - most)
        at = [
            number // len(order) * EPOCH + number % len(order)
            for number in range(seen, seen + left)
        ]
        assert found == [whole[each] for each in at[: len(found)]]
        seen += left


@given(st.sampled_from([1, 2, 5, 10]), st.integers(0, 3 * EPOCH))
@few
def test_the_shares_of_the_ranks_make_up_the_batches_of_one(world, position):
    together = batches(position=position)
    shares = [batches(rank=rank, world=world, position=position) for rank in range(world)]
    assert {len(share) for share in shares} == {len(together)}
    for number, batch in enumerate(together):
        parts = [share[number] for share in shares]
        assert {len(part) for part in parts} == {SIZE // world}
        assert sorted(row for part in parts for row in part) == sorted(batch)


def test_the_position_is_asked_whenever_an_epoch_starts():
    seen = [0]
    order = Shuffled(ROWS, SIZE, 0, 0, 1, lambda: seen[0])
    first = [batch.tolist() for batch in order]
    seen[0] = EPOCH + 4
    assert [batch.tolist() for batch in order] == batches(position=EPOCH)[4:]
    seen[0] = 0
    assert [batch.tolist() for batch in order] == first


@given(st.integers(1, 60), st.integers(1, 25), st.integers(1, 8))
@few
def test_in_turn_every_row_comes_once_over_the_ranks(count, size, world):
    rows = torch.arange(count) * 3
    if count < world:
        with pytest.raises(
            InputError,
            match=f"there are {count} examples to evaluate: .* each of the {world} ranks",
        ):
            InTurn(rows, size, 0, world)
        return
    orders = [InTurn(rows, size, rank, world) for rank in range(world)]
    shares = [[share.tolist() for share in order] for order in orders]
    assert {len(order) for order in orders} == {len(share) for share in shares}
    assert len({len(share) for share in shares}) == 1
    assert all(share for rank in shares for share in rank)
    found = [row for number in zip(*shares, strict=True) for share in number for row in share]
    assert sorted(found) == rows.tolist()
    sizes = [sum(map(len, number)) for number in zip(*shares, strict=True)]
    assert max(sizes) - min(sizes) <= 1
    if size >= 2 * world:  # else a batch may be larger, so that no share is empty
        assert max(sizes) <= size


def test_in_turn_keeps_the_order_of_the_rows():
    assert [batch.tolist() for batch in InTurn(torch.arange(7), 3, 0, 1)] == [
        [0, 1, 2],
        [3, 4],
        [5, 6],
    ]
