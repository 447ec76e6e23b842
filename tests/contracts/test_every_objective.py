"""The contract of `objective.Objective`, for every choice of `conf/objective`: another one is
covered by its conf file.
"""

import io
import pickle

import pytest
import torch
from composing import choices, composed
from hydra.utils import instantiate
from tiny import TINY
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.func import functional_call, stack_module_state, vmap

from jensen.base.tree import tree_map
from jensen.bound.bound import Bound, Inference
from jensen.family.gaussian import Gaussian

SMALL = {"factor": ("objective.hidden=[8]",), "decomposed": ("objective.tc=6",)}
ORDERED = {"factor"}
"""Its permutations are those of the rows."""

every_objective = pytest.mark.parametrize("choice", choices("objective"))
STEP = torch.tensor(3)


def build(choice, seed=0):
    torch.manual_seed(seed)
    objective = instantiate(
        composed(*TINY, f"objective={choice}", *SMALL.get(choice, ())).objective
    )
    objective.dataset_size = 300
    return objective


def inference(objective, rows=8, seed=0, dtype=torch.float32):
    """A minibatch whose `mean`, `log_var` and distortion are leaves."""
    generator = torch.Generator().manual_seed(seed)
    mean, log_var = torch.randn(2, rows, 3, generator=generator, dtype=torch.float64).to(dtype)
    noise = torch.randn(rows * objective.samples, 3, generator=generator, dtype=torch.float64).to(
        dtype
    )
    leaves = Gaussian(mean.requires_grad_(), log_var.requires_grad_())
    q = tree_map(lambda part: part.repeat(objective.samples, 1), leaves)
    z = q.rsample(noise)
    distortion = (10 + z.detach().cos().sum(1)).requires_grad_()
    rate = kl_divergence(Normal(q.mean, (q.log_var / 2).exp()), Normal(0.0, 1.0)).sum(1)
    return Inference(Bound(distortion, rate), q, z, Normal(0.0, 1.0).log_prob(z).sum(1)), leaves


@every_objective
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_loss_and_terms_are_finite_numbers_of_the_data_s_precision(choice, dtype, rows):
    objective = build(choice).to(dtype)
    found, _ = inference(objective, rows, dtype=dtype)
    loss = objective(found, STEP)
    assert loss.shape == ()
    assert loss.dtype == dtype
    for value in (loss, *objective.terms(found, STEP).values()):
        assert value.shape == ()
        assert value.isfinite()


@every_objective
@pytest.mark.parametrize("rows", [1, 8])
def test_the_distortion_counts_once_and_gradients_reach_the_posterior(choice, rows):
    objective = build(choice)
    found, leaves = inference(objective, rows)
    weight, *slopes = torch.autograd.grad(objective(found, STEP), [found.bound.distortion, *leaves])
    assert weight.sum().item() == pytest.approx(1, abs=1e-6)
    assert (weight > 0).all()
    assert all(slope.isfinite().all() and slope.abs().sum() > 0 for slope in slopes)


@pytest.mark.parametrize(
    "choice", [choice for choice in choices("objective") if choice not in ORDERED]
)
def test_the_order_of_the_examples_does_not_matter(choice):
    objective = build(choice).double().eval()
    found, _ = inference(objective, dtype=torch.float64)
    other = torch.cat(
        [torch.randperm(8, generator=torch.Generator().manual_seed(5))] * objective.samples
    )
    other = other + 8 * torch.arange(objective.samples).repeat_interleave(8)
    moved = tree_map(lambda part: part[other], found)
    torch.testing.assert_close(
        objective(moved, STEP), objective(found, STEP), rtol=1e-12, atol=1e-12
    )


@every_objective
def test_evaluation_changes_nothing(choice):
    objective = build(choice)
    found, _ = inference(objective)
    objective(found, STEP)  # a step of training, which may
    before = saved(objective)
    objective.eval()
    with torch.no_grad():
        first = objective(found, STEP), *objective.terms(found, STEP).values()
        again = objective(found, STEP), *objective.terms(found, STEP).values()
    assert [value.item() for value in first] == [value.item() for value in again]
    assert saved(objective) == before


def saved(module: nn.Module) -> bytes:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    return file.getvalue()


@every_objective
@pytest.mark.parametrize("copied", ["pickled", "loaded"])
def test_a_copy_goes_on_alike(choice, copied):
    """A pickled one, and a new one given the state that a checkpoint holds."""
    objective = build(choice)
    for step in range(3):
        objective(inference(objective, seed=step)[0], torch.tensor(step))
    if copied == "pickled":
        other = pickle.loads(pickle.dumps(objective))
    else:
        other = build(choice, seed=1)
        other.load_state_dict(torch.load(io.BytesIO(saved(objective)), weights_only=True))
    found, _ = inference(objective, seed=4)
    assert torch.equal(other(found, STEP), objective(found, STEP))


@every_objective
def test_a_stack_is_mapped_by_vmap(choice):
    members = [build(choice, seed) for seed in (0, 1)]
    batches = [inference(member, seed=seed)[0] for seed, member in enumerate(members)]
    batches = [tree_map(torch.detach, batch) for batch in batches]
    parameters, buffers = stack_module_state(members)
    # A state that is written to in place has to be a tensor of its own for each member.
    buffers = {name: value.clone() for name, value in buffers.items()}
    alone = build(choice)

    def loss(parameters, buffers, batch):
        return functional_call(alone, (parameters, buffers), (batch, STEP))

    found = vmap(loss)(parameters, buffers, tree_map(lambda *parts: torch.stack(parts), *batches))
    expected = [member(batch, STEP) for member, batch in zip(members, batches, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-5)
