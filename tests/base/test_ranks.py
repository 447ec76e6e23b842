"""Rows over ranks: one process, and two real ones that talk by gloo."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from nursery import SERVER
from torch import distributed, multiprocessing

from jensen.base.ranks import alone, gather_batch, gather_rows, world
from jensen.bound.aggregate import Draws, aggregate_log_density, draw
from jensen.bound.decomposition import decompose
from jensen.diagnostics.decomposition import shared_out
from jensen.family.gaussian import Gaussian

WORLD = 2
SPLITS = {
    "equal": (4, 4),
    "unequal": (5, 2),
    "none on the first": (0, 3),
    "none on the second": (3, 0),
}
KINDS = {
    "float64": torch.arange(8, dtype=torch.float64),
    "float32 rows": torch.arange(24, dtype=torch.float32).reshape(8, 3),
    "int64": torch.arange(8) * 10**12,
    "bytes": torch.arange(64, dtype=torch.uint8).reshape(8, 2, 4),
    "truth": torch.arange(8) % 3 == 0,
    "no columns": torch.zeros(8, 0, dtype=torch.int64),
    "not contiguous": torch.arange(24.0).reshape(3, 8).T,
}


def posterior(count=37, dim=3):
    parts = torch.randn(
        2, count, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    return Gaussian(parts[0], parts[1] - 2)


def draws(samples=101):
    return draw(posterior(), samples, torch.Generator().manual_seed(1))


def scalars():
    generator = torch.Generator().manual_seed(2)
    parts = decompose(posterior(), samples=201, generator=generator, log_density=shared_out)
    return {name: value for name, value in parts._asdict().items() if value.dim() == 0}


def rows_with_gradient():
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def loss_of(own, whole, weight):
    """Every row of `own` against all of `whole`, `weight` times: each rank makes another use of the
    gathered rows.
    """
    return weight * (own @ whole.T).logsumexp(1).sum() + weight**2 * whole.sin().prod(1).sum()


def process(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    found = {"world": torch.tensor(world())}
    for split, counts in SPLITS.items():
        start = sum(counts[:rank])
        for kind, whole in KINDS.items():
            found[f"{split} {kind}"] = gather_rows(whole[start : start + counts[rank]])
    own = rows_with_gradient()[4 * rank : 4 * rank + 4].clone().requires_grad_()
    whole = gather_batch(own)
    loss_of(own, whole, rank + 1).backward()
    found["gathered"] = whole.detach()
    found["gradient"] = own.grad
    turned = gather_batch(own.detach().T.contiguous().T)  # not contiguous
    found["gathered, not contiguous"] = turned
    found["log density"] = shared_out(draws(), posterior(), 37)
    found["log density of a subset"] = shared_out(draws(), posterior(), 1000)
    found |= scalars()
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two ranks found."""
    if sys.platform == "win32":
        pytest.skip("gloo by a file")
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.start_processes(
        process, args=(str(folder),), nprocs=WORLD, start_method=SERVER.get_start_method()
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def test_a_single_process_is_all_there_is():
    rows = torch.randn(5, 2, requires_grad=True)
    assert world() == (0, 1)
    assert gather_rows(rows) is rows
    assert gather_batch(rows) is rows
    assert torch.equal(
        shared_out(draws(), posterior(), 37), aggregate_log_density(draws(), posterior(), 37)
    )


def test_each_rank_knows_its_number(ranks):
    assert [found["world"].tolist() for found in ranks] == [[0, 2], [1, 2]]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", KINDS)
def test_gathered_rows_are_all_of_them_rank_after_rank(ranks, split, kind):
    expected = KINDS[kind][: sum(SPLITS[split])]
    for found in ranks:
        assert found[f"{split} {kind}"].dtype == expected.dtype
        assert torch.equal(found[f"{split} {kind}"], expected)


def test_a_gathered_batch_is_all_of_it_and_its_gradient_that_of_one_process(ranks):
    rows = rows_with_gradient().requires_grad_()
    loss = sum(loss_of(rows[4 * rank : 4 * rank + 4], rows, rank + 1) for rank in range(WORLD))
    loss.backward()
    for rank, found in enumerate(ranks):
        assert torch.equal(found["gathered"], rows)
        assert torch.equal(found["gathered, not contiguous"], rows)
        torch.testing.assert_close(
            found["gradient"], rows.grad[4 * rank : 4 * rank + 4], rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize(("name", "size"), [("log density", 37), ("log density of a subset", 1000)])
def test_shared_out_draws_have_the_density_that_one_process_gives_them(ranks, name, size):
    expected = aggregate_log_density(draws(), posterior(), size)
    for found in ranks:
        torch.testing.assert_close(found[name], expected, rtol=1e-12, atol=1e-12)


def test_the_decomposition_over_ranks_is_that_of_one_process(ranks):
    for name, value in scalars().items():
        for found in ranks:
            assert found[name].item() == pytest.approx(value.item(), rel=1e-9, abs=1e-12), name


def test_a_rank_without_a_draw_has_an_empty_share():
    """Fewer draws than ranks: `shared_out` hands none to the last."""
    none = Draws(*(part[:0] for part in draws()))
    assert aggregate_log_density(none, posterior(), 37).shape == (0,)


def test_a_thread_that_works_alone_leaves_the_others_their_ranks(monkeypatch):
    monkeypatch.setattr("jensen.base.ranks.processes", lambda: (1, 2))
    with alone(), ThreadPoolExecutor(1) as pool:
        found = [world(), pool.submit(world).result()]
    assert [*found, world()] == [(0, 1), (1, 2), (1, 2)]
