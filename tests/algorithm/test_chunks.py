"""Several steps at a time: the same numbers bit for bit, the same counts, or Lightning's own loop."""

import functools
import pickle

import pytest
import torch
from cases import some
from composing import composed
from fitting import BASE, ONE, Unfreezing, fitted
from hydra.utils import instantiate
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import (
    GradientAccumulationScheduler,
    LambdaCallback,
    ModelCheckpoint,
)
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.strategies import SingleDeviceStrategy
from resume import equal
from tape import taped
from torch import nn

from jensen.algorithm import chunk
from jensen.algorithm.gradient import Gradient
from jensen.base.errors import InputError
from jensen.callbacks.average import Average
from jensen.data.module import DataModule

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning",
    "ignore:.*does not have many workers.*",
    "ignore:.*Checkpoint directory .* exists and is not empty.*",
    "ignore:.*your dataloader is not resumable.*",
)

CASES = {
    "beta": (),
    "factor": ("objective=factor", "objective.hidden=[4]"),
    "control": ("objective=control", "trainer.log_every_n_steps=10"),
    "importance": ("objective=importance",),
    "mixture prior": ("model/prior=mixture", "model.prior.warmup=5"),
    "clipped": ("trainer.gradient_clip_val=0.1",),
    "a schedule of lr": (
        "+schedule@algorithm.lr_scale=linear",
        "algorithm.lr_scale.start=0.1",
        "algorithm.lr_scale.end=1.0",
        "algorithm.lr_scale.steps=33",
    ),
    "half precision": ("trainer.precision=bf16-mixed",),
    "a random transform": ("++data.transform={_target_: jensen.data.binarise, _partial_: true}",),
}


def progress(checkpoint):
    """What Lightning counts, but for gradients that were set to zero, which a graph need not."""
    loop = dict(checkpoint["loops"]["fit_loop"])
    optimiser = loop.pop("epoch_loop.automatic_optimization.optim_progress")["optimizer"]
    return loop, optimiser["step"]


@some(3, "case", CASES)
def test_a_run_in_chunks_is_the_run_without(case, tmp_path):
    """Parameters, optimiser, what was logged and what Lightning counts; eagerly, and as a graph."""
    overrides = CASES[case]
    alone, counted, logged = fitted(*overrides, ONE)
    counted.save_checkpoint(tmp_path / "alone.ckpt")
    expected = torch.load(tmp_path / "alone.ckpt", weights_only=True)
    assert not alone.calls.driven
    for capture in (None, lambda run: run):
        chunked, trainer, seen = fitted(*overrides, capture=capture)
        assert chunked.calls.steps == 10
        assert not getattr(chunked.calls._drive, "why", "")
        trainer.save_checkpoint(tmp_path / "chunked.ckpt")
        found = torch.load(tmp_path / "chunked.ckpt", weights_only=True)
        assert progress(found) == progress(expected)
        for part in ("lr_schedulers", "global_step", "epoch"):
            assert equal(found[part], expected[part]), part
        if capture is not None and case == "a schedule of lr":  # of which a tensor keeps 24 bits
            torch.testing.assert_close(found["state_dict"], expected["state_dict"])
            continue
        for part in ("state_dict", "optimizer_states"):
            assert equal(found[part], expected[part]), part
        assert seen == logged
        assert {name: value.item() for name, value in trainer.callback_metrics.items()} == {
            name: value.item() for name, value in counted.callback_metrics.items()
        }


DRAWING = (
    "data=sprites",
    "data.size=350",
    "model/likelihood=cross_entropy",
    "~model.encoder",
    "+model.encoder={_target_: dropping.Encoder, x_shape: [1, 64, 64], latent_dim: 2}",
)


class Losses(Callback):
    """What each of Lightning's batches is said to have lost, looked at when all is over."""

    chunkwise = True

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.seen.append((trainer.global_step, outputs["loss"]))


