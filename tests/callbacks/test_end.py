"""Finished is what came to the end that its configuration asks for, was validated there and saved."""

import json
import shutil
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import Timer
from resume import TRAINED, equal, records
from tiny import TINY

from jensen.attempt import FINISHED
from jensen.core.errors import InputError
from jensen.run import saved_step
from jensen.train import train

RUN = (
    *(*TINY, "data.batch_size=24", "trainer.accelerator=cpu", "trainer.max_steps=14", "trainer.val_check_interval=4"),
    *("diagnostics=[]", "callbacks=[checkpoint]", "trainer.log_every_n_steps=1", "+trainer.enable_progress_bar=false"),
)  # 10 steps an epoch
BY_EPOCHS = ("trainer.val_check_interval=1.0", "trainer.check_val_every_n_epoch=5")
EPOCHS = ("trainer.max_steps=-1", "trainer.max_epochs=2")
MIXTURE = (
    *("algorithm=em", "data=blobs", "model.components=3", "diagnostics=[]", "callbacks=[checkpoint]"),
    *("trainer.accelerator=cpu", "data.batch_size=128", "+trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1"),
)


class Halt(Callback):
    """Asks the trainer to stop, in a hook at a step."""

    def __init__(self, hook, step):
        self.step = step
        setattr(self, hook, self._halt)

    def _halt(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.should_stop = True


class TimeIsUp(Callback):
    """Lets no time remain from a step on, in one attempt only."""

    steps: ClassVar[list[int]] = []

    def on_train_batch_start(self, trainer, *_):
        if self.steps and trainer.global_step == self.steps[0]:
            self.steps.pop(0)
            for each in trainer.callbacks:
                if isinstance(each, Timer):
                    each._duration = 0.0


def halt(hook, step):
    return f"+callbacks.halt={{_target_:{__name__}.Halt,hook:{hook},step:{step}}}"


EARLY = (
    "+callbacks.early={_target_:pytorch_lightning.callbacks.EarlyStopping,monitor:val/elbo,mode:max,patience:1,"
    "min_delta:1e9,check_on_train_epoch_end:null}"
)
TIMED = ("+trainer.max_time=01:00:00:00", f"+callbacks.up={{_target_:{__name__}.TimeIsUp}}")
STEPPED, AT_WILL = "trainer.max_steps", "a callback"
STOPPED_EARLY = "EarlyStopping: Monitored metric val/elbo did not improve in the last 1 records."


@pytest.mark.parametrize(
    ("overrides", "step", "why"),
    [
        (("+trainer.limit_val_batches=0",), 14, STEPPED),
        (BY_EPOCHS, 14, STEPPED),
        (("callbacks=[]",), 14, STEPPED),
        (("+trainer.min_epochs=5",), 14, STEPPED),
        (("+trainer.min_steps=20", *BY_EPOCHS), 14, STEPPED),
        ((*EPOCHS, *BY_EPOCHS), 20, "trainer.max_epochs"),
        ((*EPOCHS, "+trainer.limit_val_batches=0", "trainer.accumulate_grad_batches=3"), 6, "trainer.max_epochs"),
        ((EARLY,), 8, STOPPED_EARLY),
        ((EARLY, "trainer.val_check_interval=1.0", "trainer.check_val_every_n_epoch=1", *EPOCHS), 20, "trainer.max_epochs"),
        ((halt("on_train_batch_end", 7),), 7, AT_WILL),
        ((halt("on_train_batch_end", 7), *BY_EPOCHS), 7, AT_WILL),
        ((halt("on_train_batch_end", 7), "+trainer.limit_val_batches=0"), 7, AT_WILL),
        ((halt("on_train_batch_start", 2), "trainer.accumulate_grad_batches=3"), 3, AT_WILL),
        ((halt("on_train_epoch_end", 10),), 10, AT_WILL),
        ((halt("on_train_epoch_end", 10), "+trainer.limit_val_batches=0"), 10, AT_WILL),
        ((halt("on_validation_end", 8),), 8, AT_WILL),
        ((*TIMED, "trainer.max_steps=-1"), 9, "trainer.max_time"),
    ],
)
def test_a_finished_run_has_its_last_weights_and_says_why_it_ended(configure, tmp_path, capsys, overrides, step, why):
    TimeIsUp.steps = [8]
    cfg = configure(*RUN, *overrides)
    results = train(cfg, tmp_path)
    marker = json.loads((tmp_path / FINISHED).read_text())
    assert (marker["step"], saved_step(tmp_path)) == (step, step)
    assert marker["why"].startswith(why)
    validated = [at for tag, at, _ in records(tmp_path) if tag == "val/elbo"]
    if "+trainer.limit_val_batches=0" in overrides:
        assert not validated
    else:
        assert validated[-1] == step
        assert "val/elbo" in results
    assert train(cfg, tmp_path) == results
    assert "is finished: nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(("overrides", "step"), [((EARLY,), 8), ((halt("on_train_epoch_end", 10),), 10)])
def test_a_run_that_was_killed_after_it_had_stopped_early_does_not_go_on(configure, tmp_path, overrides, step):
    cfg = configure(*RUN, *overrides)
    results = train(cfg, tmp_path)
    marker = json.loads((tmp_path / FINISHED).read_text())
    before = records(tmp_path)
    (tmp_path / FINISHED).unlink()
    assert train(cfg, tmp_path) == results
    again = json.loads((tmp_path / FINISHED).read_text())
    assert saved_step(tmp_path) == step
    assert all(again[key] == marker[key] for key in ("step", "why", "results"))
    assert records(tmp_path) == before


# amid an epoch, where a validation is due, at an epoch's end, amid the batches of one step; EM amid an epoch, which is a step
@pytest.mark.parametrize(
    ("overrides", "batch", "step"),
    [
        (RUN, 6, 7),
        (RUN, 7, 8),
        (RUN, 9, 10),
        ((*RUN, "trainer.accumulate_grad_batches=3"), 3, 4),
        ((*MIXTURE, "trainer.max_steps=9", "algorithm.tolerance=0", "trainer.check_val_every_n_epoch=4"), 5, 6),
    ],
)
def test_max_time_beside_another_end_is_of_one_attempt_and_leaves_no_trace(configure, tmp_path, capsys, overrides, batch, step):
    whole = tmp_path / "whole"
    parts = tmp_path / "parts"
    TimeIsUp.steps = []
    results = train(configure(*overrides, *TIMED), whole)
    TimeIsUp.steps = [batch]
    assert train(configure(*overrides, *TIMED), parts) == {}
    assert f"stopped by trainer.max_time at step {step}, before trainer.max_steps=" in capsys.readouterr().out
    assert saved_step(parts) == step
    assert not [*parts.glob("f*ed.json")]
    assert train(configure(*overrides, *TIMED), parts) == results
    one, other = (checkpoint(run) for run in (whole, parts))
    assert all(equal(one[key], other[key]) for key in TRAINED)
    assert records(whole) == records(parts)


def checkpoint(run: Path):
    """last.ckpt without what a timer counted."""
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return saved | {"callbacks": {name: value for name, value in saved["callbacks"].items() if "Timer" not in name}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def old(configure, finished, tmp_path):
    """A copy of a finished run of 14 steps with a marker as version 0.1 wrote it."""
    if not finished.exists():
        train(configure(*RUN), finished)
    shutil.copytree(finished, tmp_path / "run")
    marker = json.loads((finished / FINISHED).read_text())
    del marker["why"]
    (tmp_path / "run" / FINISHED).write_text(json.dumps(marker))
    return tmp_path / "run"


def test_a_marker_of_before_is_believed_where_its_weights_are_there(configure, old, capsys):
    train(configure(*RUN), old)
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("left", [12, None])
def test_a_marker_without_its_weights_is_mended_by_the_same_command(configure, finished, old, capsys, left):
    previous = old / "checkpoints" / "last.previous.ckpt"
    if left:
        previous.replace(old / "checkpoints" / "last.ckpt")
    else:
        shutil.rmtree(old / "checkpoints")
    assert train(configure(*RUN), old) == json.loads((finished / FINISHED).read_text())["results"]
    holds = "last.ckpt holds step 12" if left else "there is no such last.ckpt"
    assert f"finished.json says step 14 and {holds}: this goes on" in capsys.readouterr().out
    assert saved_step(old) == 14
    assert records(old) == records(finished)
    assert json.loads((old / FINISHED).read_text())["why"] == "trainer.max_steps"


def test_a_marker_that_max_time_left_before_the_end_is_mended_by_the_same_command(configure, old):
    train(configure(*RUN, "trainer.max_steps=20"), old.with_name("longer"))
    # A marker of before that says 14 of 20, as max_time left it.
    cfg = configure(*RUN, "trainer.max_steps=20", "+trainer.max_time=01:00:00:00")
    marker = json.loads((old.with_name("longer") / FINISHED).read_text()) | {"step": 14}
    del marker["why"]
    (old / FINISHED).write_text(json.dumps(marker))
    train(cfg, old)
    assert json.loads((old / FINISHED).read_text())["step"] == saved_step(old) == 20


STOPPING = (
    "+callbacks.stopping._target_=pytorch_lightning.callbacks.EarlyStopping",
    "+callbacks.stopping.monitor=val/elbo",
    "+callbacks.stopping.min_delta=1e9",
)


def test_a_run_that_stopped_early_goes_on_where_that_is_asked_for_no_more(configure, tmp_path, capsys):
    train(configure(*RUN, "trainer.val_check_interval=3", *STOPPING, "+callbacks.stopping.patience=1"), tmp_path)
    first = json.loads((tmp_path / FINISHED).read_text())
    assert first["why"].startswith("EarlyStopping")
    train(configure(*RUN, "trainer.val_check_interval=3", *STOPPING, "+callbacks.stopping.patience=2"), tmp_path)
    second = json.loads((tmp_path / FINISHED).read_text())
    assert second["step"] == first["step"] + 3
    assert "and what did so is set otherwise now: this goes on" in capsys.readouterr().out
    train(configure(*RUN, "trainer.val_check_interval=3"), tmp_path)
    assert json.loads((tmp_path / FINISHED).read_text())["why"] == "trainer.max_steps"


def test_a_run_is_not_labelled_as_a_shorter_one(configure, tmp_path):
    train(configure(*RUN, "trainer.max_steps=8"), tmp_path)
    (tmp_path / FINISHED).unlink()  # as if it had been stopped there
    with pytest.raises(InputError, match=r"trainer.max_steps is 5 but .* has finished step 8: expected at least that"):
        train(configure(*RUN, "trainer.max_steps=5"), tmp_path)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("+trainer.limit_train_batches=0", "trainer.limit_train_batches is 0: expected more"),
        ("+trainer.max_time=00:00:00:00", "training ended at step 0 .*: expected at least one step"),
    ],
)
def test_no_step_is_no_end(configure, tmp_path, override, sentence):
    with pytest.raises(InputError, match=sentence):
        train(configure(*RUN, override), tmp_path)
    assert not (tmp_path / FINISHED).exists()
