"""A step of an optimiser without torch's questions is torch's step, bit for bit."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from jensen.algorithm.advance import advance


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def groups_of(model):
    return [
        {"params": [*model[0].parameters()]},
        {"params": [*model[2].parameters()], "lr": 0.3, "betas": (0.5, 0.9)},
    ]


def stepped(make, step, steps=5, before=lambda made, count: None):
    """The parameters and the state after some steps, and the optimiser."""
    model = network()
    made = make(groups_of(model))
    x = torch.linspace(-2, 2, 20).reshape(4, 5)
    for count in range(steps):
        made.zero_grad()
        model(x).square().mean().backward()
        before(made, count)
        step(made)
    state = [value for each in model.parameters() for value in made.state[each].values()]
    return [*model.parameters(), *state], made


def same(one, other):
    for mine, its in zip(one, other, strict=True):
        assert torch.equal(mine, its)


QUICK = {
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.1, fused=True),
    "decayed": lambda groups: torch.optim.Adam(groups, weight_decay=0.1, eps=1e-3, fused=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, weight_decay=0.1, fused=True),
    "maximised": lambda groups: torch.optim.Adam(groups, maximize=True, fused=True),
}
LEFT = {
    "amsgrad": lambda groups: torch.optim.Adam(groups, amsgrad=True, fused=True),
    "loops": lambda groups: torch.optim.Adam(groups, foreach=False),
    "tensor": lambda groups: torch.optim.Adam(groups, lr=torch.tensor(0.1), fused=True),
    "sgd": lambda groups: torch.optim.SGD([{"params": each["params"]} for each in groups], 0.1),
}


@pytest.mark.parametrize("kind", [*QUICK, *LEFT])
def test_parameters_and_state_are_those_of_torch_s_step(kind):
    make = (QUICK | LEFT)[kind]
    same(stepped(make, advance)[0], stepped(make, lambda made: made.step())[0])


@pytest.mark.parametrize("kind", [*QUICK, *LEFT])
def test_what_can_be_is_taken_without_torch_s_step(kind, monkeypatch):
    asked = []
    _, made = stepped((QUICK | LEFT)[kind], advance)
    monkeypatch.setattr(type(made), "step", lambda _: asked.append(1))
    advance(made)
    assert asked == ([] if kind in QUICK else [1])


def test_a_schedule_moves_the_rate_and_finds_that_it_was_stepped(recwarn):
    def scheduled(step):
        found = []

        def before(made, count):
            found[:] = found or [LambdaLR(made, lambda done: 1 / (1 + done))]
            if count:
                found[0].step()

        return stepped(QUICK["adam"], step, before=before)[0]

    same(scheduled(advance), scheduled(lambda made: made.step()))
    assert not [each for each in recwarn if "lr_scheduler" in str(each.message)]


@pytest.mark.parametrize("register", ["register_step_pre_hook", "register_step_post_hook"])
def test_a_hook_is_called(register):
    called = []
    _, made = stepped(QUICK["adam"], advance)
    getattr(made, register)(lambda *_: called.append(1))
    advance(made)
    assert called


def test_a_parameter_without_a_gradient_stays_as_it_is():
    def before(made, count):
        if count % 2:
            made.param_groups[0]["params"][0].grad = None

    found, _ = stepped(QUICK["adamw"], advance, before=before)
    same(found, stepped(QUICK["adamw"], lambda made: made.step(), before=before)[0])


def test_a_loaded_state_is_gone_on_with():
    saved = deepcopy(stepped(QUICK["adam"], advance)[1].state_dict())

    def before(made, count):
        if count == 2:
            made.load_state_dict(deepcopy(saved))

    found, _ = stepped(QUICK["adam"], advance, before=before)
    same(found, stepped(QUICK["adam"], lambda made: made.step(), before=before)[0])


def test_a_step_of_somebody_s_own_is_called():
    called = []
    _, made = stepped(QUICK["adam"], advance)
    torchs = made.step
    made.step = lambda closure=None: called.append(1) or torchs(closure)
    advance(made)
    assert called


def test_a_group_without_parameters_is_passed_over():
    def make(groups):
        return QUICK["adam"]([{"params": []}, *groups])

    same(stepped(make, advance)[0], stepped(make, lambda made: made.step())[0])
