"""Models that are trained as one program are trained as each of them alone."""

import random
from copy import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from cases import some
from stacks import (
    ADAM,
    BATCH,
    CASES,
    LATENTS,
    MEMBERS,
    NETWORKS,
    SHAPE,
    STEPS,
    alone,
    assert_equal,
    chunk,
    member,
    members,
    state,
    trained,
    trained_alone,
)
from tape import taped
from torch import nn

from jensen.algorithm import stacked_trace
from jensen.algorithm.alike import structure
from jensen.algorithm.chunk import Chunk
from jensen.algorithm.differing import differing
from jensen.algorithm.finite import NEVER
from jensen.algorithm.stacked import Stack
from jensen.algorithm.stacked_graph import StackedGraph
from jensen.base.schedule import Linear
from jensen.family.gaussian import Gaussian
from jensen.model.conditional_normal import ConditionalNormal
from jensen.model.conv import ConvDecoder, ConvEncoder
from jensen.model.likelihood import (
    Bernoulli,
    Normal,
)
from jensen.model.mixture_prior import MixturePrior
from jensen.model.mlp import MLPDecoder, MLPEncoder
from jensen.model.multimodal import MultimodalVAE
from jensen.model.prior import StandardNormal
from jensen.model.vae import VAE
from jensen.model.vamp import VampPrior
from jensen.objective.beta import Beta
from jensen.objective.capacity import Capacity
from jensen.objective.importance import Importance
from jensen.objective.mmd import MMD


@pytest.fixture(autouse=True)
def listed_soon(monkeypatch):
    """A stack's steps are computed as they are written twice, and then by the list of their operations."""
    monkeypatch.setattr(stacked_trace, "FIRST", 2)


@some(8, "case", CASES, ids="-".join)
def test_a_stack_is_each_of_its_models_trained_alone(case):
    stack = Stack(members(case))
    expected = members(case)
    assert_equal(stack.members, expected, rtol=0, atol=0)
    losses = trained(stack)
    torch.testing.assert_close(losses, trained_alone(expected), rtol=1e-5, atol=1e-5)
    assert_equal(stack.members, expected, rtol=1e-4, atol=2e-5)
    assert stack.holds()


SENSES = {
    "subsets": {"fusion": "subsets"},
    "condition": {"condition": ["hear"]},
    "a prior of conditions": {"condition": ["hear"], "prior": lambda: ConditionalNormal(LATENTS)},
    "private latents": {"latent_private": {"see": 1}, "fusion": "mixture"},
}


def senses(prior=StandardNormal, **more):
    """Models of two modalities; of the first two examples of each chunk one of them is missing."""
    found = []
    for at, own in enumerate(ADAM):
        torch.manual_seed(at)
        model = MultimodalVAE(
            {"see": [3], "hear": [2]},
            {"each": partial(MLPEncoder, hidden=[4], activation="tanh")},
            {"each": partial(MLPDecoder, hidden=[4], activation="tanh")},
            {"each": Normal},
            prior(),
            LATENTS,
            **more,
        )
        found.append(member(model, Beta(1.0 + at), **own))
    return found


def sensed(algorithm, at, first):
    draw = torch.Generator().manual_seed(100 * at + first)
    x = torch.randn(STEPS, BATCH, 5, generator=draw)
    x[:, :2, :3] = torch.nan if not algorithm.model.modalities.given else 0.0
    return Chunk(
        x,
        torch.arange(STEPS * BATCH).reshape(STEPS, BATCH),
        torch.randn(STEPS, BATCH, algorithm.model.noise_dim, generator=draw),
        torch.arange(first, first + STEPS),
        first,
    )


@pytest.mark.parametrize("kind", SENSES)
def test_a_stack_of_models_of_several_senses_is_each_of_them_trained_alone(kind):
    stack, expected = Stack(senses(**SENSES[kind])), senses(**SENSES[kind])
    losses, right = [], []
    for first in (0, STEPS):
        given = [sensed(each, at, first) for at, each in enumerate(stack.members)]
        losses.append([word.taken.loss.item() for word in stack.take(given, [True] * MEMBERS)])
        right.append([alone(*both)[0].item() for both in zip(expected, given, strict=True)])
    torch.testing.assert_close(losses, right, rtol=1e-5, atol=1e-5)
    assert_equal(stack.members, expected, rtol=1e-4, atol=2e-5)


