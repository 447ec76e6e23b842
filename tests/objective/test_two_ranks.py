"""Two gloo processes with half a minibatch each give the loss and the gradients of one process with
all of it (T12).

Rows are shared out as `data/order.py` does: rank r has rows r, r + 2, r + 4, ...
"""

import sys

import pytest
import torch
from nursery import SERVER
from torch import distributed, multiprocessing
from torch.distributions import Normal, kl_divergence

from jensen.bound.bound import Bound, Inference
from jensen.family.gaussian import Gaussian
from jensen.objective.capacity import Capacity
from jensen.objective.control import Control
from jensen.objective.decomposed import Decomposed
from jensen.objective.dip import DIP
from jensen.objective.factor import Factor
from jensen.objective.free_bits import FreeBits
from jensen.objective.mmd import MMD

WORLD = 2
MAKE = {
    "decomposed": lambda: Decomposed(1, 6, 2),
    "mss": lambda: Decomposed(1, 6, 2, estimator="mss"),
    "mmd": lambda: MMD(0.5, 10.0, bandwidths=(0.5, 2.0)),
    "dip": lambda: DIP("I"),
    "dip_ii": lambda: DIP("II"),
    "factor": lambda: Factor(3, 6.4, hidden=[8]),
    "control": lambda: Control(2.0, kp=0.5, ki=0.1),
    "capacity": lambda: Capacity(5.0, 10.0),
    "free_bits": lambda: FreeBits(0.5),
}


def compute(name, rank, world):
    """Three steps of a minibatch of 8 rows, then an evaluation of 7, by the share of `rank`."""
    torch.manual_seed(0)
    objective = MAKE[name]().double()
    objective.dataset_size = 50
    generator = torch.Generator().manual_seed(1)
    found = {}
    for step in range(3):
        whole = torch.randn(3, 8, 3, generator=generator, dtype=torch.float64)
        mean, log_var, noise = (part[rank::world].clone() for part in whole)
        mean.requires_grad_(), log_var.requires_grad_()
        objective.zero_grad()
        loss = objective(infer(mean, log_var, noise), torch.tensor(step))
        loss.backward()
        found[f"loss {step}"] = loss.detach()
        found[f"mean {step}"] = mean.grad
        found[f"log_var {step}"] = log_var.grad
        for key, parameter in objective.named_parameters():
            found[f"own {key} {step}"] = parameter.grad.clone()
    found |= {f"state {key}": value.clone() for key, value in objective.state_dict().items()}
    objective.eval()
    with torch.no_grad():  # shares of unequal size, as in validation
        inference = infer(*(part[rank:7:world] for part in whole))
        found["evaluation"] = objective(inference, torch.tensor(3))
        found["rows"] = torch.tensor(len(inference.z))
        found |= {
            f"term {key}": value
            for key, value in objective.terms(inference, torch.tensor(3)).items()
        }
    return found


def infer(mean, log_var, noise):
    std = (log_var / 2).exp()
    z = mean + std * noise
    rate = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum(1)
    return Inference(
        Bound(z.cos().sum(1), rate), Gaussian(mean, log_var), z, Normal(0.0, 1.0).log_prob(z).sum(1)
    )


def process(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    torch.save({name: compute(name, rank, WORLD) for name in MAKE}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank found."""
    if sys.platform == "win32":
        pytest.skip("gloo by a file")
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.start_processes(
        process, args=(str(folder),), nprocs=WORLD, start_method=SERVER.get_start_method()
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("name", MAKE)
def test_two_ranks_are_one_process(ranks, name):
    one = compute(name, 0, 1)
    shares = [rank[name] for rank in ranks]
    assert shares[0].keys() == shares[1].keys() == one.keys()
    for key, expected in one.items():
        found = [share[key] for share in shares]
        kind = key.split()[0]
        if kind in ("loss", "own"):  # what Lightning logs, and what DDP makes of gradients
            torch.testing.assert_close(sum(found) / WORLD, expected, rtol=0, atol=1e-6)
        elif kind in ("mean", "log_var"):
            for rank, part in enumerate(found):
                torch.testing.assert_close(part / WORLD, expected[rank::WORLD], rtol=0, atol=1e-6)
        elif kind == "state":
            assert torch.equal(found[0], found[1])
            torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-6)
        elif kind == "evaluation" or kind == "term":
            rows = [share["rows"] for share in shares]
            weighted = sum(part * count for part, count in zip(found, rows, strict=True)) / sum(
                rows
            )
            torch.testing.assert_close(weighted, expected, rtol=0, atol=1e-6)
