"""A `maximise` that a run does not give is refused as soon as that is known."""

import json

import pytest
import torch
from composing import composed
from tiny import TINY

from jensen.base.errors import InputError
from jensen.launch.training import train

RUN = (
    *TINY, "trainer.accelerator=cpu", "trainer.max_steps=4", "trainer.val_check_interval=2",
    "callbacks=[checkpoint,diagnose]", "diagnostics=[rate]",
)  # fmt: skip


def saved(folder):
    file = folder / "checkpoints" / "last.ckpt"
    return torch.load(file, weights_only=False)["global_step"] if file.exists() else None


@pytest.mark.parametrize("algorithm", ["gradient", "em"])
def test_a_number_that_no_validation_gives_is_refused_before_the_first_step(tmp_path, algorithm):
    words = (
        ["data=blobs", "data.validation=60", "algorithm=em", "trainer.accelerator=cpu"]
        if algorithm == "em"
        else RUN
    )
    cfg = composed(*words, "maximise=val/elbow")
    with pytest.raises(
        InputError, match=r"expected one of .*val/elbo, .*; did you mean val/elbo\?"
    ):
        train(cfg, tmp_path)
    assert saved(tmp_path) is None
    cfg = composed(*words, "maximise=test/elbow")
    with pytest.raises(InputError, match="no test split beside what is validated on"):
        train(cfg, tmp_path)


def test_a_number_that_a_diagnostic_does_not_give_is_refused_after_the_first_validation(tmp_path):
    with pytest.raises(InputError, match=r"did you mean rate/active_units\?"):
        train(composed(*RUN, "maximise=rate/active_unit"), tmp_path)
    assert saved(tmp_path) == 2
    train(composed(*RUN, "maximise=rate/active_units"), tmp_path)
    assert json.loads((tmp_path / "finished.json").read_text())["step"] == 4
    never = tmp_path / "never"
    train(composed(*RUN), never)
    one, other = (
        torch.load(each / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
        for each in (tmp_path, never)
    )
    assert all(torch.equal(one[name], other[name]) for name in other)
