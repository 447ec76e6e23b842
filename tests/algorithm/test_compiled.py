"""Kernels that `torch.compile` makes of a step are the step, or are left with a line."""

import gc
import logging
import random
import shutil
import warnings
import weakref

import numpy as np
import pytest
import torch
from cases import some
from fitting import ONE, fitted
from hydra.errors import InstantiationException
from pytorch_lightning import Callback
from ranks import together
from resume import equal
from tape import taped
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from torch.utils._python_dispatch import TorchDispatchMode

from jensen.algorithm.compiled import Compiled
from jensen.algorithm.step import outcome
from jensen.base.schedule import Constant

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning",
    "ignore:.*does not have many workers.*",
    "ignore:.*Checkpoint directory .* exists and is not empty.*",
    "ignore:.*torch.jit.script",
    "ignore:You're resuming from a checkpoint that ended before the epoch ended.*",
)
COMPILED = "algorithm.compile=true"


def by(monkeypatch, make):
    """`make` in the place of torch.compile."""
    monkeypatch.setattr(Compiled, "make", staticmethod(make))


def tracing(made):
    """torch.compile without a compiler: traced, taken apart, and run by torch's own kernels. Puts the graphs
    into `made`.
    """

    def backend(graph, inputs):
        made.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    return lambda function: torch.compile(function, backend=backend, fullgraph=True)


@pytest.fixture
def traced(monkeypatch):
    """`tracing`, and the graphs that were made."""
    made = []
    by(monkeypatch, tracing(made))
    return made


LBFGS = (
    "optimizer._target_=torch.optim.LBFGS",
    "~optimizer.fused",
    "optimizer.lr=0.01",
    "+optimizer.max_iter=3",
    "trainer.precision=64-true",  # its steps grow what rounding does to them
)


@some(
    6,
    "overrides",
    [
        LBFGS,
        (),
        ("objective=beta_tcvae",),
        ("objective=control",),
        ("objective=factor", "objective.hidden=[4]"),
        ("objective=importance",),
        ("model/prior=mixture", "model.prior.warmup=5"),
        ("model/prior=factorised", "model.prior.warmup=5"),
        ("model/prior=vamp",),
        ("model/prior=diffusion", "model.prior.hidden=[4]", "model.prior.draws=2"),
        ("model/likelihood=optimal_normal",),
        ("trainer.gradient_clip_val=0.1",),
        ("+schedule@objective.beta=linear", "objective.beta.steps=30"),
    ],
)
def test_kernels_take_the_steps_that_are_written(traced, overrides):
    expected, _, logged = fitted(*overrides)
    found, _, others = fitted(*overrides, COMPILED)
    assert traced
    assert not found.compiled.why
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
    for (step, terms), (same, words) in zip(logged, others, strict=True):
        assert step == same
        assert words == pytest.approx(terms, rel=1e-4, abs=1e-4)


def test_kernels_of_steps_one_at_a_time_and_of_a_chunk_are_the_same(traced):
    assert equal(fitted(COMPILED)[0].state_dict(), fitted(COMPILED, ONE)[0].state_dict())


def test_kernels_in_a_graph(traced):
    """As far as a CPU shows it: each replay calls what a capture recorded."""
    expected = fitted()[0]
    found = fitted(COMPILED, capture=lambda run: torch.no_grad()(taped(run)))[0]
    assert not found.calls._drive.why
    assert not found.compiled.why
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)


def test_what_goes_on_goes_on_bit_for_bit(traced, tmp_path):
    whole = fitted(COMPILED)[0]
    _, trainer, _ = fitted(COMPILED, "trainer.max_steps=20")
    trainer.save_checkpoint(tmp_path / "amid.ckpt")
    again = fitted(COMPILED, checkpoint=tmp_path / "amid.ckpt")[0]
    assert equal(whole.state_dict(), again.state_dict())


