"""What a graph needs that no GPU has to show: buffers that keep their place, nothing left behind,
and eager steps, with the reason, where there can be none. `tests/test_cuda.py` has the rest.
"""

import pytest
import torch
from cases import some
from fitting import ONE, Unfreezing, fitted
from pytorch_lightning import Callback
from resume import equal
from tape import taped
from torch import nn

from jensen.algorithm import graph
from jensen.base.schedule import Constant
from jensen.model.likelihood import Normal
from jensen.objective.beta import Beta

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning",
    "ignore:.*does not have many workers.*",
    "ignore:.*Checkpoint directory .* exists and is not empty.*",
)


class Counting(torch.optim.SGD):
    """An optimiser that counts its steps on the host, and steps by that count."""

    def step(self, closure=None):
        if closure is not None:
            closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["count"] = state.get("count", 0) + 1
                parameter.data.add_(parameter.grad, alpha=-group["lr"] / state["count"])


def stale(run):
    """A replay that reads the numbers of the first step for ever."""
    return lambda: None


def stale_at(*numbers):
    """Of the captures, which are of a step, a logged one and the rest of a chunk, those of these
    numbers give replays that do nothing; the others are right.
    """
    tries = []

    def capture(run):
        tries.append(run)
        return stale(run) if len(tries) in numbers else run

    return capture


def failing(run):
    run()
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


def failing_once():
    """What a library may do at the first capture of a process."""
    tries = []

    def capture(run):
        tries.append(run)
        if len(tries) == 1:
            raise RuntimeError("CUDA error: operation failed due to a previous error")
        return run

    return capture


@some(
    3,
    ("overrides", "capture", "why"),
    [
        (
            ("optimizer=sgd", "optimizer._target_=test_graph.Counting"),
            lambda run: run,
            "Counting counts its steps on the host",
        ),
        ((), stale, "a replay moves the parameters"),
        *(
            ((), stale_at(*numbers), "a replay moves the parameters")
            for numbers in ((1, 3), (2,), (3,))
        ),
        ((), failing, "operation not permitted when stream is capturing"),
    ],
)
def test_what_cannot_be_a_graph_is_eager_and_says_why(overrides, capture, why, caplog):
    expected = fitted(*overrides, "algorithm.steps_per_call=1")[0]
    with caplog.at_level("WARNING"):
        found = fitted(*overrides, capture=capture)[0]
    assert why in found.calls._drive.why
    assert f"steps are taken eagerly ({found.calls._drive.why})" in caplog.text
    assert equal(expected.state_dict(), found.state_dict())


def test_a_first_capture_that_fails_is_tried_again():
    found = fitted(capture=failing_once())[0]
    assert not found.calls._drive.why


def test_a_graph_never_reads_outside_its_buffers():
    """Their places in memory are the same at the end as when it was captured."""
    places = []

    def capture(run):
        def replay():
            run()
            drive = found_drive[0]
            inputs = drive._inputs
            read = (inputs.x, inputs.noise, inputs.step, inputs.place, drive._values, drive._loss)
            places.append([each.data_ptr() for each in read])

        return replay

    found_drive = []
    made = graph.Graphed.__init__

    def remember(self, *arguments):
        made(self, *arguments)
        found_drive.append(self)

    graph.Graphed.__init__ = remember
    try:
        fitted(capture=capture)
    finally:
        graph.Graphed.__init__ = made
    assert len(places) > 20
    assert all(each == places[0] for each in places)


def test_copies_on_the_host_are_of_their_time():
    tensor = torch.arange(3.0)
    seen = graph.Seen([tensor])
    tensor.zero_()
    assert seen.read()[0].tolist() == [0.0, 1.0, 2.0]


class Changing(Callback):
    """Changes something at the beginning of the second epoch, of 15 steps."""

    def __init__(self, change):
        self.change = change

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.change(pl_module, trainer.optimizers[0])


def moved(algorithm, optimiser):
    for each in algorithm.parameters():
        each.data = each.data.clone()