def test_callbacks_are_told_the_loss_of_the_first_step_of_a_chunk():
    """Also of one that is not logged, and as it was then: a graph writes into the same place."""
    each = Losses()
    fitted(ONE, callbacks=[each])
    alone = {step: loss.item() for step, loss in each.seen}
    for capture in (None, lambda run: run):
        found = Losses()
        fitted("algorithm.steps_per_call=5", capture=capture, callbacks=[found])
        steps = [1, *(step + 1 for step, _ in found.seen[:-1])]
        assert [loss.item() for _, loss in found.seen] == [alone[step] for step in steps]


def test_a_network_that_draws_draws_the_same_and_is_no_graph():
    alone = fitted(*DRAWING, ONE)[0]
    for capture in (None, lambda run: run):
        chunked = fitted(*DRAWING, capture=capture)[0]
        assert chunked.calls.steps == 10
        assert equal(alone.state_dict(), chunked.state_dict())
    assert (
        chunked.calls._drive.why
        == "model.encoder.body.0 draws numbers of its own, of torch's generator"
    )


def test_a_run_that_stopped_amid_a_chunk_goes_on(tmp_path):
    whole = fitted()[0]
    _, trainer, _ = fitted("trainer.max_steps=17")
    trainer.save_checkpoint(tmp_path / "amid.ckpt")
    for more in ((), ("algorithm.steps_per_call=5",), (ONE,)):
        again = fitted(*more, checkpoint=tmp_path / "amid.ckpt")[0]
        assert equal(whole.state_dict(), again.state_dict())


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        ((), 10),
        (
            (
                "trainer.log_every_n_steps=50",
                "trainer.max_steps=100",
                "trainer.val_check_interval=50",
            ),
            25,
        ),
        (("trainer.max_steps=7",), 1),
        (("algorithm.steps_per_call=5",), 5),
        (("algorithm.non_finite=skip",), 1),
    ],
)
def test_auto_is_the_most_that_divides_all_intervals(overrides, steps):
    algorithm = fitted(*overrides, limit_val_batches=0)[0]
    assert algorithm.calls.steps == steps
    assert algorithm.calls.driven == (steps > 1)


class EachBatch(Callback):
    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, *_):
        self.steps.append(trainer.global_step)


class EachGradient(Callback):
    def __init__(self):
        self.seen = 0

    def on_after_backward(self, *_):
        self.seen += 1


def test_a_callback_that_is_called_at_each_step_is_called_at_each_step():
    callback = EachBatch()
    fitted(callbacks=[callback])
    assert callback.steps == [*range(1, 41)]
    gradients = EachGradient()
    fitted(callbacks=[gradients])
    assert gradients.seen == 40
    assert fitted(callbacks=[Average(0.9)])[0].calls.steps == 1


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_before_optimizer_step"])
def test_so_is_a_function_that_was_given_for_a_hook(hook):
    called = []
    fitted(callbacks=[LambdaCallback(**{hook: lambda *_: called.append(1)})])
    assert len(called) == 40


class Sharp(torch.optim.SGD):
    """Goes by the slope at a place nearby (SAM): a step needs the loss's twice."""

    def step(self, closure=None):
        assert closure is not None
        with torch.enable_grad():
            loss = closure()
        parameters = [each for group in self.param_groups for each in group["params"]]
        with torch.no_grad():
            moved = [1e-3 * each.grad for each in parameters]
            torch._foreach_add_(parameters, moved)
        with torch.enable_grad():
            closure()
        with torch.no_grad():
            torch._foreach_sub_(parameters, moved)
        super().step()
        return loss


@pytest.mark.parametrize("graphed", [False, True])
def test_a_step_of_somebody_s_own_is_given_the_closure(graphed):
    words = "optimizer=sgd", "optimizer._target_=test_chunks.Sharp", "optimizer.lr=1e-4"
    expected = fitted(*words, ONE)[0]
    capture = (lambda run: torch.no_grad()(taped(run))) if graphed else None
    found = fitted(*words, capture=capture)[0]
    assert found.calls.steps == 10
    if graphed:
        assert not found.calls._drive.why
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5 * graphed, atol=1e-6 * graphed)


