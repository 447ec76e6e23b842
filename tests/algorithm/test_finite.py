"""Losses that are not finite: found at their step, named, left out exactly, and never saved."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from breaking import Breaks
from cases import some
from hydra.utils import instantiate
from resume import equal, records
from runs import command
from tiny import TINY
from torch import nn

from jensen.algorithm.fault import first_module, not_finite
from jensen.algorithm.finite import NEVER, FirstSteps
from jensen.base.errors import InputError
from jensen.launch.training import train
from jensen.run.load import restored

BAD = 7
"""The step whose batch holds the observation that breaks the encoder."""

RUN = (
    *(
        *TINY,
        "trainer.accelerator=cpu",
        "trainer.log_every_n_steps=5",
        "trainer.max_steps=14",
        "trainer.val_check_interval=6",
    ),
    *("callbacks=[checkpoint,diagnose]", "diagnostics=[]", "+trainer.enable_progress_bar=false"),
)
BREAKING = (
    *RUN,
    "~model.encoder",
    "+model.encoder={_target_:breaking.BreakingEncoder,x_shape:${data.x_shape},latent_dim:3}",
    *("model.decoder.hidden=[16]", "model.decoder.activation=relu"),
)


@pytest.fixture
def poisoned(configure, monkeypatch):
    """The configuration of a run that breaks at step `BAD`, and the rows of that step."""
    data = instantiate(configure(*RUN).data)
    data.trainer = SimpleNamespace(
        world_size=1, global_rank=0, accumulate_grad_batches=1, global_step=0, callbacks=()
    )
    rows = data.rows(BAD)
    monkeypatch.setattr(Breaks, "poison", data.batch(rows[3:4], BAD).x[0])
    return rows


def checkpoint(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def test_the_run_stops_with_the_step_the_term_and_the_module(configure, tmp_path, poisoned):
    cfg = configure(*BREAKING)
    with pytest.raises(InputError) as stopped:
        train(cfg, tmp_path)
    sentence = str(stopped.value)
    assert (
        f"training stopped at step {BAD}, where loss and distortion and rate became NaN or infinite"
        in sentence
    )
    assert "first in the output of model.encoder.breaks:" in sentence
    assert str(tmp_path / "non_finite.json") in sentence
    facts = json.loads((tmp_path / "non_finite.json").read_text())
    assert facts["step"] == BAD
    assert facts["rows"] == poisoned
    assert facts["module"] == "model.encoder.breaks"
    assert facts["parameters"] == []
    saved = checkpoint(tmp_path)
    assert saved["global_step"] == 6
    assert all(value.isfinite().all() for value in saved["state_dict"].values())


def test_the_step_can_be_looked_at_as_the_docstring_says(configure, tmp_path, poisoned):
    with pytest.raises(InputError):
        train(configure(*BREAKING), tmp_path)
    train(
        configure(*BREAKING, f"trainer.max_steps={BAD}"), tmp_path
    )  # goes on from step 6 to just before
    facts = json.loads((tmp_path / "non_finite.json").read_text())
    algorithm, step = restored(tmp_path, trust="breaking")
    assert step == facts["step"] == BAD
    data = instantiate(configure(*BREAKING).data)
    algorithm.train()
    inference = algorithm.infer(data.batch(facts["rows"], facts["step"]), facts["step"])
    assert inference.bound.distortion.isnan().tolist() == [False] * 3 + [True] + [False] * 8


@some(
    1,
    "prior",
    [
        (),
        (
            "model/prior=mixture",
            "model.prior.components=3",
            "model.prior.warmup=2",
            "model.prior.fit=both",
        ),
    ],
    ids=["standard", "mixture"],
)
def test_a_step_that_is_skipped_changes_nothing(configure, tmp_path, poisoned, prior):
    skip = (
        *BREAKING,
        *prior,
        "algorithm.non_finite=skip",
        "objective=control",
        "objective.target=3",
    )
    saved = []
    for step in (BAD, BAD + 1, BAD + 2):
        train(configure(*skip, f"trainer.max_steps={step}"), tmp_path / str(step))
        saved.append(checkpoint(tmp_path / str(step)))
    before, after, later = saved
    assert after["state_dict"].pop("skipped_steps") == 1
    assert before["state_dict"].pop("skipped_steps") == 0
    assert later["state_dict"].pop("skipped_steps") == 1
    assert [each["state_dict"].pop("skipped_in_a_row") for each in saved] == [0, 1, 0]
    assert equal(before["state_dict"], after["state_dict"])
    assert equal(before["optimizer_states"], after["optimizer_states"])
    assert (before["global_step"], after["global_step"]) == (BAD, BAD + 1)
    assert not any(
        equal(after["state_dict"][name], later["state_dict"][name])
        for name in after["state_dict"]
        if "bias" in name
    )
    assert later["optimizer_states"][0]["state"][0]["step"] == BAD + 1


def test_skipping_where_nothing_is_skipped_is_training_as_ever(configure, tmp_path):
    train(configure(*RUN), tmp_path / "stop")
    train(configure(*RUN, "algorithm.non_finite=skip"), tmp_path / "skip")
    stop, skip = (checkpoint(tmp_path / name) for name in ("stop", "skip"))
    assert (
        skip["state_dict"].pop("skipped_steps") == skip["state_dict"].pop("skipped_in_a_row") == 0
    )
    assert equal(stop["state_dict"], skip["state_dict"])
    assert equal(stop["optimizer_states"], skip["optimizer_states"])
    assert ("train/skipped_steps", 10) in [each[:2] for each in records(tmp_path / "skip")]


def test_skipping_ends_where_nothing_else_happens(configure, tmp_path):
    """Steps 8, 9 and 10 are left out, and with the last the run ends: an infinite loss for good is
    no accident.
    """
    always = ("~objective", "+objective={_target_:breaking.BreakingBeta,at:8,rank:0,always:true}")
    with pytest.raises(
        InputError, match=r"step 10, the last of 3 in a row .*\(algorithm.skip_limit\)"
    ):
        train(
            configure(*RUN, *always, "algorithm.non_finite=skip", "algorithm.skip_limit=3"),
            tmp_path,
        )
    assert json.loads((tmp_path / "non_finite.json").read_text())["step"] == 10
    assert checkpoint(tmp_path)["global_step"] == 6


@some(1, "diagnostics", ["[]", "[rate]"])
def test_a_held_out_loss_ends_the_run_before_its_diagnostics(
    configure, tmp_path, poisoned, monkeypatch, diagnostics
):
    cfg = configure(*BREAKING, f"diagnostics={diagnostics}")
    data = instantiate(cfg.data)
    split, rows = data.held_out()
    examples = data.examples(split)
    monkeypatch.setattr(Breaks, "poison", examples.decode(examples[rows[20:21]].stored)[0])
    monkeypatch.setattr(Breaks, "always", True)
    with pytest.raises(InputError) as stopped:
        train(cfg, tmp_path)
    assert "held-out loss is NaN or infinite after step 6, first" in str(stopped.value)
    assert "first in the output of model.encoder.breaks:" in str(stopped.value)
    facts = json.loads((tmp_path / "non_finite.json").read_text())
    assert facts["held_out_rows"] == rows[20:21].tolist()
    assert not (tmp_path / "checkpoints").exists()


def test_an_update_that_breaks_the_parameters_is_told_from_a_batch_that_does(configure, tmp_path):
    with pytest.raises(
        InputError, match=r"at step 1, .*because model\.\S+ is, after the update before"
    ):
        train(configure(*RUN, "optimizer.lr=3e38"), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


@some(
    2,
    "when, sentence",
    [
        (
            "on_validation_start",
            "held-out loss is NaN or infinite after step 12, because model.decoder.0.weight",
        ),
        ("on_validation_end", "model.decoder.0.weight is NaN or infinite after step 12"),
    ],
)
def test_parameters_that_are_not_finite_are_never_saved(
    configure, tmp_path, monkeypatch, when, sentence
):
    """A gradient that breaks them at the step before a validation: no loss has told yet."""
    train(configure(*RUN, "trainer.max_steps=6"), tmp_path)
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()

    def spoil(self, trainer, module, *rest):
        if trainer.global_step == 12:
            module.model.decoder[0].weight.data[0, 0] = torch.inf

    monkeypatch.setattr(f"jensen.callbacks.diagnose.Diagnose.{when}", spoil, raising=False)
    with pytest.raises(InputError, match=sentence):
        train(configure(*RUN), tmp_path)
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize("way", ["stop", pytest.param("skip", marks=pytest.mark.slow)])
def test_two_ranks_agree_on_a_loss_that_one_of_them_has(tmp_path, monkeypatch, way):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    breaking = (
        "~objective",
        "+objective={_target_:breaking.BreakingBeta,at:7,rank:1}",
        f"algorithm.non_finite={way}",
    )
    ranks = (
        "trainer=ddp",
        "trainer.devices=2",
        "trainer.max_steps=12",
        f"hydra.run.dir={tmp_path}/run",
    )
    done = command(*RUN, *breaking, *ranks, cwd=tmp_path)
    if way == "skip":
        assert done.returncode == 0, done.stderr
        assert checkpoint(tmp_path / "run")["state_dict"]["skipped_steps"] == 1
        assert checkpoint(tmp_path / "run")["optimizer_states"][0]["state"][0]["step"] == 11
        return
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert (
        "training stopped at step 7, where loss became NaN or infinite, as was found at step 10;"
        in done.stderr
    )
    assert checkpoint(tmp_path / "run")["global_step"] == 6
    assert json.loads((tmp_path / "run" / "non_finite.json").read_text())["step"] == 7


@pytest.mark.slow
def test_two_ranks_agree_on_a_held_out_loss_that_one_of_them_has(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    breaking = (
        "~objective",
        "+objective={_target_:breaking.BreakingHeldOut,at:12,rank:1}",
        "diagnostics=[rate]",
    )
    done = command(
        *RUN,
        *breaking,
        "trainer=ddp",
        "trainer.devices=2",
        f"hydra.run.dir={tmp_path}/run",
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "the held-out loss is NaN or infinite after step 12" in done.stderr
    assert checkpoint(tmp_path / "run")["global_step"] == 6


def test_an_unknown_choice_is_refused(configure):
    with pytest.raises(Exception, match="non_finite is 'ignore': expected one of stop, skip"):
        instantiate(configure(*RUN, "algorithm.non_finite=ignore").algorithm)


def test_the_first_step_of_each_value_is_kept():
    first = FirstSteps()
    assert first.take(lambda steps: steps) is None
    for step, values in enumerate(
        [[1.0, 2.0], [1.0, torch.inf], [torch.nan, 1.0], [torch.nan, torch.nan]]
    ):
        first.watch(torch.tensor(values), step)
    assert first.take(lambda steps: steps) == (1, [1])
    assert first.take(lambda steps: steps) is None
    first.watch(torch.tensor([1.0, 1.0]), 5)
    assert first.take(lambda steps: torch.minimum(steps, torch.tensor([4, NEVER]))) == (
        4,
        [0],
    )  # another rank's
    first.watch(torch.tensor([torch.nan, -torch.inf]), 6)
    assert first.take(lambda steps: steps) == (6, [0, 1])


def test_the_first_module_is_the_innermost_that_breaks():
    class Logarithm(nn.Module):
        def forward(self, x):
            return x.log(), x

    network = nn.Sequential(nn.Identity(), nn.Sequential(nn.Tanh(), Logarithm()), nn.Identity())
    assert first_module(network, lambda: network[:2](torch.tensor([1.0]))) is None
    assert first_module(network, lambda: network[:2](torch.tensor([-1.0, 1.0]))) == "1.1"
    assert not network[1][1]._forward_hooks
    assert not_finite({"a": torch.tensor([1.0]), "b": torch.tensor([torch.inf])}) == ["b"]
