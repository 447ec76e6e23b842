"""The optimiser: no question to a GPU that is absent; its state in the order of its parameters."""

import re
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn

from jensen.algorithm import optimiser
from jensen.algorithm.stacked_optimiser import StackedOptimiser
from jensen.base.errors import InputError
from jensen.objective.beta import Beta


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_a_step_does_not_ask_nvml_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # as Lightning sets it
    asked = []
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: asked.append(1) or -1)
    model = torch.nn.Linear(2, 1)

    def step(made):
        model(torch.ones(1, 2)).sum().backward()
        asked.clear()
        made.step()
        return len(asked)

    assert step(torch.optim.Adam(model.parameters(), fused=True)) >= 1
    assert step(optimiser.make(torch.optim.Adam, model, Beta())) == 0


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        ("Adam", {"lr": -1}, "optimizer.lr is -1: expected a number of at least 0"),
        ("Muon", {"lr": -1}, "optimizer.lr is -1: expected a number of at least 0"),
        ("Adam", {"eps": -1}, "optimizer.eps is -1: expected a number of at least 0"),
        ("Adam", {"weight_decay": -1}, "optimizer.weight_decay is -1: expected a number of"),
        ("Adam", {"betas": [1.5, 0.9]}, "optimizer.betas[0] is 1.5: expected a number of at least"),
        ("AdamW", {"betas": [0.9, 1]}, "optimizer.betas[1] is 1: expected a number of at least 0"),
        ("SGD", {"momentum": -1}, "optimizer.momentum is -1: expected a number of at least 0"),
        ("RMSprop", {"alpha": -1}, "optimizer.alpha is -1: expected a number of at least 0"),
        ("Adadelta", {"rho": 2}, "optimizer.rho is 2: expected a number in [0, 1]"),
        ("NAdam", {"momentum_decay": -1}, "optimizer.momentum_decay is -1: expected a number"),
        ("Adagrad", {"lr_decay": -1}, "optimizer.lr_decay is -1: expected a number of at least 0"),
        (
            "Rprop",
            {"etas": [2, 3]},
            "optimizer cannot be made (Invalid eta values: 2, 3): expected",
        ),
        ("SGD", {"nesterov": True}, "optimizer cannot be made (Nesterov momentum requires"),
    ],
)
def test_a_number_that_torch_refuses_is_told_by_its_key(kind, settings, sentence):
    of = partial(getattr(torch.optim, kind), **settings)
    with pytest.raises(InputError, match=re.escape(sentence)):
        optimiser.make(of, torch.nn.Linear(2, 2, bias=False), Beta())


def convolved(order):
    torch.manual_seed(0)
    return nn.Conv2d(3, 8, 4).to(memory_format=order)


@pytest.mark.parametrize("saved", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_a_checkpoint_in_another_order_in_memory_is_gone_on_with_exactly(saved, kind):
    """Fused optimisers pair elements by their place in memory, without a word."""
    settings = {"lr": 0.1, "fused": True} | ({"momentum": 0.9} if kind is torch.optim.SGD else {})
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def step(model, made):
        made.zero_grad()
        model(x).square().mean().backward()
        made.step()

    first = convolved(saved).double()
    made = optimiser.make(lambda groups: kind(groups, **settings), first, Beta())
    step(first, made)
    then = convolved(torch.channels_last).double()
    again = optimiser.make(lambda groups: kind(groups, **settings), then, Beta())
    then.load_state_dict(first.state_dict())
    again.load_state_dict(deepcopy(made.state_dict()))
    for _ in range(2):
        step(first, made)
        step(then, again)
    torch.testing.assert_close(then.weight, first.weight, rtol=1e-9, atol=1e-12)


def test_what_is_laid_as_its_parameter_is_itself_where_it_is_already():
    parameter = torch.zeros(8, 1, 4, 4).to(memory_format=torch.channels_last)
    value = torch.randn(8, 1, 4, 4)
    assert optimiser.laid_as(value, parameter) is value  # strides of a side of 1 say nothing
    other = torch.zeros(8, 3, 4, 4).to(memory_format=torch.channels_last)
    found = optimiser.laid_as(torch.arange(384.0).view(8, 3, 4, 4), other)
    assert found.stride() == other.stride()
    assert found.flatten().tolist() == [*range(384)]


@pytest.mark.parametrize("rates", [(0.1, 0.1), (0.1, 0.01)], ids=["one optimiser", "each its own"])
def test_a_stack_in_another_order_than_its_members_goes_on_exactly(rates):
    """As on a GPU, of members that were trained before: states in channels_last, parameters not."""
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def trained(rate, fused):
        model = convolved(torch.channels_last).double()
        made = torch.optim.Adam(model.parameters(), lr=rate, fused=fused)
        model(x).square().mean().backward()
        made.step()
        return model, made

    alone = [trained(rate, False) for rate in rates]
    members = [trained(rate, True) for rate in rates]
    parameters = zip(*(model.parameters() for model, _ in members), strict=True)
    stacked = []
    for owned in parameters:
        whole = torch.stack([each.detach() for each in owned]).contiguous()
        for own, part in zip(owned, whole, strict=True):
            own.data = part
        stacked.append(whole.requires_grad_())
    together = StackedOptimiser([made for _, made in members], stacked)
    gradients = []
    for model, _ in members:
        loss = model(x).square().mean()
        gradients.append(torch.autograd.grad(loss, [*model.parameters()]))
    together.step([torch.stack(each) for each in zip(*gradients, strict=True)])
    for (model, made), (member, _) in zip(alone, members, strict=True):
        made.zero_grad()
        model(x).square().mean().backward()
        made.step()
        torch.testing.assert_close(member.weight, model.weight, rtol=1e-9, atol=1e-12)