def clipped(algorithm, optimiser):
    algorithm.trainer.gradient_clip_val = 1e-3


def exchanged(algorithm, optimiser):
    algorithm.trainer.optimizers = [torch.optim.SGD(algorithm.parameters(), 1e-4, momentum=0.9)]


def of_beta_8(algorithm, optimiser):
    algorithm.objective = Beta(8.0)


def decayed(optimiser, *_):
    with torch.no_grad():
        for each in optimiser.param_groups[0]["params"]:
            each.mul_(0.99)


CHANGES = {
    "lr": lambda _, optimiser: optimiser.param_groups[0].update(lr=0.1),
    "weight_decay": lambda _, optimiser: optimiser.param_groups[0].update(weight_decay=0.5),
    "frozen": lambda algorithm, _: algorithm.model.encoder.requires_grad_(False),
    "moved": moved,
    "clipped": clipped,
    "exchanged": exchanged,
    "objective": of_beta_8,
    "beta": lambda algorithm, _: setattr(algorithm.objective, "beta", Constant(8.0)),
    "buffer": lambda algorithm, _: setattr(algorithm.objective.beta, "value", torch.tensor(8.0)),
    "likelihood": lambda algorithm, _: setattr(algorithm.model, "likelihood", Normal(0.1)),
    "activation": lambda algorithm, _: algorithm.model.decoder.__setitem__(1, nn.Tanh()),
    "state": lambda _, optimiser: optimiser.state.clear(),
}


CALLED = {
    "a Sequential has a hook": lambda algorithm, _: (
        algorithm.model.encoder.body.register_forward_hook(lambda module, given, found: 0.5 * found)
    ),
    "a parameter has a hook": lambda algorithm, _: next(
        algorithm.model.decoder.parameters()
    ).register_hook(torch.zeros_like),
    "an optimiser has a hook": lambda _, optimiser: optimiser.register_step_post_hook(decayed),
    "an optimiser has a hook, before": lambda _, optimiser: optimiser.register_step_pre_hook(
        decayed
    ),
    "algorithm.encoder_steps=3 leaves the decoder out": lambda algorithm, _: setattr(
        algorithm, "encoder_steps", 3
    ),
    "model.decoder.1.count changes in a step": lambda algorithm, _: (
        algorithm.model.decoder.__setitem__(1, Annealed())
    ),
    "model.decoder.1.seen changes in a step": lambda algorithm, _: (
        algorithm.model.decoder.__setitem__(1, Remembering())
    ),
}
"""Changes after which every step has to be Python's, by the reason."""


class Annealed(nn.Module):
    """An activation that is another at each step, which it counts by itself."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def forward(self, x):
        self.count += 1
        return x.clamp(max=100) / self.count


class Remembering(nn.Module):
    """An activation that is another at each step, which it counts in a list."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x.shape)
        return x.clamp(max=100) / len(self.seen)


