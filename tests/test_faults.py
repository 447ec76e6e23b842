"""Real kills of real processes; `scripts/faults` does the same for longer."""

import pytest
import torch
from killed import faults
from resume import differences, equal, records
from torch.utils.tensorboard import SummaryWriter


def test_killed_runs_end_as_if_nobody_had_killed_them():
    said = faults("2", "0", "mixture prior")
    assert ", 0 not" in said
    assert int(said.splitlines()[-1].split(" kills")[0]) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("case", ["flows", "diffusion"])
def test_killed_runs_of_learned_parts_end_as_if_nobody_had_killed_them(case):
    said = faults("6", "0", case)
    assert ", 0 not" in said


@pytest.mark.slow
def test_many_kills_of_every_kind_of_run():
    assert ", 0 not" in faults("60", "1")


# ---- that the comparison notices


@pytest.fixture
def pair(tmp_path):
    """Two equal folders of a run's checkpoints and logs."""
    for name in ("whole", "killed"):
        folder = tmp_path / name / "checkpoints"
        folder.mkdir(parents=True)
        saved = {
            "state_dict": {"w": torch.ones(3)},
            "optimizer_states": [{"step": 1}],
            "lr_schedulers": [],
            "callbacks": {},
        }
        for checkpoint in ("last", "best"):
            torch.save(saved | {"global_step": 2, "epoch": 0}, folder / f"{checkpoint}.ckpt")
        log(tmp_path / name, 0, 1)
    return tmp_path / "whole", tmp_path / "killed"


def log(folder, *steps):
    with SummaryWriter(str(folder), filename_suffix=".train") as writer:
        for step in steps:
            writer.add_scalar("loss", float(step), step)


def test_equal_runs_are_equal(pair):
    assert differences(*pair) == []
    assert len(records(pair[0])) == 2


def test_a_record_that_is_missing_extra_or_twice_is_noticed(pair):
    whole, killed = pair
    log(killed, 1)
    assert differences(whole, killed) == ["a record is there twice"]
    log(killed, 2)
    assert "extra loss at 2" in differences(whole, killed)
    assert "missing loss at 2" in differences(killed, whole)


def test_one_bit_of_a_weight_is_noticed(pair):
    path = pair[1] / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    saved["state_dict"]["w"][1] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    torch.save(saved, path)
    assert differences(*pair) == ["last.ckpt: state_dict"]
    assert equal({"a": [torch.tensor(torch.nan)]}, {"a": [torch.tensor(torch.nan)]})
    assert not equal(torch.tensor(0.0), torch.tensor(-0.0))
