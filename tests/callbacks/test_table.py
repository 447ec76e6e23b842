"""`metrics.csv`: every number of a run once, however often it is killed."""

import csv
from pathlib import Path

import pytest
from pytorch_lightning import Callback
from runs import QUICK, scalar
from tiny import TINY

from jensen.base.errors import InputError
from jensen.callbacks.table import CSV
from jensen.launch.training import train

RUN = (
    *(*TINY, "trainer.accelerator=cpu", "trainer.max_steps=8", "trainer.val_check_interval=4"),
    *(
        "trainer.log_every_n_steps=1",
        "logger=[csv]",
        "callbacks=[checkpoint,diagnose,hparams,lr_monitor]",
    ),
    "diagnostics=[rate]",
)


def rows(folder: Path) -> list[tuple[str, ...]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [tuple(row) for row in csv.reader(file)]


class Dies(Callback):
    """In a run's configuration: ends it by an error at a step of this process."""

    step = 0

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise RuntimeError("killed")


@pytest.mark.slow
def test_a_run_that_is_killed_has_the_table_of_one_that_is_not(configure, tmp_path):
    train(configure(*RUN), tmp_path / "whole")
    dies = configure(*RUN, "+callbacks.dies._target_=test_table.Dies")
    for Dies.step in (2, 6, 7):  # before the first checkpoint, and after one
        with pytest.raises(RuntimeError, match="killed"):
            train(dies, tmp_path / "killed")
    assert {("5", "train/elbo"), ("5", "train/lr")} <= {
        row[:2] for row in rows(tmp_path / "killed")
    }
    train(configure(*RUN), tmp_path / "killed")
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    assert (tmp_path / "killed" / "metrics.csv").read_bytes() == (
        tmp_path / "whole" / "metrics.csv"
    ).read_bytes()


def test_the_table_has_the_numbers_that_tensorboard_has(configure, tmp_path):
    words = [word for word in QUICK if "max_steps" not in word and "interval" not in word]
    short = ("trainer.max_steps=6", "trainer.val_check_interval=6", "logger=[tensorboard,csv]")
    train(configure(*words, *short), tmp_path)
    header, *found = rows(tmp_path)
    assert header == ("step", "tag", "value")
    tags = {row[1] for row in found}
    assert {"train/elbo", "val/elbo", "decomposition/mutual_information"} <= tags
    for tag in (tag for tag in tags if not tag.endswith("_se")):  # TensorBoard has those elsewhere
        mine = {int(step): float(value) for step, name, value in found if name == tag}
        assert mine == pytest.approx(scalar(tmp_path, tag), rel=1e-6)


def test_numbers_of_before_stay_when_a_run_goes_on_without_the_table(configure, tmp_path):
    train(configure(*RUN, "trainer.max_steps=4"), tmp_path)
    before = rows(tmp_path)
    without = ("logger=none", "callbacks=[checkpoint]", "diagnostics=[]")
    train(configure(*RUN, *without, "trainer.max_steps=6"), tmp_path)
    train(configure(*RUN), tmp_path)
    after = rows(tmp_path)
    assert after[: len(before)] == before
    assert {row[0] for row in after[len(before) :]} == {"6", "7", "8"}


def test_a_table_of_someone_else_is_left_alone(tmp_path):
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(
        InputError, match=r"metrics\.csv does not begin with step,tag,value: expect"
    ):
        CSV(tmp_path)
    assert (tmp_path / "metrics.csv").read_text() == "a,b\n1,2\n"
