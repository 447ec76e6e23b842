"""Which validation `best.ckpt` is of."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from composing import composed
from omegaconf import open_dict
from pytorch_lightning.trainer.states import TrainerFn
from tiny import TINY

from jensen.base.errors import InputError
from jensen.callbacks.best import Best
from jensen.launch.training import train

RUN = (
    *TINY,
    "trainer.accelerator=cpu",
    "trainer.val_check_interval=2",
    "callbacks=[checkpoint]",
    "diagnostics=[]",
)
MINE = {
    "_target_": "pytorch_lightning.callbacks.ModelCheckpoint",
    "monitor": "val/elbo",
    "mode": "max",
    "filename": "{step}",
}


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


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_checkpoint_of_a_users_own_goes_on_as_if_nobody_had_stopped_it(tmp_path):
    """last.ckpt, which is written after it, has its state of the same validation."""
    found = {}
    for name, ends in {"once": [6], "twice": [4, 6]}.items():
        for steps in ends:
            folder = tmp_path / name
            cfg = composed(*RUN, f"trainer.max_steps={steps}")
            with open_dict(cfg):
                cfg.callbacks.mine = MINE | {"dirpath": str(folder / "mine")}
            train(cfg, folder)
        saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["callbacks"]
        (mine,) = (state for key, state in saved.items() if "ModelCheckpoint" in key)
        files = [file.name for file in (folder / "mine").iterdir()]
        found[name] = (files, Path(mine["best_model_path"]).name)
        assert files == [found[name][1]]
    assert found["once"] == found["twice"]
