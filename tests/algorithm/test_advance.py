"""A step of an optimiser without torch's questions is torch's step, bit for bit."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from jensen.algorithm import advance as own
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


def test_pieces_are_all_numbers_once_with_the_counts_of_their_tensors(monkeypatch):
    monkeypatch.setattr(own, "PIECE", 7)
    shapes = [(3, 4), (5,), (), (2, 3, 2, 2)]
    group = own._Group(*([torch.randn(shape) for shape in shapes] for _ in range(5)))
    for part in group[:4]:
        part[3] = part[3].to(memory_format=torch.channels_last)
    pieces = own._in_pieces(group)
    assert max(map(torch.numel, pieces.parameters)) <= 7
    for whole, parts in zip(group[:4], pieces[:4], strict=True):
        lies = [each.permute(0, 2, 3, 1) if each.dim() == 4 else each for each in whole]
        assert torch.equal(torch.cat(parts), torch.cat([each.reshape(-1) for each in lies]))
    pieces.parameters[0].fill_(9)
    assert (group.parameters[0] == 9).sum() == 7
    per = [-(-each.numel() // 7) for each in group.parameters]
    counts = [count for count, times in zip(group.steps, per, strict=True) for _ in range(times)]
    assert all(one is other for one, other in zip(pieces.steps, counts, strict=True))


@pytest.mark.parametrize("gap", [True, False])
def test_tensors_that_lie_otherwise_than_their_gradient_stay_whole(gap, monkeypatch):
    monkeypatch.setattr(own, "PIECE", 7)
    weight = torch.randn(4, 8)[:, ::2] if gap else torch.randn(4, 4)
    gradient = torch.randn(4, 8)[:, ::2] if gap else torch.randn(4, 4).t()
    group = own._Group([weight], [gradient], [weight.clone()], [weight.clone()], [torch.zeros(())])
    assert own._in_pieces(group).parameters[0] is weight


@pytest.mark.parametrize("kind", QUICK)
def test_a_step_by_pieces_is_the_step(kind, monkeypatch):
    expected = stepped(QUICK[kind], advance)[0]
    monkeypatch.setattr(own, "_is_captured", lambda options: True)
    monkeypatch.setattr(own, "PIECE", 7)
    found = stepped(QUICK[kind], advance)[0]
    for one, other in zip(
        found, expected, strict=True
    ):  # rest of a vector may be rounded otherwise
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_large_models_are_not_cut(monkeypatch):
    monkeypatch.setattr(own, "_is_captured", lambda options: True)
    monkeypatch.setattr(own, "_SMALL", 3)
    monkeypatch.setattr(own, "_in_pieces", lambda group: pytest.fail("cut"))
    stepped(QUICK["adam"], advance)
