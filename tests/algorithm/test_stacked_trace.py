"""The listed operations of a stack's step are the step, and its kernels nearly so; or they are left."""

import shutil
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from cases import some
from scipy.optimize import curve_fit
from stacks import (
    ADAM,
    CASES,
    LATENTS,
    MEMBERS,
    SHAPE,
    STEPS,
    alone,
    assert_equal,
    chunk,
    member,
    members,
    trained,
    trained_alone,
)
from torch import nn

from jensen.algorithm import stacked_trace
from jensen.algorithm.origin import is_known, read
from jensen.algorithm.stacked import Stack
from jensen.algorithm.stacked_graph import StackedGraph
from jensen.algorithm.stacked_trace import Traced
from jensen.family.gaussian import Gaussian
from jensen.model.likelihood import Bernoulli
from jensen.model.mlp import MLPDecoder, MLPEncoder
from jensen.model.prior import StandardNormal
from jensen.model.vae import VAE
from jensen.objective.beta import Beta

AT_ONCE = 0
NEVER = 10**9


def listed(monkeypatch, first=AT_ONCE):
    """Have steps listed after the `first`, and give the stacks' ways to compute them."""
    monkeypatch.setattr(stacked_trace, "FIRST", first)
    tried = Traced._tried
    made = []

    def remember(self, make, given):
        found = tried(self, make, given)
        made.append(found)
        return found

    monkeypatch.setattr(Traced, "_tried", remember)
    return made


@pytest.fixture
def kernels(monkeypatch):
    """Kernels without a compiler: the graphs that they were to be made of."""
    made = []

    def backend(graph, inputs):
        made.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    monkeypatch.setattr(
        Traced, "make", staticmethod(partial(torch.compile, fullgraph=True, backend=backend))
    )
    return made


@some(8, "case", CASES, ids="-".join)
def test_the_operations_are_those_of_the_step_bit_for_bit(case, monkeypatch):
    listed(monkeypatch, NEVER)
    expected = Stack(members(case))
    losses = trained(expected)
    made = listed(monkeypatch)
    found = Stack(members(case))
    assert trained(found) == losses
    assert [why for _, why in made] == [""]
    assert_equal(found.members, expected.members, rtol=0, atol=0)


@pytest.mark.parametrize("case", [CASES[0], CASES[-1]], ids="-".join)
def test_in_half_precision_too(case, monkeypatch):
    def half():
        found = members(case)
        for each in found:
            each.trainer.precision = "bf16-mixed"
            context = partial(torch.autocast, "cpu", torch.bfloat16)
            each.trainer.precision_plugin.forward_context = context
        return Stack(found)

    listed(monkeypatch, NEVER)
    expected = half()
    losses = trained(expected)
    made = listed(monkeypatch)
    found = half()
    assert trained(found) == losses
    assert [why for _, why in made] == [""]
    assert_equal(found.members, expected.members, rtol=0, atol=0)


@some(5, "case", CASES, ids="-".join)
def test_kernels_take_the_steps_of_each_model_alone(case, kernels):
    stack = Stack(members(case), kernels=True)
    expected = members(case)
    losses = trained(stack)
    assert len(kernels) == 1
    torch.testing.assert_close(losses, trained_alone(expected), rtol=1e-5, atol=1e-5)
    assert_equal(stack.members, expected, rtol=1e-4, atol=2e-5)


