"""A run of `trainer.precision=64-true` is one of float64 wherever it is used."""

import json

import pytest
import torch
from cases import slow
from tiny import TINY

import jensen
from jensen.base.errors import InputError
from jensen.launch.training import train
from jensen.run.diagnose import on_run
from jensen.run.load import state

RUN = (
    *(
        *TINY,
        "trainer.accelerator=cpu",
        "trainer.max_steps=6",
        "trainer.precision=64-true",
        "diagnostics=[samples,rate]",
    ),
    *(
        "callbacks=[checkpoint,diagnose]",
        "objective.beta=0.1",
        "+trainer.enable_progress_bar=false",
    ),
)


@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_it_is_evaluated_and_loaded_as_it_was_trained(configure, tmp_path, checkpoint):
    results = train(configure(*RUN), tmp_path)
    assert (results["val/loss"] - results["val/distortion"]) / results["val/rate"] == pytest.approx(
        0.1, rel=1e-10
    )
    seen = {}

    def keep(snapshot):
        seen["codes"] = snapshot.posterior.mean
        return {}

    again = on_run(tmp_path, "validation", checkpoint, {"keep": keep})
    assert again["bound"]["elbo"] == results["val/elbo"]  # the last is the best: to the last bit
    assert seen["codes"].dtype == torch.float64
    model = jensen.load(tmp_path, checkpoint).model
    saved = state(tmp_path, checkpoint)["state_dict"]
    assert all(
        torch.equal(value, saved[f"model.{name}"]) for name, value in model.state_dict().items()
    )
    x = torch.rand(3, *model.decode(torch.zeros(1, 3)).shape[1:]).round()
    with torch.no_grad():
        assert torch.equal(model.encode(x).mean, model.encode(x.double()).mean)


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
@pytest.mark.parametrize(
    "overrides",
    [RUN, slow(("algorithm=em", "data=blobs", "data.validation=60", "trainer.accelerator=cpu"))],
)
def test_half_precision_of_parameters_is_refused(configure, tmp_path, overrides, precision):
    with pytest.raises(
        InputError, match=f"trainer.precision is '{precision}': expected one of 32-true"
    ):
        train(configure(*overrides, f"trainer.precision={precision}"), tmp_path)
    assert "error" in json.loads((tmp_path / "failed.json").read_text())
