"""The mean of the weights: what is validated, kept and loaded, and that training does not see it."""

from types import SimpleNamespace

import pytest
import torch
from cases import some
from hydra.utils import instantiate
from pytorch_lightning import Callback
from resume import differences, equal
from tiny import TINY
from torch import nn

from jensen.base.errors import InputError
from jensen.callbacks import Average
from jensen.launch.training import train
from jensen.run.identity import difference, identity
from jensen.run.load import load, state

RUN = (
    *(*TINY, "trainer.accelerator=cpu", "trainer.max_steps=8", "trainer.val_check_interval=4"),
    *("trainer.log_every_n_steps=1", "callbacks=[checkpoint]", "diagnostics=[]"),
    *("callbacks.last.seconds=0", "callbacks.last.share=1e9"),  # saved at every step
)
EMA = ("callbacks=[checkpoint,ema]", "callbacks.ema.decay=0.5", "callbacks.ema.start=1")
SWA = ("callbacks=[checkpoint,swa]", "callbacks.swa.start=2", "callbacks.swa.every=3")


class Walks:
    """A model of one weight that is 1, 2, 3, ... after each step."""

    def __init__(self, average: Average) -> None:
        self.average = average
        self.module = nn.Module()
        self.module.automatic_optimization = True
        self.module.model = nn.Linear(1, 1, bias=False)
        self.trainer = SimpleNamespace(global_step=0)
        average.setup(self.trainer, self.module, "fit")
        average.on_fit_start(self.trainer, self.module)

    @property
    def weight(self) -> float:
        return self.module.model.weight.item()

    def walk(self, steps: int) -> "Walks":
        for _ in range(steps):
            self.average.on_train_batch_start(self.trainer, self.module, None, 0)
            self.trainer.global_step += 1
            nn.init.constant_(self.module.model.weight, self.trainer.global_step)
            self.average.on_train_batch_end(self.trainer, self.module, None, None, 0)
        return self

    def validated(self) -> float:
        self.average.on_validation_start(self.trainer, self.module)
        found = self.weight
        self.average.on_validation_end(self.trainer, self.module)
        return found


def test_the_plain_mean_is_that_of_the_steps_that_count():
    walks = Walks(Average(decay=None, start=2, every=3)).walk(4)
    assert walks.validated() == 4  # none counts yet: the weights themselves
    assert walks.walk(8).validated() == pytest.approx((5 + 8 + 11) / 3)
    assert walks.weight == 12


def test_the_exponential_mean_forgets_and_begins_with_the_first_weights():
    mean = 1.0
    for step in range(2, 41):
        mean += max(1 - 0.9, 9 / (9 + step)) * (step - mean)
    assert Walks(Average(decay=0.9)).walk(40).validated() == pytest.approx(mean)
    assert Walks(Average(decay=0.0)).walk(40).validated() == 40


def test_batches_of_one_step_count_once():
    walks = Walks(Average(decay=None)).walk(3)
    for _ in range(5):  # accumulated: no step ends
        walks.average.on_train_batch_start(walks.trainer, walks.module, None, 0)
        walks.average.on_train_batch_end(walks.trainer, walks.module, None, None, 0)
    assert walks.validated() == 2


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    from composing import composed

    folder = tmp_path_factory.mktemp("plain")
    train(composed(*RUN), folder)
    return folder


def test_the_training_does_not_see_the_mean(configure, tmp_path, plain):
    train(configure(*RUN, *EMA), tmp_path)
    mine = state(tmp_path)
    (kept,) = (each for name, each in mine["callbacks"].items() if name.startswith("Average"))
    assert kept["count"] == 7
    theirs = state(plain)
    assert equal(mine["optimizer_states"], theirs["optimizer_states"])
    for name, weight in kept["weights"].items():
        assert torch.equal(weight, theirs["state_dict"][name])
        assert not torch.equal(weight, mine["state_dict"][name])
    loaded = load(tmp_path)[0].state_dict()
    for name in kept["weights"]:
        assert torch.equal(loaded[name.removeprefix("model.")], mine["state_dict"][name])


class Dies(Callback):
    """In a run's configuration: ends it by an error at a step of this process."""

    step = 0

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise RuntimeError("killed")


@some(1, "which", [EMA, SWA], ids=["ema", "swa"])
def test_a_run_that_is_killed_ends_with_the_same_mean(configure, tmp_path, which):
    train(configure(*RUN, *which), tmp_path / "whole")
    dies = configure(*RUN, *which, "+callbacks.dies._target_=test_average.Dies")
    for Dies.step in (1, 3, 6):
        with pytest.raises(RuntimeError, match="killed"):
            train(dies, tmp_path / "killed")
    train(configure(*RUN, *which), tmp_path / "killed")
    assert not differences(tmp_path / "whole", tmp_path / "killed")


def test_another_mean_is_another_run(configure):
    one = configure(*RUN, *EMA)
    assert identity(one) != identity(configure(*RUN))
    other = configure(*RUN, *EMA, "callbacks.ema.decay=0.9")
    assert difference(one, other) == "callbacks.ema.decay is 0.9 here and 0.5 there"
    same = configure(*RUN, *EMA, "callbacks.last.seconds=9")
    assert identity(same) == identity(one)


def test_em_takes_no_steps_to_average(configure):
    average = instantiate(configure("callbacks=[ema]").callbacks).ema
    module = nn.Module()
    module.automatic_optimization = False
    with pytest.raises(InputError, match="callbacks has an Average but Module takes no steps by"):
        average.setup(None, module, "fit")