def test_kernels_in_a_graph(kernels):
    options = {"make": torch.optim.SGD, "momentum": 0.9}
    stack = Stack(members(**options), kernels=True)
    program = StackedGraph(stack, capture=lambda run: run)
    losses = trained(stack, by=program)
    assert kernels
    assert not program.why
    torch.testing.assert_close(losses, trained_alone(members(**options)), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor asks for a C++ compiler")
def test_kernels_of_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    stack = Stack(members(), kernels=True)
    losses = trained(stack)
    assert not stack._slopes.why
    torch.testing.assert_close(losses, trained_alone(members()), rtol=1e-4, atol=1e-4)


def test_minibatches_of_another_size_have_a_list_of_their_own(monkeypatch):
    made = listed(monkeypatch)
    stack = Stack(members())
    expected = members()
    for first, rows in enumerate((6, 4, 6)):
        given = [_cut(chunk(each, at, STEPS * first), rows) for at, each in enumerate(expected)]
        stack.take(given, [True] * MEMBERS)
        for each, own in zip(expected, given, strict=True):
            alone(each, own)
    assert [why for _, why in made] == ["", ""]
    assert_equal(stack.members, expected, rtol=1e-4, atol=2e-5)


def _cut(given, rows):
    return given._replace(x=given.x[:, :rows], row=given.row[:, :rows], noise=given.noise[:, :rows])


FACTOR = {"now": 1.0}
"""What a module of somebody's own reads of Python."""


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.x_shape, self.latent_dim = SHAPE, LATENTS
        first, last = nn.Linear(6, 4, bias=False), nn.Linear(4, 2 * LATENTS)
        self.body = nn.Sequential(nn.Flatten(), first, nn.BatchNorm1d(4), last)

    def forward(self, x):
        return Gaussian(*(FACTOR["now"] * self.body(x)).chunk(2, -1))


def own():
    """Models with an encoder of somebody's own, in float64."""
    found = []
    for at, numbers in enumerate(ADAM):
        torch.manual_seed(at)
        networks = Encoder(), MLPDecoder(SHAPE, LATENTS, [4])
        model = VAE(*networks, Bernoulli(), StandardNormal(), LATENTS).double()
        found.append(member(model, Beta(1.0 + at).double(), **numbers))
    return found


def take(stack, expected, turn):
    """Steps of a stack, and of each model alone."""
    given = [_wide(chunk(each, at, STEPS * turn)) for at, each in enumerate(expected)]
    stack.take(given, [True] * MEMBERS)
    for each, its in zip(expected, given, strict=True):
        alone(each, its)


def test_a_module_of_somebody_s_own_may_read_anything_in_each_step(monkeypatch):
    made = listed(monkeypatch)
    stack, expected = Stack(own()), own()
    for turn in range(3):
        monkeypatch.setitem(FACTOR, "now", 1.0 + turn)
        take(stack, expected, turn)
    assert made == []
    assert_equal(stack.members, expected, rtol=1e-8, atol=1e-8)


def test_what_a_module_of_somebody_s_own_reads_is_looked_at_before_a_chunk(monkeypatch, kernels):
    stack, expected = Stack(own(), kernels=True), own()
    take(stack, expected, 0)
    monkeypatch.setitem(FACTOR, "now", 3.0)
    assert not stack.holds()
    take(Stack(stack.members, kernels=True), expected, 1)
    assert len(kernels) == 2
    assert_equal(stack.members, expected, rtol=1e-8, atol=1e-8)


def test_kernels_of_modules_of_somebody_s_own_leave_nothing_of_their_trial(kernels):
    """A batch norm changes its buffers in each forward pass."""
    stack, expected = Stack(own(), kernels=True), own()
    for turn in range(3):
        take(stack, expected, turn)
    assert kernels
    assert not stack._slopes.why
    assert_equal(stack.members, expected, rtol=1e-8, atol=1e-8)


def _wide(given):
    return given._replace(x=given.x.double(), noise=given.noise.double())


def loss_off(program):
    return lambda *given: [1.05 * program(*given)[0], *program(*given)[1:]]


def slope_off(program):
    def call(*given):
        *first, last = program(*given)
        return [*first, 1.5 * last + 1.0]

    return call


def none(program):
    raise RuntimeError("no compiler is found\nand more")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (loss_off, "their losses are"),
        (slope_off, "their losses are 0 from the step's, and their slopes"),
        (none, "no compiler is found"),
    ],
)
def test_kernels_that_are_wrong_or_cannot_be_made_are_left_with_a_line(
    monkeypatch, caplog, make, why
):
    monkeypatch.setattr(Traced, "make", staticmethod(make))
    expected = Stack(members())
    losses = trained(expected)
    stack = Stack(members(), kernels=True)
    with caplog.at_level("WARNING"):
        assert trained(stack) == losses
    assert caplog.text.count("algorithm.compile: the stack's steps are no kernels") == 1
    assert stack._slopes.why.startswith(why)
    assert_equal(stack.members, expected.members, rtol=0, atol=0)


def test_what_is_right_for_one_step_alone_is_left(monkeypatch):
    """A list is tried far from the step that it was made of."""

    def of_that_step(flat):
        def trace(*given):
            found = flat(*given)
            return lambda *_: found

        return trace

    made = listed(monkeypatch)
    monkeypatch.setattr(stacked_trace, "make_fx", of_that_step)
    losses = trained(Stack(members()))
    assert ["from the step's" in why for _, why in made] == [True]
    torch.testing.assert_close(losses, trained_alone(members()), rtol=1e-5, atol=1e-5)