def test_the_tenth_model_of_a_process_has_kernels_too(traced):
    """torch keeps eight for a function, and computes as written from then on."""
    for number in range(10):
        del traced[:]
        fitted(COMPILED, f"objective.beta={1 + number}", "trainer.max_steps=20")
        assert traced, number


def test_what_others_have_compiled_stays(traced):
    graphs = []
    doubled = tracing(graphs)(lambda x: 2 * x)
    doubled(torch.ones(3))
    fitted(COMPILED, "trainer.max_steps=20")
    doubled(torch.ones(3))
    assert len(graphs) == 1


def test_kernels_go_with_their_run(monkeypatch):
    made = []
    graphs = []
    by(monkeypatch, tracing(made))
    for _ in range(3):
        fitted(COMPILED, "trainer.max_steps=20")
        graphs += [weakref.ref(graph) for graph in made]
        del made[:]
    gc.collect()  # the last run
    gc.collect()  # and its kernels
    assert len(graphs) == 3
    assert not [graph for graph in graphs if graph() is not None]


def test_sizes_of_a_run_before_are_no_part_of_kernels(monkeypatch):
    """torch makes kernels for all sizes, which are slower, of what it has seen in two."""
    sizes = []

    def backend(graph, inputs):
        sizes.append([int for each in inputs if not isinstance(each, torch.Tensor)])
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    by(monkeypatch, lambda function: torch.compile(function, backend=backend, fullgraph=True))
    for batch_size in (20, 10):
        fitted(COMPILED, f"data.batch_size={batch_size}", "trainer.max_steps=20")
    assert sizes == [[], []]


class Drawing(nn.Module):
    """An activation with dropout and batch norm."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.norm(x))


class Replacing(nn.Module):
    """One that puts another tensor in the place of a buffer, and of an attribute."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.last = torch.zeros(())
        self.fixed = torch.ones(1).expand(8)

    def forward(self, x):
        self.mean = 0.5 * self.mean + 0.5 * x.detach().mean()
        self.last = 0.5 * self.last + 0.5 * x.detach().mean()
        return self.fixed * x - self.mean - self.last


class Random(nn.Module):
    """One that draws from Python's stream and numpy's."""

    def forward(self, x):
        return x * (1 + random.random() + np.random.rand())  # noqa: NPY002


class Falling(nn.Module):
    """One whose slope falls with each call."""

    def __init__(self):
        super().__init__()
        self.slope = 1.0

    def forward(self, x):
        self.slope *= 0.98
        return self.slope * x


class Put(Callback):
    """Puts a module of a kind into the decoder."""

    def __init__(self, kind):
        self.kind = kind

    def setup(self, trainer, pl_module, stage):
        pl_module.model.decoder[1] = self.kind()


@pytest.mark.parametrize("kind", [Drawing, Replacing, Random])
def test_nothing_is_left_of_the_trial(monkeypatch, kind):
    by(monkeypatch, lambda function: function)
    words = ("model/prior=mixture", "model.prior.warmup=5", "objective=control")
    expected = fitted(*words, callbacks=[Put(kind)])[0]
    found = fitted(*words, COMPILED, callbacks=[Put(kind)])[0]
    assert not found.compiled.why
    assert equal(expected.state_dict(), found.state_dict())


def test_a_number_that_changes_in_a_step_is_no_part_of_a_kernel(traced, caplog):
    expected = fitted(callbacks=[Put(Falling)])[0]
    with caplog.at_level("WARNING"):
        found = fitted(COMPILED, callbacks=[Put(Falling)])[0]
    assert "as written (model.decoder.1.slope changes in a step)" in caplog.text
    assert equal(expected.state_dict(), found.state_dict())
    assert found.model.decoder[1].slope == expected.model.decoder[1].slope


class Bad(Callback):
    """Makes the first loss infinite."""

    chunkwise = True

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            batch.x.fill_(torch.inf)


