"""Every choice of `conf/optimizer` trains, and a run that is killed goes on exactly."""

import pytest
import torch
from cases import some
from composing import choices
from hydra.utils import instantiate
from resume import differences
from tiny import TINY

from jensen.launch.training import train

RUN = (
    *(*TINY, "model.encoder.hidden=[4]", "data.batch_size=60", "data.validation=60"),
    *("trainer.accelerator=cpu", "trainer.max_steps=6", "trainer.val_check_interval=3"),
    *("callbacks=[checkpoint]", "diagnostics=[]"),
)


@some(2, "name", choices("optimizer"))
def test_a_run_in_two_parts_is_one_run(configure, tmp_path, name):
    words = (*RUN, f"optimizer={name}")
    whole = train(configure(*words), tmp_path / "whole")
    first = train(configure(*words, "trainer.max_steps=3"), tmp_path / "parts")
    train(configure(*words), tmp_path / "parts")
    assert whole["val/loss"] < first["val/loss"]
    assert not differences(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("name", choices("optimizer"))
def test_it_is_one_of_torchs_with_groups_of_their_own_settings(configure, name):
    part = configure(f"optimizer={name}").optimizer
    made = instantiate(part)([{"params": [torch.zeros(2, requires_grad=True)], "lr": 0.5}])
    assert type(made).__module__.startswith("torch.optim")
    assert made.param_groups[0]["lr"] == 0.5
    assert made.defaults["lr"] == part.lr