@pytest.mark.parametrize("why", CALLED)
def test_what_is_called_at_each_step_is_so_from_then_on(why):
    """In chunks, too, and an optimiser's hooks around the whole step, as under Lightning."""
    callbacks = [Changing(CALLED[why])]
    expected = fitted(ONE, callbacks=callbacks)[0]
    for capture in (None, lambda run: torch.no_grad()(taped(run))):
        found = fitted("algorithm.steps_per_call=5", callbacks=callbacks, capture=capture)[0]
        assert (why.partition(",")[0] in found.calls._drive.why) if capture else True
        for one, other in zip(expected.parameters(), found.parameters(), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


def test_hooks_of_all_modules_are_called_at_each_step():
    called = []
    hook = nn.modules.module.register_module_forward_hook(lambda *_: called.append(1))
    try:
        fitted(ONE)
        expected = len(called)
        found = fitted(capture=lambda run: run)[0]
    finally:
        hook.remove()
    assert found.calls._drive.why == "every module has a hook"
    assert len(called) == 2 * expected


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_a_hook_of_torch_s_that_computes_a_weight_is_captured():
    class Normed(Callback):
        def setup(self, trainer, pl_module, stage):
            nn.utils.weight_norm(pl_module.model.decoder[0])

    expected = fitted(ONE, callbacks=[Normed()])[0]
    found = fitted(callbacks=[Normed()], capture=lambda run: torch.no_grad()(taped(run)))[0]
    assert not found.calls._drive.why
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


class Scaled(nn.Module):
    """An activation with a number that is no buffer."""

    scale = 1.0

    def forward(self, x):
        return self.scale * x.relu()


def test_a_number_that_a_module_keeps_is_looked_at():
    class Scaling(Changing):
        def setup(self, trainer, pl_module, stage):
            pl_module.model.decoder[1] = Scaled()

    def double(algorithm, _):
        algorithm.model.decoder[1].scale = 2.0

    expected = fitted(ONE, callbacks=[Scaling(double)])[0]
    words = {"callbacks": [Scaling(double)], "capture": lambda run: torch.no_grad()(taped(run))}
    found = fitted("algorithm.steps_per_call=5", **words)[0]
    assert not found.calls._drive.why
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*CHANGES, "unfrozen", None])
def test_what_changes_amid_a_training_is_captured_again(name):
    captures = []

    def capture(run):
        captures.append(run)
        return torch.no_grad()(taped(run))  # the tape has the operations of backward, too

    def callbacks():
        return (
            [] if name is None else [Changing(CHANGES[name]) if name in CHANGES else Unfreezing()]
        )

    one = "algorithm.steps_per_call=5"
    expected = fitted(ONE, callbacks=callbacks())[0]
    found = fitted(one, callbacks=callbacks())[0]
    assert equal(expected.state_dict(), found.state_dict())
    found = fitted(one, callbacks=callbacks(), capture=capture)[0]
    assert not found.calls._drive.why
    assert len(captures) == (3 if name is None else 6)  # of one step, a logged one, and the rest
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


def test_what_changes_before_each_chunk_is_captured_three_times_and_no_more(caplog):
    class Decaying(Callback):
        def on_validation_end(self, trainer, _):
            trainer.optimizers[0].param_groups[0]["weight_decay"] = 1e-3 * trainer.global_step

    captures = []

    def capture(run):
        captures.append(run)
        return torch.no_grad()(taped(run))

    five = ("algorithm.steps_per_call=5", "trainer.val_check_interval=5")
    expected = fitted(*five, callbacks=[Decaying()])[0]
    with caplog.at_level("WARNING"):
        found = fitted(*five, callbacks=[Decaying()], capture=capture)[0]
    assert len(captures) == 3 * 3
    assert "eagerly (what they are captured with changes again and again)" in caplog.text
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


SCALE = {"now": 1.0}
COUNT = [0]


class OfItsFile(nn.Tanh):
    """Reads a number of its file."""

    def forward(self, x):
        return SCALE["now"] * super().forward(x)


class Counted(nn.Tanh):
    """Changes one, in each step."""

    def forward(self, x):
        COUNT[0] += 1
        return super().forward(x) * (1 + 0.001 * COUNT[0])


class Scaling(Callback):
    def setup(self, trainer, pl_module, stage):
        pl_module.model.decoder[1] = OfItsFile()

    def on_train_epoch_start(self, trainer, pl_module):
        SCALE["now"] = 1.0 + trainer.current_epoch


def test_what_a_module_reads_of_its_file_counts_when_it_is_changed():
    expected = fitted("algorithm.steps_per_call=5", callbacks=[Scaling()])[0]
    capture = lambda run: torch.no_grad()(taped(run))  # noqa: E731
    found = fitted("algorithm.steps_per_call=5", callbacks=[Scaling()], capture=capture)[0]
    assert not found.calls._drive.why
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


class Put(Callback):
    def setup(self, trainer, pl_module, stage):
        pl_module.model.decoder[1] = Counted()


def test_a_module_that_counts_in_its_file_is_no_graph():
    found = fitted(callbacks=[Put()], capture=lambda run: torch.no_grad()(taped(run)))[0]
    assert found.calls._drive.why == "COUNT, which Counted reads, changes in a step"