def test_kernels_are_tried_at_a_loss_that_is_finite(monkeypatch):
    by(monkeypatch, wrong)
    words = ("algorithm.non_finite=skip",)
    expected = fitted(*words, callbacks=[Bad()])[0]
    found = fitted(*words, COMPILED, callbacks=[Bad()])[0]
    assert found.compiled.why.startswith("their loss is 0.05")
    assert equal(expected.state_dict(), found.state_dict())


def test_what_draws_does_so_in_kernels(traced):
    words = ("trainer.log_every_n_steps=1",)
    _, _, logged = fitted(*words, callbacks=[Put(Drawing)])
    found, _, others = fitted(*words, COMPILED, callbacks=[Put(Drawing)])
    assert traced
    assert not found.compiled.why
    losses = ([terms["loss"] for _, terms in each] for each in (others, logged))
    assert next(losses) == pytest.approx(next(losses), rel=1e-5)


def wrong(function):
    def call(model, objective, x, noise, step):
        found = function(model, objective, x, noise, step)
        return found._replace(loss=1.05 * found.loss)

    return call


def failing(function):
    def call(*given):
        raise RuntimeError("no compiler is found\nand more")

    return call


@pytest.mark.parametrize(
    ("make", "why"), [(wrong, "their loss is 0.05"), (failing, "no compiler is found")]
)
def test_kernels_that_are_wrong_or_cannot_be_made_are_left_with_a_line(
    monkeypatch, caplog, make, why
):
    by(monkeypatch, make)
    with caplog.at_level("WARNING"):
        found = fitted(COMPILED)[0]
    assert found.compiled.why.startswith(why)
    assert f"steps are computed as written ({found.compiled.why})" in caplog.text
    assert equal(fitted()[0].state_dict(), found.state_dict())


class Chatting:
    """Kernels at whose making torch says something."""

    def __call__(self, *given):
        warnings.warn("a warning for developers", stacklevel=1)
        logging.getLogger("torch._dynamo").warning("Graph break from `Tensor.item()`")
        return outcome(*given)


def test_torch_says_nothing_at_the_making_of_kernels(monkeypatch, caplog, capfd, recwarn):
    by(monkeypatch, lambda function: Chatting())
    fitted(COMPILED, "trainer.max_steps=1")
    heard = [record for record in caplog.records if record.name.startswith("torch.")]
    assert len(heard) == 1  # of the step itself, which this makes chat too
    assert [str(each.message) for each in recwarn].count("a warning for developers") == 1
    assert logging.getLogger("torch").level == logging.WARNING


class Branching(nn.Module):
    """One that asks for a value, so that its steps are no one graph."""

    def forward(self, x):
        return x if x.detach().sum() > 1e9 else 2 * x


def test_a_step_that_is_no_one_graph_is_left_with_a_line(traced, caplog):
    expected = fitted(callbacks=[Put(Branching)])[0]
    with caplog.at_level("WARNING"):
        found = fitted(COMPILED, callbacks=[Put(Branching)])[0]
    line = Branching.forward.__code__.co_firstlineno + 1
    assert found.compiled.why.startswith("torch makes no one graph of them: ")
    assert found.compiled.why.endswith(f", at test_compiled.py:{line}")
    assert caplog.text.count("algorithm.compile: ") == 1
    assert equal(expected.state_dict(), found.state_dict())


def later(function):
    """Kernels that cannot be made anew after some steps."""
    taken = []

    def call(*given):
        taken.append(1)
        if len(taken) > 10:
            raise TorchDynamoException("no room is left\nand more")
        return function(*given)

    return call


def test_kernels_that_cannot_be_made_anew_are_left_with_a_line(monkeypatch, caplog):
    by(monkeypatch, later)
    with caplog.at_level("WARNING"):
        found = fitted(COMPILED)[0]
    assert caplog.text.count("steps are computed as written (no room is left)") == 1
    assert equal(fitted()[0].state_dict(), found.state_dict())