class Normalised(nn.Module):
    """An encoder with a batch norm, before which a bias has a gradient of 0."""

    def __init__(self):
        super().__init__()
        self.x_shape, self.latent_dim = SHAPE, LATENTS
        rest = nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2 * LATENTS)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), *rest)

    def forward(self, x):
        return Gaussian(*self.body(x).chunk(2, -1))


def test_models_with_batch_norm_are_each_trained_alone():
    """In float64: in float32 Adam walks along what rounding leaves of the gradients that are 0, and
    the running mean after it, so that a validation is another from machine to machine, too.
    """

    def made():
        found = []
        for at, own in enumerate(ADAM):
            torch.manual_seed(at)
            networks = Normalised(), NETWORKS["mlp"]()[1]
            model = VAE(*networks, Normal(0.5), StandardNormal(), LATENTS).double()
            found.append(member(model, Beta(1.0 + at).double(), **own))
        return found

    stack, expected = Stack(made()), made()
    for first in range(0, 10 * STEPS, STEPS):
        given = [chunk(each, at, first) for at, each in enumerate(expected)]
        given = [each._replace(x=each.x.double(), noise=each.noise.double()) for each in given]
        stack.take(given, [True] * MEMBERS)
        for each, own in zip(expected, given, strict=True):
            alone(each, own)
    assert_equal(stack.members, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("case", [CASES[0], CASES[3], CASES[-1]], ids="-".join)
def test_models_beside_each_other_are_each_trained_alone(case):
    stack = Stack(members(case), branched=True)
    expected = members(case)
    losses = trained(stack)
    torch.testing.assert_close(losses, trained_alone(expected), rtol=1e-5, atol=1e-5)
    assert_equal(stack.members, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("branched", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_steps_on_buffers_as_a_graph_replays_them_are_the_steps(apart, branched):
    numbers = [{"lr": 1e-2 * (1 + apart * at)} for at in range(MEMBERS)]
    make = torch.optim.SGD  # Adam counts on the host, but for a GPU
    stack = Stack(members(CASES[-1], numbers=numbers, make=make, momentum=0.9), branched)
    program = StackedGraph(stack, capture=lambda run: run)
    expected = members(CASES[-1], numbers=numbers, make=make, momentum=0.9)
    losses = trained(stack, by=program)
    assert not program.why
    torch.testing.assert_close(losses, trained_alone(expected), rtol=1e-5, atol=1e-5)
    assert_equal(stack.members, expected, rtol=1e-4, atol=2e-5)
    given = [chunk(each, at, 3 * STEPS) for at, each in enumerate(stack.members)]
    given[1].noise[2] = torch.nan
    program.take(given, [True] * MEMBERS)
    firsts = [member.finite.place.amin().item() for member in stack.members]
    assert firsts == [NEVER, 3 * STEPS + 2, NEVER]


@pytest.mark.parametrize("stale", [1, 2])
def test_a_replay_that_is_not_the_step_is_refused_and_leaves_nothing(stale, caplog):
    """The steps of the stack are then taken eagerly, and a line says why."""
    captures = []

    def capture(run):
        captures.append(run)
        return (lambda: None) if len(captures) == stale else run

    options = {"make": torch.optim.SGD, "momentum": 0.9}
    stack = Stack(members(CASES[-1], **options))
    program = StackedGraph(stack, capture)
    with caplog.at_level("WARNING"):
        losses = trained(stack, by=program)
    assert "a replay" in program.why
    assert f"the stack's steps are taken eagerly ({program.why})" in caplog.text
    expected = members(CASES[-1], **options)
    torch.testing.assert_close(losses, trained_alone(expected), rtol=1e-5, atol=1e-5)
    assert_equal(stack.members, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("numbers", "make"),
    [
        ([{"lr": 1e-2 * (1 + at), "fused": True} for at in range(MEMBERS)], torch.optim.Adam),
        ([{"lr": 1e-2, "weight_decay": 0.1 * at} for at in range(MEMBERS)], torch.optim.AdamW),
        ([{"lr": 1e-2}] * MEMBERS, torch.optim.AdamW),
        ([{"lr": 1e-3 * (1 + at), "momentum": 0.9} for at in range(MEMBERS)], torch.optim.SGD),
        ([{"lr": 1e-3, "momentum": 0.9, "nesterov": True}] * MEMBERS, torch.optim.SGD),
        ([{"lr": 1e-3}] * MEMBERS, torch.optim.NAdam),
        ([{"lr": 1e-3}] * MEMBERS, torch.optim.Adafactor),
    ],
)
def test_every_optimiser_steps_as_alone_with_equal_numbers_or_others(numbers, make):
    stack = Stack(members(numbers=numbers, make=make))
    expected = members(numbers=numbers, make=make)
    torch.testing.assert_close(trained(stack), trained_alone(expected), rtol=1e-5, atol=1e-5)
    assert_equal(stack.members, expected, rtol=1e-4, atol=2e-5)
    for one, other in zip(stack.members, expected, strict=True):
        found, right = (each.trainer.optimizers[0].state_dict()["state"] for each in (one, other))
        torch.testing.assert_close(found, right, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("most", "by"), [(0.5, "norm"), (0.01, "value")])
def test_the_gradient_of_each_model_is_clipped_by_its_own_norm(most, by):
    """A number's too, which is a parameter without a dimension."""
    case = "beta", "learned_normal", "standard_normal", "mlp"
    settings = {"clip": most, "by": by, "make": torch.optim.SGD, "numbers": [{"lr": 0.1}] * MEMBERS}
    stack, expected = Stack(members(case, **settings)), members(case, **settings)
    torch.testing.assert_close(trained(stack), trained_alone(expected), rtol=1e-5, atol=1e-5)


def test_models_at_different_steps_are_trained_together():
    ahead, behind = members(numbers=ADAM[:2]), members(numbers=ADAM[:2])
    for each in (ahead, behind):
        alone(each[0], chunk(each[0], 0))
    stack = Stack(ahead)
    given = [chunk(ahead[0], 0, STEPS), chunk(ahead[1], 1)]
    stack.take(given, [False, False])
    for at, algorithm in enumerate(behind):
        alone(algorithm, given[at])
    assert_equal(ahead, behind, rtol=1e-4, atol=2e-5)


def test_a_loss_that_is_not_finite_stops_its_model_at_that_step_and_changes_no_other_bit():
    stack, right = Stack(members()), Stack(members())
    given = [chunk(each, at) for at, each in enumerate(stack.members)]
    given[1].noise[2] = torch.nan
    words = stack.take(given, [True] * MEMBERS)
    right.take([chunk(each, at) for at, each in enumerate(right.members)], [True] * MEMBERS)
    assert [word.fault and word.fault.step for word in words] == [None, 2, None]
    assert words[1].fault.outcome.loss.isnan()
    assert words[1].fault.batch.row.equal(given[1].row[2])
    for at in (0, 2):
        assert_equal([stack.members[at]], [right.members[at]], rtol=0, atol=0)
    before = members()[1]
    alone(before, Chunk(*(part[:2] for part in given[1][:4]), 0))
    assert_equal([stack.members[1]], [before], rtol=1e-4, atol=2e-5)


CHANGES = {
    "weight_decay": lambda each: (
        each.trainer.optimizers[0].param_groups[0].update(weight_decay=0.5)
    ),
    "betas": lambda each: each.trainer.optimizers[0].param_groups[0].update(betas=(0.5, 0.9)),
    "frozen": lambda each: each.model.encoder.requires_grad_(False),
    "a group more": lambda each: each.trainer.optimizers[0].add_param_group(
        {"params": [*each.model.encoder.parameters()], "lr": 0.1}
    ),
}


def with_encoders_left_out():
    found = members()
    for each in found:
        own = {"lr": 1e-2, "fused": True}
        each.trainer.optimizers[0] = torch.optim.Adam(each.model.decoder.parameters(), **own)
    return found


@pytest.mark.parametrize("name", CHANGES)
def test_what_somebody_changes_amid_the_training_has_a_stack_of_its_own(name):
    make = with_encoders_left_out if name == "a group more" else members
    stack, expected = Stack(make()), make()
    for first in (0, STEPS):
        given = [chunk(each, at, first) for at, each in enumerate(expected)]
        stack.take(given, [True] * MEMBERS)
        for each, own in zip(expected, given, strict=True):
            alone(each, own)
        assert stack.holds()
        if not first:
            for each in (*stack.members, *expected):
                CHANGES[name](each)
            assert not stack.holds()
            stack = Stack(stack.members)
            assert not stack.refusal(given)
    assert_equal(stack.members, expected, rtol=1e-4, atol=2e-5)


def test_models_of_which_others_learn_are_no_stack():
    given = members()
    given[1].model.encoder.requires_grad_(False)
    assert "other parameters learn" in differing(given)


HOOKS = {
    "a Linear": lambda each: each.model.encoder.body[1].register_forward_hook(lambda *_: None),
    "a parameter": lambda each: next(each.model.parameters()).register_hook(
        lambda slope: 0 * slope
    ),
    "an optimiser": lambda each: each.trainer.optimizers[0].register_step_post_hook(
        lambda *_: None
    ),
    "clipped": lambda each: setattr(each.trainer, "gradient_clip_val", 0.1),
    "built in another way": lambda each: setattr(each.model, "likelihood", Normal(1.0)),
    "encoder_steps=2": lambda each: setattr(each, "encoder_steps", 2),
    "Adam has a step of its own": lambda each: setattr(
        each.trainer.optimizers[0], "step", lambda: None
    ),
}


@pytest.mark.parametrize("name", HOOKS)
def test_models_of_which_one_is_called_for_are_no_stack(name):
    given = members()
    stack = Stack(given)
    HOOKS[name](given[1])
    assert not stack.holds()
    assert name in differing(given)


class Counted(nn.Tanh):
    """An activation that counts how often it is called."""

    count = 0

    def forward(self, x):
        self.count += 1
        return super().forward(x)


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.NAdam, torch.optim.RMSprop])
def test_models_that_leave_a_stack_go_on_by_counts_of_their_own(make):
    """And in another stack, later. The likelihood's scale has the shape of a count."""
    case = ("beta", "learned_normal", "standard_normal", "mlp")
    together, apart = (members(case, numbers=[{"lr": 1e-2}] * MEMBERS, make=make) for _ in range(2))
    for turn in range(4):
        given = [chunk(each, at, turn * STEPS) for at, each in enumerate(apart)]
        for each, own in zip(apart, given, strict=True):
            alone(each, own)
        if turn in (0, 3):
            stack = Stack(together)
            stack.take(given, [False] * MEMBERS)
            assert stack.optimiser.together
        else:
            for each, own in zip(together, given, strict=True):
                alone(each, own)
        for one, other in zip(together, apart, strict=True):
            found, expected = (each.trainer.optimizers[0].state_dict() for each in (one, other))
            torch.testing.assert_close(found["state"], expected["state"], rtol=1e-4, atol=1e-6)


def test_what_a_step_says_of_a_state_is_of_that_step():
    """And not of the chunk's last, as a buffer would be."""
    found = []
    for steps in (STEPS, 1):
        stack = Stack(members(("control", "bernoulli", "standard_normal", "mlp")))
        given = [chunk(each, at) for at, each in enumerate(stack.members)]
        given = [Chunk(*(each[:steps] for each in whole[:4]), 0) for whole in given]
        found.append([each.taken.terms["beta"] for each in stack.take(given, [True] * MEMBERS)])
    assert torch.equal(*map(torch.stack, found))


def test_an_optimiser_that_asks_for_the_loss_is_no_stack():
    class Sharp(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    given = members(make=Sharp, numbers=[{"lr": 0.1}] * MEMBERS)
    assert differing(given) == "Sharp has a step of its own"


class Random(nn.Module):
    """An activation that draws from Python's stream."""

    def forward(self, x):
        return x * (1 + random.random())


def test_models_that_draw_from_a_stream_of_all_are_no_stack():
    given = members()
    for each in given:
        each.model.decoder[1] = Random()
    before = random.getstate()
    refused = Stack(given).refusal([chunk(each, at) for at, each in enumerate(given)])
    assert refused == "a step draws numbers of its own, of Python's random"
    assert random.getstate() == before


class Kept(nn.Module):
    """An activation that keeps a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Slope:
    def __init__(self, slope):
        self.slope = slope

    def of(self, x):
        return self.slope * x


class OfItself(Kept):
    """One whose function is a method of the module."""

    def __init__(self, _):
        super().__init__(None)
        self.function = self.doubled

    def doubled(self, x):
        return 2 * x


def sloped(slope):
    def function(x):
        return slope * x

    return function


@pytest.mark.parametrize(
    ("make", "alike"),
    [
        (lambda at: Kept(torch.tanh), True),
        (lambda at: Kept(lambda x: 2 * x), True),
        (lambda at: Kept(sloped(2.0)), True),
        (OfItself, True),
        (lambda at: Kept(sloped(1.0 + at)), False),
        (lambda at: Kept(lambda x: (1.0 + at) * x), False),
        (lambda at: Kept(lambda x, slope=1.0 + at: slope * x), False),
        (lambda at: Kept(lambda x, *, slope=1.0 + at: slope * x), False),
        (lambda at: Kept(Slope(1.0 + at).of), False),
        (lambda at: Kept(partial(torch.mul, other=1.0 + at)), False),
        (lambda at: Kept((lambda x: x, lambda x: 2 * x)[at % 2]), False),
    ],
)
def test_a_function_with_numbers_of_its_own_is_not_another_s(make, alike):
    """Two models that keep it would be trained by the first one's."""
    given = members()
    for at, each in enumerate(given):
        each.model.decoder[1] = make(at)
    assert (structure(given[0].model) == structure(given[1].model)) is alike
    assert bool(differing(given)) is not alike


class Remembering(Counted):
    """An activation that keeps what it has seen."""

    def forward(self, x):
        self.count.append(x)
        return x


@pytest.mark.parametrize(("module", "nothing"), [(Counted, 0), (Remembering, [])])
def test_models_that_count_their_steps_by_themselves_are_no_stack(module, nothing):
    given = members()
    for each in given:
        each.model.decoder[1] = module()
        each.model.decoder[1].count = copy(nothing)
    stack = Stack(given)
    chunks = [chunk(each, at) for at, each in enumerate(given)]
    assert stack.refusal(chunks) == "model.decoder.1.count changes in a step"
    assert [each.model.decoder[1].count for each in given] == [nothing] * MEMBERS


def test_a_graph_of_a_stack_has_the_loss_of_each_chunk():
    """Of one that nobody logs, too."""
    stack = Stack(members())
    program = StackedGraph(stack, lambda run: torch.no_grad()(taped(run)))
    expected = trained_alone(members())
    for turn, losses in enumerate(expected):
        given = [chunk(each, at, STEPS * turn) for at, each in enumerate(stack.members)]
        found = program.take(given, [not turn] * MEMBERS)
        of_first = [steps.taken.loss.item() for steps in found]
        torch.testing.assert_close(of_first, losses, rtol=1e-5, atol=1e-5)
    assert not program.why


def test_a_graph_of_a_stack_that_changes_before_each_chunk_is_captured_three_times():
    captures = []

    def capture(run):
        captures.append(run)
        return torch.no_grad()(taped(run))

    def steps(stack, by):
        for turn in range(6):
            for each in stack.members:
                each.trainer.gradient_clip_val = 1.0 + turn
            given = [chunk(each, at, STEPS * turn) for at, each in enumerate(stack.members)]
            by.take(given, [True] * MEMBERS)

    expected = Stack(members())
    steps(expected, expected)
    stack = Stack(members())
    program = StackedGraph(stack, capture)
    steps(stack, program)
    assert len(captures) == 3 * 2
    assert program.why == "what they are captured with changes again and again"
    assert_equal(stack.members, expected.members, rtol=1e-4, atol=2e-5)


def test_an_optimiser_s_state_of_somebody_s_own_is_found():
    stack = Stack(members())
    trained(stack, rounds=1)
    assert stack.holds()
    stack.members[1].trainer.optimizers[0].state.clear()
    assert not stack.holds()


@pytest.mark.parametrize("parts", [1, 2, 6, 7])
@pytest.mark.parametrize("graphed", [False, True])
def test_learning_rates_that_part_amid_the_training(parts, graphed):
    """After `parts` steps, of four in a chunk; in a graph, too."""

    def scheduled(found):
        for at, each in enumerate(found):
            group = each.trainer.optimizers[0].param_groups[0]

            def move(group=group, at=at, done=[0], **_):  # noqa: B006
                done[0] += 1
                group["lr"] = 1e-2 * (1 + 2 * at * (done[0] >= parts))

            loop = SimpleNamespace(update_lr_schedulers=lambda *_, move=move, **__: move())
            each.trainer.lr_scheduler_configs = [True]
            loop.batch_progress = SimpleNamespace(current=SimpleNamespace(ready=1))
            each.trainer.fit_loop = SimpleNamespace(epoch_loop=loop)
            each.trainer.global_step = 0
        return found

    def steps(stack, by):
        for first in range(0, 3 * STEPS, STEPS):
            given = [chunk(each, at, first) for at, each in enumerate(stack.members)]
            by.take(given, [True] * MEMBERS)
            stack.next_lr(given, STEPS)

    stack = Stack(scheduled(members()))
    assert stack.optimiser.together
    program = StackedGraph(stack, lambda run: torch.no_grad()(taped(run))) if graphed else stack
    steps(stack, program)
    assert not stack.optimiser.together
    assert not getattr(program, "why", "")
    expected = scheduled(members())
    for at, each in enumerate(expected):
        for first in range(0, 3 * STEPS, STEPS):
            for step in range(STEPS):
                alone(
                    each, Chunk(*(part[step : step + 1] for part in chunk(each, at, first)[:4]), 0)
                )
                each.trainer.fit_loop.epoch_loop.update_lr_schedulers()
    assert_equal(stack.members, expected, rtol=1e-4, atol=2e-5)


def test_a_model_that_leaves_is_no_part_of_the_others():
    three, two = Stack(members()), members()
    trained(three, rounds=1)
    rest = Stack(three.members[:2])
    assert not three.holds()
    gone = {name: value.clone() for name, value in state(three.members[2]).items()}
    given = [chunk(each, at, STEPS) for at, each in enumerate(rest.members)]
    rest.take(given, [False, False])
    assert all(value.equal(gone[name]) for name, value in state(three.members[2]).items())
    for at, each in enumerate(two[:2]):
        alone(each, chunk(each, at))
        alone(each, given[at])
    assert_equal(rest.members, two[:2], rtol=1e-4, atol=2e-5)


def test_convolutions_are_stacked_too():
    def made():
        found = []
        for at in range(2):
            torch.manual_seed(at)
            sizes = ([1, 16, 16], LATENTS, [2, 3, 3, 4], [4, 4, 2, 2], [5])
            networks = ConvEncoder(*sizes), ConvDecoder(*sizes[:2], [4, 3, 3, 2], *sizes[3:])
            model = VAE(*networks, Bernoulli(), StandardNormal(), LATENTS)
            found.append(member(model, Beta(1.0 + at)))
        return found

    stack, expected = Stack(made()), made()
    given = [chunk(each, at, shape=[1, 16, 16]) for at, each in enumerate(expected)]
    stack.take(given, [False, False])
    for at, each in enumerate(expected):
        alone(each, given[at])
    assert_equal(stack.members, expected, rtol=1e-3, atol=2e-5)


def test_what_a_step_reads_beside_tensors_makes_models_unlike():
    def of(objective=None, hidden=(4,), activation="relu", prior=None):
        encoder = MLPEncoder(SHAPE, LATENTS, hidden, activation)
        decoder = MLPDecoder(SHAPE, LATENTS, hidden, activation)
        model = VAE(encoder, decoder, Bernoulli(), prior or StandardNormal(), LATENTS)
        return structure(model), structure(objective or Beta())

    assert of(Beta(1.0)) == of(Beta(7.0))
    assert of(Beta(1.0)) != of(Beta(Linear(0.0, 7.0, 5)))
    assert of(Importance(3)) != of(Importance(4))
    assert of(Capacity(1.0)) != of(Capacity(1.0, convention="example"))
    assert of(MMD()) != of(MMD(bandwidths=[1.0, 2.0]))
    assert of(hidden=(4,)) != of(hidden=(5,))
    assert of(hidden=(4,)) != of(hidden=(4,), activation="tanh")
    assert of(prior=VampPrior(4, SHAPE)) == of(prior=VampPrior(4, SHAPE))
    assert of(prior=VampPrior(4, SHAPE)) != of(prior=VampPrior(4, SHAPE, unit=False))
    first, other = (MixturePrior(3, LATENTS, floor=each) for each in (1e-4, 1e-2))
    assert of(prior=first) == of(prior=other)


def test_a_module_that_replaces_a_buffer_is_refused():
    class Counting(StandardNormal):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def update(self, posterior, step):
            self.count = self.count + 1

    encoder, decoder = NETWORKS["mlp"]()
    pair = [member(VAE(encoder, decoder, Bernoulli(), Counting(), LATENTS), Beta())]
    with pytest.raises(RuntimeError, match="count is replaced, not changed in place"):
        Stack(pair).take([chunk(pair[0], 0)], [False])