class Paced(Gradient):
    """Its rate falls after every third step."""

    def configure_optimizers(self):
        made = torch.optim.Adam(self.parameters(), lr=1e-2, fused=True)
        scheduler = torch.optim.lr_scheduler.StepLR(made, 1, 0.8)
        of_steps = {"scheduler": scheduler, "interval": "step", "frequency": 3}
        return {"optimizer": made, "lr_scheduler": of_steps}


@pytest.mark.parametrize("graphed", [False, True])
def test_a_scheduler_is_asked_as_often_as_it_says(graphed):
    words = ("algorithm._target_=test_chunks.Paced",)
    expected, trainer, _ = fitted(*words, ONE)
    capture = (lambda run: torch.no_grad()(taped(run))) if graphed else None
    found, chunked, _ = fitted(*words, capture=capture)
    assert found.calls.steps == 10
    rates = [each.optimizers[0].param_groups[0]["lr"] for each in (trainer, chunked)]
    assert rates[0] == rates[1] == pytest.approx(1e-2 * 0.8 ** (15 // 3 * 2 + 10 // 3))
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5 * graphed, atol=1e-6 * graphed)


class Late(Gradient):
    """One whose scheduler does so from the 14th step on, amid a chunk."""

    def configure_optimizers(self):
        made = torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)

        def rate(step):
            made.param_groups[0]["betas"] = (0.9 if step < 14 else 0.5, 0.999)
            return 1.0

        scheduler = torch.optim.lr_scheduler.LambdaLR(made, rate)
        return {"optimizer": made, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


@pytest.mark.parametrize("kind", ["fitting.Cycling", "test_chunks.Late"])
def test_a_scheduler_that_moves_other_numbers_is_no_graph(kind, caplog):
    words = (f"algorithm._target_={kind}",)
    expected = fitted(*words, ONE)[0]
    assert equal(fitted(*words)[0].state_dict(), expected.state_dict())
    with caplog.at_level("WARNING"):
        found, trainer, _ = fitted(*words, capture=lambda run: torch.no_grad()(taped(run)))
    assert "eagerly (a scheduler moves more than the learning rate)" in caplog.text
    assert trainer.global_step == 40
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


class Own(Gradient):
    """An algorithm that has a method of its own, which is called at each step."""


@pytest.mark.parametrize("name", [*chunk._STEP, *chunk._CALL])
def test_a_method_of_an_algorithm_of_one_s_own_is_called_at_each_step(name, monkeypatch):
    called = []
    before = getattr(Gradient, name)

    @functools.wraps(before)  # whose module is jensen's
    def own(self, *args, **options):
        called.append(name)
        return before(self, *args, **options)

    monkeypatch.setattr(Own, name, own, raising=False)
    more = ("trainer.gradient_clip_val=1.0",)
    algorithm = fitted("algorithm._target_=test_chunks.Own", *more)[0]
    assert algorithm.calls.steps == 1
    held_out = 6 if name in ("observe", *chunk._TRANSFER) else 0
    assert len(called) == 40 + held_out
    assert algorithm.calls.driven is False
    if name in chunk._CALL:
        monkeypatch.setattr(Own, "chunkwise", True, raising=False)
        assert fitted("algorithm._target_=test_chunks.Own")[0].calls.steps > 1


class Centred(DataModule):
    """Data whose minibatches are centred."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        found = super().on_after_batch_transfer(batch, dataloader_idx)
        return found._replace(x=found.x - found.x.mean(0)) if self.trainer.training else found


class OwnData(DataModule):
    """Data that have a method of their own, which is called at each step."""


def test_what_data_of_one_s_own_do_to_a_minibatch_they_do_to_each():
    words = ("data._target_=test_chunks.Centred",)
    algorithm = fitted(*words)[0]
    assert algorithm.calls.steps == 1
    assert equal(fitted(*words, ONE)[0].state_dict(), algorithm.state_dict())
    with pytest.raises(
        InputError, match=r"Centred\.on_after_batch_transfer is called at every step"
    ):
        fitted(*words, "algorithm.steps_per_call=5")


@pytest.mark.parametrize("name", chunk._OF_DATA)
def test_a_method_of_data_of_one_s_own_is_called_at_each_step(name, monkeypatch):
    before = getattr(DataModule, name)

    def own(self, *args, **options):
        return before(self, *args, **options)

    monkeypatch.setattr(OwnData, name, own, raising=False)
    assert fitted("data._target_=test_chunks.OwnData")[0].calls.steps == 1
    monkeypatch.setattr(OwnData, "chunkwise", True, raising=False)
    assert fitted("data._target_=test_chunks.OwnData")[0].calls.steps > 1


class Asked(nn.Module):
    """An activation that asks the trainer how far it is, and is told at each step."""

    def __init__(self, trainer):
        super().__init__()
        self.trainer = trainer
        self.seen = []

    def forward(self, x):
        if self.training:
            self.seen.append((self.trainer.global_step, self.trainer.fit_loop.epoch_loop.batch_idx))
        return x * (1 + self.trainer.global_step)


class Asking(Callback):
    def __init__(self, kind):
        self.kind = kind

    def setup(self, trainer, pl_module, stage):
        pl_module.model.decoder[1] = self.kind(trainer)


def test_who_asks_for_the_step_amid_a_chunk_is_told_it():
    expected = fitted(ONE, callbacks=[Asking(Asked)])[0]
    found = fitted(callbacks=[Asking(Asked)])[0]
    assert found.calls.steps == 10
    assert found.model.decoder[1].seen == expected.model.decoder[1].seen
    assert [step for step, _ in found.model.decoder[1].seen] == [*range(40)]
    assert equal(expected.state_dict(), found.state_dict())


class Silent(Asked):
    """The same, which leaves nothing that a capture could see."""

    def forward(self, x):
        return x * (1 + self.trainer.global_step)


def test_who_asks_for_the_step_is_told_it_in_no_graph():
    expected = fitted(ONE, callbacks=[Asking(Silent)])[0]
    found = fitted(callbacks=[Asking(Silent)], capture=lambda run: torch.no_grad()(taped(run)))[0]
    assert found.calls._drive.why
    assert equal(expected.state_dict(), found.state_dict())


class OwnStrategy(SingleDeviceStrategy):
    """A strategy that has a method of a step of its own."""


class OwnPrecision(Precision):
    """A plugin that has one."""


@pytest.mark.parametrize(
    ("kind", "make", "name"),
    [
        *((OwnStrategy, lambda: {"strategy": OwnStrategy("cpu")}, n) for n in chunk._OF_STRATEGY),
        *((OwnPrecision, lambda: {"plugins": [OwnPrecision()]}, n) for n in chunk._OF_PRECISION),
    ],
)
def test_a_method_of_a_strategy_of_one_s_own_is_called_at_each_step(kind, make, name, monkeypatch):
    called = []
    before = getattr(kind, name)

    def own(self, *args, **options):
        called.append(name)
        return before(self, *args, **options)

    monkeypatch.setattr(kind, name, own, raising=False)
    words = ("trainer.gradient_clip_val=1.0",)
    options = make()
    if "plugins" in options:
        options["precision"] = None
    algorithm = fitted(*words, **options)[0]
    assert len(called) == 40
    assert not algorithm.calls.driven


def test_an_algorithm_without_a_method_of_a_step_of_its_own_is_taken_in_chunks():
    assert fitted("algorithm._target_=test_chunks.Own")[0].calls.steps > 1


def test_what_was_trained_in_chunks_can_be_pickled():
    algorithm = fitted()[0]
    del algorithm._terms.log  # the test's
    again = pickle.loads(pickle.dumps(algorithm))
    assert equal(again.state_dict(), algorithm.state_dict())


def test_parameters_that_the_optimiser_is_given_amid_the_training_train():
    alone = fitted(ONE, callbacks=[Unfreezing()])[0]
    chunked = fitted(callbacks=[Unfreezing()])[0]
    assert chunked.calls.steps == 10
    assert equal(alone.state_dict(), chunked.state_dict())


LBFGS = ("optimizer._target_=torch.optim.LBFGS", "~optimizer.fused", "optimizer.lr=1e-6")


def test_an_optimiser_that_evaluates_the_loss_takes_its_steps_by_lightning():
    algorithm, trainer, _ = fitted(*LBFGS, "trainer.max_steps=10")
    assert not algorithm.calls.driven
    assert trainer.global_step == 10
    with pytest.raises(InputError, match="the optimizer evaluates the loss itself"):
        fitted(*LBFGS, "algorithm.steps_per_call=5")


@pytest.mark.parametrize(
    ("overrides", "options", "said"),
    [
        (("algorithm.steps_per_call=3",), {}, "3 but trainer.log_every_n_steps is 10"),
        (("algorithm.steps_per_call=0",), {}, "steps_per_call is 0: expected auto or an"),
        (("algorithm.engine=fast",), {}, "engine is 'fast'"),
        (("algorithm.engine=graph",), {}, "engine is graph but the device is cpu"),
        (
            ("algorithm.steps_per_call=5",),
            {"callbacks": [EachBatch()]},
            "EachBatch.on_train_batch_end",
        ),
        (
            (),
            {"callbacks": [GradientAccumulationScheduler({0: 1, 2: 2})]},
            "a GradientAccumulationScheduler of {0: 1, 2: 2}: expected one number",
        ),
        (
            ("algorithm.steps_per_call=5",),
            {"accumulate_grad_batches": 2},
            "accumulate_grad_batches",
        ),
        ((), {"log_every_n_steps": 0}, "log_every_n_steps of the Trainer is 0"),
        ((), {"overfit_batches": 4}, "overfit_batches of the Trainer is 4"),
        (("algorithm.steps_per_call=5",), {"limit_train_batches": 7}, "limit_train_batches"),
        (
            ("algorithm.steps_per_call=5",),
            {"callbacks": [ModelCheckpoint(every_n_train_steps=8)]},
            "every_n_train_steps of a ModelCheckpoint is 8",
        ),
    ],
)
def test_what_cannot_be_is_a_sentence(overrides, options, said, tmp_path):
    if any(isinstance(each, ModelCheckpoint) for each in options.get("callbacks", ())):
        options = options | {"enable_checkpointing": True, "default_root_dir": tmp_path}
    with pytest.raises(Exception, match=said) as raised:
        fitted(*overrides, **options)
    causes = (raised.value, raised.value.__cause__, raised.value.__context__)
    assert any(isinstance(each, InputError) for each in causes)


class Poisoned(nn.Module):
    """An encoder that gives NaN on one row."""

    def __init__(self, encoder, bad):
        super().__init__()
        self.encoder = encoder
        self.bad = bad

    def forward(self, x):
        found = self.encoder(x)
        here = (x == self.bad).all(1).any()
        return found._replace(mean=torch.where(here, torch.nan, found.mean))


def test_a_loss_that_is_not_finite_amid_a_chunk_is_named_by_its_step(tmp_path):
    """At the step itself on a CPU; as a graph, which nobody waits for, when it is next looked
    at.
    """
    cfg = composed(*BASE)
    data = instantiate(cfg.data)
    _, trainer, _ = fitted("trainer.max_steps=1")
    data.trainer = trainer
    bad = data.batch(data.rows(13)[:1], 13).x

    def poison(algorithm):
        algorithm.model.encoder = Poisoned(algorithm.model.encoder, bad)

    class Poison(Callback):
        def setup(self, trainer, pl_module, stage):
            poison(pl_module)

    for capture, found in (
        (None, "first in the output of model.encoder"),
        (lambda run: run, "found at step 21"),
    ):
        with pytest.raises(InputError, match=f"stopped at step 13, .*{found}"):
            fitted(
                capture=capture,
                callbacks=[Poison()],
                default_root_dir=tmp_path,
                limit_val_batches=0,
            )
