"""Which validation `best.ckpt` is of."""

import math
from types import SimpleNamespace

import pytest
from pytorch_lightning.trainer.states import TrainerFn

from jensen.base.errors import InputError
from jensen.callbacks.best import Best


def saved(best, values, tmp_path, fn=TrainerFn.FITTING):
    """Whether each validation with these values was saved."""
    steps = []
    for step, value in enumerate(values):
        trainer = SimpleNamespace(
            state=SimpleNamespace(fn=fn),
            sanity_checking=False,
            callback_metrics={"val/elbo": value},
            default_root_dir=tmp_path,
            save_checkpoint=lambda path, step=step: steps.append((step, path)),
        )
        best.on_validation_end(trainer, None)
    assert all(path == tmp_path / "checkpoints" / "best.ckpt" for _, path in steps)
    return [step for step, _ in steps]


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("max", [-3.0, -2.0, -2.0, -2.5, -1.0], [0, 1, 4]),
        ("min", [3.0, 4.0, 1.0], [0, 2]),
        ("max", [math.nan, -5.0, math.nan, -4.0], [1, 3]),
        ("max", [-math.inf, -5.0], [0, 1]),
        ("max", [math.nan], []),
    ],
)
def test_a_better_validation_is_saved_and_no_other(tmp_path, mode, values, expected):
    assert saved(Best("val/elbo", mode), values, tmp_path) == expected


def test_what_was_best_is_remembered_across_runs(tmp_path):
    first = Best("val/elbo")
    again = Best("val/elbo")
    assert saved(first, [-3.0], tmp_path) == [0]
    again.load_state_dict(first.state_dict())
    assert saved(again, [-4.0, -2.0], tmp_path / "moved") == [1]


def test_evaluation_saves_nothing(tmp_path):
    assert saved(Best("val/elbo"), [-3.0], tmp_path, TrainerFn.VALIDATING) == []


def test_an_unknown_number_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"callbacks.best.monitor is mig: expected one of .*val/elbo"
    ):
        saved(Best("mig"), [1.0], tmp_path)