class Operations(TorchDispatchMode):
    """Counts operations on tensors."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


class Counting(Callback):
    """Counts the operations of a few steps."""

    def __init__(self):
        self.operations = Operations()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 10:
            self.operations.__enter__()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 13:
            self.operations.__exit__(None, None, None)


def test_operations_are_counted_amid_the_training(traced):
    counting = Counting()
    expected = fitted()[0]
    found = fitted(COMPILED, callbacks=[counting])[0]
    assert counting.operations.count > 100
    assert not found.compiled.why
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file"))
    with caplog.at_level("WARNING"):
        found = fitted(COMPILED)[0]
    assert found.compiled.why.startswith(
        f"TORCHINDUCTOR_CACHE_DIR is {tmp_path}/file, where nothing can be written: "
    )
    assert equal(fitted()[0].state_dict(), found.state_dict())


RANKS = {"strategy": "ddp", "devices": 2}


def of_two_ranks(rank, objective):
    made = []
    Compiled.make = staticmethod(tracing(made))
    expected = fitted(*objective, **RANKS)[0]
    found = fitted(*objective, COMPILED, **RANKS)[0]
    assert len(made) == 1
    assert found.compiled.why == ""
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)


@some(
    1,
    "objective",
    [("objective=control", "objective.target=1"), ("objective=beta_tcvae",)],
)
def test_two_ranks_have_kernels_of_one_graph(objective):
    together(2, of_two_ranks, objective)


def failing_on_one(rank):
    Compiled.make = staticmethod(failing if rank else lambda function: function)
    words = ("objective=beta_tcvae",)
    found = fitted(*words, COMPILED, **RANKS)[0]
    assert found.compiled.why == "no compiler is found"
    assert equal(fitted(*words, **RANKS)[0].state_dict(), found.state_dict())


def test_where_one_rank_has_no_compiler_the_others_do_without(traced):
    together(2, failing_on_one, timeout=100)


def halved(module, given, found):
    return 0.5 * found


class Hooking(Callback):
    """Puts a hook on a module at the second epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            pl_module.model.decoder[0].register_forward_hook(halved)


def test_a_hook_amid_the_training_counts_and_is_told(traced, caplog):
    words = ("algorithm.steps_per_call=5",)
    expected = fitted(*words, callbacks=[Hooking()])[0]
    with caplog.at_level("WARNING"):
        found = fitted(*words, COMPILED, callbacks=[Hooking()])[0]
    assert traced
    assert "computed as written (a Linear has a hook)" in caplog.text
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)


def test_what_changes_amid_the_training_counts(traced):
    class Frozen(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                pl_module.model.encoder.requires_grad_(False)
                pl_module.objective.beta = Constant(7.0)

    words = ("algorithm.steps_per_call=5",)
    expected = fitted(*words, callbacks=[Frozen()])[0]
    found = fitted(*words, COMPILED, callbacks=[Frozen()])[0]
    assert not found.compiled.why
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not shutil.which("g++"), reason="inductor asks for a C++ compiler")
@some(
    1,
    ("overrides", "kind"),
    [
        ((), None),
        (("objective=control", "model/prior=mixture", "model.prior.warmup=5"), nn.Dropout),
        (("objective=factor", "objective.hidden=[4]", "trainer.precision=bf16-mixed"), None),
        (("model/prior=diffusion", "model.prior.hidden=[4]", "model.prior.draws=2"), None),
        (LBFGS, None),
    ],
)
def test_kernels_of_a_compiler(tmp_path, monkeypatch, overrides, kind):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    callbacks = [Put(kind)] if kind else []
    expected = fitted(*overrides, callbacks=callbacks)[0]
    found = fitted(*overrides, COMPILED, callbacks=callbacks)[0]
    assert not found.compiled.why
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)


def test_a_word_is_no_flag():
    with pytest.raises(InstantiationException, match="compile is 'maybe': expected true or false"):
        fitted("algorithm.compile=maybe")
