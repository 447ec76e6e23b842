"""When `last.ckpt` is saved, and what is kept beside it."""

from types import SimpleNamespace

import pytest
import torch
from tiny import TINY

from jensen.callbacks import last
from jensen.callbacks.last import Last, keep, previous
from jensen.launch.training import train

RUN = (
    *TINY,
    "trainer.accelerator=cpu",
    "trainer.max_steps=14",
    "trainer.val_check_interval=6",
    "trainer.log_every_n_steps=2",
)
QUIET = ("callbacks=[checkpoint,diagnose]", "diagnostics=[]", "+trainer.enable_progress_bar=false")


@pytest.fixture
def saves(monkeypatch):
    """The steps at which a run saves; what a second is, is up to the test."""
    steps = []
    save = Last.save

    def noted(self, trainer):
        steps.append(trainer.global_step)
        save(self, trainer)

    monkeypatch.setattr(Last, "save", noted)
    return steps


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, [2, 4, 6, 8, 10, 12, 14]), (1e9, [6, 12, 14])]
)
def test_it_is_saved_after_validations_and_on_logged_steps_when_the_time_has_come(
    configure, tmp_path, saves, seconds, expected
):
    train(
        configure(*RUN, *QUIET, f"callbacks.last.seconds={seconds}", "callbacks.last.share=1e9"),
        tmp_path,
    )
    assert saves == expected
    for name, step in (("last", 14), ("last.previous", expected[-2])):
        assert (
            torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]
            == step
        )


def test_saving_takes_a_hundredth_of_the_time_at_most(configure, tmp_path, saves, monkeypatch):
    """A clock that only saving moves on: it never pays to save again."""
    now = [0.0]
    monkeypatch.setattr(last, "time", SimpleNamespace(monotonic=lambda: now[0]))
    write = last.Durable.save_checkpoint
    monkeypatch.setattr(
        last.Durable,
        "save_checkpoint",
        lambda *given, **more: (write(*given, **more), now.__setitem__(0, now[0] + 1.0)),
    )
    train(configure(*RUN, *QUIET, "callbacks.last.seconds=0", "trainer.max_steps=6"), tmp_path)
    assert saves == [
        2,
        6,
    ]  # at step 2 nothing is known of the cost; at 4 it is 1 s for none passed; 6 is a validation


@pytest.mark.parametrize("accumulated", [2, 3])
def test_no_step_is_cut_in_two(configure, tmp_path, saves, accumulated):
    accumulate = (
        f"trainer.accumulate_grad_batches={accumulated}",
        "callbacks.last.seconds=0",
        "callbacks.last.share=1e9",
    )
    train(
        configure(*RUN, *QUIET, *accumulate, "trainer.max_steps=8", "trainer.log_every_n_steps=1"),
        tmp_path,
    )
    assert saves == [*range(1, 9)]  # once each, though every step is several batches


def test_the_one_before_is_kept_and_the_last_never_goes_away(tmp_path):
    path = tmp_path / "last.ckpt"
    keep(path)
    assert not previous(path).exists()
    for step in range(3):
        path.with_suffix(".new").write_text(str(step))
        keep(path)
        assert step == 0 or path.read_text() == previous(path).read_text() == str(step - 1)
        path.with_suffix(".new").replace(path)
    assert (path.read_text(), previous(path).read_text()) == ("2", "1")
