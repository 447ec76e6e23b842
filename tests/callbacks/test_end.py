"""Finished is what came to the end that its configuration asks for, was validated there and
saved.
"""

import json
import shutil
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from cases import slow, some
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import Timer
from resume import TRAINED, equal, records
from tiny import TINY

from jensen.base.errors import InputError
from jensen.launch.training import train
from jensen.run.folder import FINISHED
from jensen.run.reading import saved_step
from jensen.run.words import explain

RUN = (
    *(
        *TINY,
        "data.batch_size=24",
        "trainer.accelerator=cpu",
        "trainer.max_steps=14",
        "trainer.val_check_interval=4",
    ),
    *(
        "diagnostics=[]",
        "callbacks=[checkpoint]",
        "trainer.log_every_n_steps=1",
        "+trainer.enable_progress_bar=false",
    ),
)  # 10 steps an epoch
BY_EPOCHS = ("trainer.val_check_interval=1.0", "trainer.check_val_every_n_epoch=5")
EPOCHS = ("trainer.max_steps=-1", "trainer.max_epochs=2")
MIXTURE = (
    *(
        "algorithm=em",
        "data=blobs",
        "data.size=1300",
        "data.validation=100",
        "model.components=3",
        "diagnostics=[]",
        "callbacks=[checkpoint]",
    ),
    *(
        "trainer.accelerator=cpu",
        "data.batch_size=128",
        "+trainer.enable_progress_bar=false",
        "trainer.log_every_n_steps=1",
    ),
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
STEPPED = "trainer.max_steps"
AT_WILL = "a callback"
STOPPED_EARLY = "EarlyStopping: Monitored metric val/elbo did not improve in the last 1 records."


@some(
    5,
    "overrides, step, why",
    [
        (("+trainer.limit_val_batches=0",), 14, STEPPED),
        (BY_EPOCHS, 14, STEPPED),
        (("callbacks=[]",), 14, STEPPED),
        (("+trainer.min_epochs=5",), 14, STEPPED),
        (("+trainer.min_steps=20", *BY_EPOCHS), 14, STEPPED),
        ((*EPOCHS, *BY_EPOCHS), 20, "trainer.max_epochs"),
        (
            (*EPOCHS, "+trainer.limit_val_batches=0", "trainer.accumulate_grad_batches=3"),
            6,
            "trainer.max_epochs",
        ),
        ((EARLY,), 8, STOPPED_EARLY),
        (
            (EARLY, "trainer.val_check_interval=1.0", "trainer.check_val_every_n_epoch=1", *EPOCHS),
            20,
            "trainer.max_epochs",
        ),
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
def test_a_finished_run_has_its_last_weights_and_says_why_it_ended(
    configure, tmp_path, capsys, overrides, step, why
):
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


@pytest.mark.parametrize(
    ("more", "steps", "stopped"),
    [
        ((), 20, (9, 12)),  # amid the epoch that goes beyond the order of 10, and at an epoch's end
        # Of 4 batches, three and one make a step.
        (("trainer.accumulate_grad_batches=3",), 10, (4,)),
    ],
)
def test_limited_epochs_that_do_not_divide_the_data_are_as_long_as_they_say(
    configure, tmp_path, more, steps, stopped
):
    asked = (*RUN, "trainer.max_steps=-1", "trainer.max_epochs=5", "+trainer.limit_train_batches=4")
    ended = train(configure(*asked, *more), tmp_path / "whole")
    marker = json.loads((tmp_path / "whole" / FINISHED).read_text())
    assert (marker["step"], marker["epochs"], marker["why"]) == (steps, 5, "trainer.max_epochs")
    for step in stopped:
        part = tmp_path / str(step)
        TimeIsUp.steps = [step - 1]
        assert train(configure(*asked, *more, *TIMED), part) == {}
        assert saved_step(part) == step
        assert train(configure(*asked, *more, *TIMED), part) == ended
        assert records(part) == records(tmp_path / "whole")


@pytest.mark.parametrize(
    ("overrides", "step"), [((EARLY,), 8), ((halt("on_train_epoch_end", 10),), 10)]
)
def test_a_run_that_was_killed_after_it_had_stopped_early_does_not_go_on(
    configure, tmp_path, overrides, step
):
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


# amid an epoch, where a validation is due, at an epoch's end, amid the batches of one step; EM amid
# an epoch, which is a step
@some(
    3,
    "overrides, batch, step",
    [
        (RUN, 6, 7),
        (RUN, 7, 8),
        (RUN, 9, 10),
        ((*RUN, "trainer.accumulate_grad_batches=3"), 3, 4),
        slow(
            (
                *MIXTURE,
                "trainer.max_steps=9",
                "algorithm.tolerance=0",
                "trainer.check_val_every_n_epoch=4",
            ),
            5,
            6,
        ),
    ],
)
def test_max_time_beside_another_end_is_of_one_attempt_and_leaves_no_trace(
    configure, tmp_path, capsys, overrides, batch, step
):
    whole = tmp_path / "whole"
    parts = tmp_path / "parts"
    TimeIsUp.steps = []
    results = train(configure(*overrides, *TIMED), whole)
    TimeIsUp.steps = [batch]
    assert train(configure(*overrides, *TIMED), parts) == {}
    assert (
        f"stopped by trainer.max_time at step {step}, before trainer.max_steps="
        in capsys.readouterr().out
    )
    assert saved_step(parts) == step
    assert not [*parts.glob("f*ed.json")]
    assert train(configure(*overrides, *TIMED), parts) == results
    one, other = (checkpoint(run) for run in (whole, parts))
    assert all(equal(one[key], other[key]) for key in TRAINED)
    assert records(whole) == records(parts)


def checkpoint(run: Path):
    """last.ckpt without what a timer counted."""
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return saved | {
        "callbacks": {
            name: value for name, value in saved["callbacks"].items() if "Timer" not in name
        }
    }


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
def test_a_marker_without_its_weights_is_mended_by_the_same_command(
    configure, finished, old, capsys, left
):
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


def test_a_run_that_stopped_early_goes_on_where_that_is_asked_for_no_more(
    configure, tmp_path, capsys
):
    train(
        configure(
            *RUN, "trainer.val_check_interval=3", *STOPPING, "+callbacks.stopping.patience=1"
        ),
        tmp_path,
    )
    first = json.loads((tmp_path / FINISHED).read_text())
    assert first["why"].startswith("EarlyStopping")
    train(
        configure(
            *RUN, "trainer.val_check_interval=3", *STOPPING, "+callbacks.stopping.patience=2"
        ),
        tmp_path,
    )
    second = json.loads((tmp_path / FINISHED).read_text())
    assert second["step"] == first["step"] + 3
    assert "and what did so is set otherwise now: this goes on" in capsys.readouterr().out
    train(configure(*RUN, "trainer.val_check_interval=3"), tmp_path)
    assert json.loads((tmp_path / FINISHED).read_text())["why"] == "trainer.max_steps"


class KilledError(BaseException):
    """Ends a run without a word, as SIGKILL does."""


class Kill(Callback):
    def on_train_batch_end(self, trainer, *_):
        raise KilledError


def test_a_run_that_is_killed_before_its_first_save_still_goes_on_under_another_early_stopping(
    configure, tmp_path
):
    stopping = ("trainer.val_check_interval=3", *STOPPING)
    train(configure(*RUN, *stopping, "+callbacks.stopping.patience=1"), tmp_path)
    step = saved_step(tmp_path)
    kill = f"+callbacks.kill={{_target_:{__name__}.Kill}}"
    with pytest.raises(KilledError):
        train(configure(*RUN, *stopping, "+callbacks.stopping.patience=2", kill), tmp_path)
    assert (saved_step(tmp_path), (tmp_path / FINISHED).exists()) == (step, False)
    train(configure(*RUN, *stopping, "+callbacks.stopping.patience=2"), tmp_path)
    assert json.loads((tmp_path / FINISHED).read_text())["step"] == step + 3


def test_what_only_shows_the_training_does_not_make_a_run_go_on_that_stopped_early(
    configure, tmp_path, capsys
):
    stopping = ("trainer.val_check_interval=3", *STOPPING, "+callbacks.stopping.patience=1")
    train(configure(*RUN, *stopping), tmp_path)
    train(configure(*RUN[:-2], "callbacks=[checkpoint,progress]", *stopping), tmp_path)
    assert "is finished: nothing to do" in capsys.readouterr().out


SWA = "pytorch_lightning.callbacks.StochasticWeightAveraging"
REFUSED = (
    "trainer.max_steps=0",
    "trainer.max_steps=20 callbacks.best.monitor=nope/nope",
    "trainer.max_steps=20 +callbacks.refuse={_target_:NAME.Refuse,hook:setup}",
    "trainer.max_steps=20 +callbacks.refuse={_target_:NAME.Refuse,hook:on_fit_start}",
    "trainer.max_steps=20 +callbacks.refuse={_target_:NAME.Refuse,hook:on_train_start}",
    "trainer.max_steps=20 +trainer.nonsense=1",
    "trainer.max_steps=20 trainer.precision=16-mixed",
    "trainer.max_steps=20 trainer.num_sanity_val_steps=-2",
    f"trainer.max_steps=20 +callbacks.swa._target_={SWA} +callbacks.swa.swa_lrs=1",
    "diagnostics=[codes] callbacks=[checkpoint,diagnose] trainer.max_steps=20"
    " diagnostics.codes.latents=0",
)


class Refuse(Callback):
    """Refuses, in a hook."""

    def __init__(self, hook):
        setattr(self, hook, self._refuse)

    def _refuse(self, *_, **__):
        raise InputError("callbacks.refuse is there: expected none")


def contents(folder):
    """Every file but locks and the event file that a refused attempt may have begun."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: path.read_bytes() for path in files}


@some(4, "words", REFUSED)
def test_a_finished_run_that_is_refused_to_go_on_remains_finished(
    configure, finished, tmp_path, words
):
    if not finished.exists():
        train(configure(*RUN), finished)
    run = shutil.copytree(finished, tmp_path / "run")
    before = contents(run)
    with pytest.raises(Exception, match=r".") as refused:
        train(configure(*RUN, *words.replace("NAME", __name__).split()), run)
    assert explain(refused.value), refused.value
    after = contents(run)
    assert {path: after.get(path) for path in before} == before
    assert [
        path.name for path in after if path not in before and not path.name.startswith("events.")
    ] == []
    assert train(configure(*RUN), run) == json.loads((run / FINISHED).read_text())["results"]


def test_a_finished_run_goes_on_after_a_refusal_as_if_there_had_been_none(
    configure, finished, tmp_path
):
    if not finished.exists():
        train(configure(*RUN), finished)
    run = shutil.copytree(finished, tmp_path / "run")
    whole = tmp_path / "whole"
    with pytest.raises(InputError, match="there: expected none"):
        train(configure(*RUN, *REFUSED[4].replace("NAME", __name__).split()), run)
    train(configure(*RUN, "trainer.max_steps=16"), run)
    assert json.loads((run / FINISHED).read_text())["step"] == saved_step(run) == 16
    train(configure(*RUN, "trainer.max_steps=16", "trainer.val_check_interval=2"), whole)
    assert [each for each in records(run) if each[0].startswith("train/")] == [
        each for each in records(whole) if each[0].startswith("train/")
    ]


@some(
    2,
    "run, ended",
    [
        (RUN, STEPPED),
        slow((*RUN, halt("on_train_batch_end", 7)), AT_WILL),
        ((*RUN, *EPOCHS, *BY_EPOCHS), "trainer.max_epochs"),
        ((*MIXTURE, "trainer.max_steps=4", "algorithm.tolerance=0"), STEPPED),
    ],
)
def test_a_run_that_was_never_validated_says_so_and_is_validated_once_that_is_turned_on(
    configure, tmp_path, capsys, run, ended
):
    off = configure(*run, "+trainer.limit_val_batches=0")
    whole = tmp_path / "whole"
    late = tmp_path / "it's late"
    expected = train(configure(*run), whole)
    for _ in range(2):  # the same command says it again
        assert train(off, late) == {}
        marker = json.loads((late / FINISHED).read_text())
        command = f"python -m jensen.evaluate 'run={tmp_path}/it'\"'\"'s late' gives its numbers"
        sentence = f"{late} ended at step {marker['step']}, which was never validated (trainer.limit_val_batches is 0): {command}"
        assert (marker["why"], marker["note"]) == (ended, sentence)
        assert sentence in capsys.readouterr().out
    results = train(configure(*run), late)
    assert "nothing to do" not in capsys.readouterr().out
    marker = json.loads((late / FINISHED).read_text())
    assert (marker["why"], "note" in marker) == (ended, False)
    assert results == expected == marker["results"]
    last, best = (
        torch.load(late / "checkpoints" / f"{name}.ckpt", weights_only=True)
        for name in ("last", "best")
    )
    assert equal(
        last["state_dict"],
        torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"],
    )
    assert equal(last["state_dict"], best["state_dict"])
    logged = [
        record
        for record in records(whole)
        if record[0].startswith("train/") or record[1] == marker["step"]
    ]
    assert records(late) == logged
    assert train(configure(*run), late) == expected
    assert "nothing to do" in capsys.readouterr().out


def test_a_run_is_not_validated_on_more_or_fewer_examples_half_way(configure, tmp_path):
    train(configure(*RUN, "trainer.max_steps=3", "+trainer.limit_val_batches=2"), tmp_path)
    with pytest.raises(InputError, match=r"trainer.limit_val_batches is 3 here and 2 there"):
        train(configure(*RUN, "+trainer.limit_val_batches=3"), tmp_path)


def test_a_run_is_not_labelled_as_a_shorter_one(configure, tmp_path):
    train(configure(*RUN, "trainer.max_steps=8"), tmp_path)
    (tmp_path / FINISHED).unlink()  # as if it had been stopped there
    with pytest.raises(
        InputError,
        match=r"trainer.max_steps is 5 but .* has finished step 8: expected at least that",
    ):
        train(configure(*RUN, "trainer.max_steps=5"), tmp_path)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("+trainer.limit_train_batches=0", "trainer.limit_train_batches is 0: expected more"),
        (
            "+trainer.max_time=00:00:00:00",
            "training ended at step 0 .*: expected at least one step",
        ),
    ],
)
def test_no_step_is_no_end(configure, tmp_path, override, sentence):
    with pytest.raises(InputError, match=sentence):
        train(configure(*RUN, override), tmp_path)
    assert not (tmp_path / FINISHED).exists()