def dearer(forward):
    return lambda self, inference, step: (
        forward(self, inference, step) + inference.bound.rate.mean()
    )


def test_a_method_that_somebody_replaces_amid_the_training_counts(monkeypatch):
    """Of a class of jensen's, which is then no longer all jensen's."""
    made = listed(monkeypatch)
    stack, expected = Stack(members()), members()
    for turn in range(3):
        given = [chunk(each, at, STEPS * turn) for at, each in enumerate(expected)]
        stack.take(given, [True] * MEMBERS)
        for each, own in zip(expected, given, strict=True):
            alone(each, own)
        if not turn:
            monkeypatch.setattr(Beta, "forward", dearer(Beta.forward))
            assert not stack.holds()
            stack = Stack(stack.members)
    assert len(made) == 1
    assert not is_known(stack.members[0].objective)
    assert_equal(stack.members, expected, rtol=1e-4, atol=2e-5)


def hollow():
    """A function with a cell that nothing is in."""

    def function():
        return later

    if function is None:
        later = 1
    return function


def test_a_function_with_an_empty_cell_is_looked_at_too():
    assert not is_known(holding(hollow()))


class Borrowing(nn.Module):
    """Calls a function of a library, whose numbers are nobody's to change."""

    def forward(self, x):
        return torch.as_tensor(curve_fit(mine, x, x)[0])


def test_libraries_are_not_looked_through():
    assert {name for _, name in read(Borrowing())} == {"curve_fit", "mine"}


def test_a_function_that_somebody_replaces_amid_the_training_is_seen(monkeypatch):
    before = [held[name] for held, name in read(Mine(2, 3))]
    monkeypatch.setitem(globals(), "deeper", lambda x: -x)
    assert [held[name] for held, name in read(Mine(2, 3))] != before


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_a_gradient_that_torch_is_asked_to_watch_is_computed_as_written(monkeypatch):
    made = listed(monkeypatch)
    stack = Stack(members())
    given = [chunk(each, at) for at, each in enumerate(stack.members)]
    with torch.autograd.detect_anomaly(check_nan=True):
        stack.take(given, [True] * MEMBERS)
    assert made == []


def test_no_list_is_made_where_steps_are_asked_for_one_by_one(monkeypatch):
    made = listed(monkeypatch)
    eager = members()
    for each in eager:
        each.calls.engine = "eager"
    trained(Stack(eager))
    assert made == []


GAIN = 1.0
LISTED = [1]
UNREAD = 3
OF_A_FILE = SimpleNamespace(beta=2.0, other=3)


def deeper(x):
    return x * DEPTH


DEPTH = 4


class Own:
    share = 3

    def of(self):
        return self.share


class Mine(nn.Linear):
    level = 2

    def forward(self, x):
        gained = [GAIN * each for each in x]
        return deeper(gained[0]) * OF_A_FILE.beta * self.level * LISTED[0] * Own().of()


def test_what_a_module_reads_of_python_is_found_by_its_names():
    found = {name: held[name] for held, name in read(Mine(2, 3))}
    numbers = {"GAIN": 1.0, "LISTED": [1], "DEPTH": 4, "share": 3, "level": 2, "beta": 2.0}
    assert found == numbers | {"deeper": deeper, "Own": Own, "of": Own.of}
    assert read(nn.Linear(2, 3)) == ()


def holding(value):
    module = nn.Linear(2, 3)
    module.held = value
    return module


def mine(x):
    return x


@pytest.mark.parametrize(
    ("module", "known"),
    [
        (nn.Sequential(nn.Linear(2, 3), nn.ReLU()), True),
        (MLPEncoder(SHAPE, LATENTS, [4], "tanh"), True),
        (holding([1, {"a": torch.relu}, torch.float32, partial(torch.sum, dim=0)]), True),
        (Mine(2, 3), False),
        (nn.Sequential(nn.Linear(2, 3), Mine(2, 3)), False),
        (holding(mine), False),
        (holding([{"a": (1, lambda x: x)}]), False),
        (holding(partial(mine, 1)), False),
        (holding(Mine(2, 3).forward), False),
        (holding(SimpleNamespace(now=1)), False),
    ],
)
def test_code_of_somebody_s_own_is_known_by_where_it_is_written(module, known):
    assert is_known(module) is known
