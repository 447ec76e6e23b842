"""The life of a run in its folder, without training: what is refused, what is left behind, what is
never touched.
"""

import errno
import json

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from jensen.base.errors import InputError, RefusedError
from jensen.run import folder as folders
from jensen.run.fingerprint import fingerprint
from jensen.run.folder import DATA, FAILED, FINISHED, open_run, standing

BLOBS = ("data=blobs", "model=linear", "latent_dim=2", "trainer.max_steps=20")
RESULTS = {"val/elbo": -1.5, "rate/active_units": 2.0}


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch):
    monkeypatch.setattr(folders, "PATIENCE", 0.05)


@pytest.fixture
def cfg(configure):
    return lambda *overrides: configure(*BLOBS, *overrides)


def go(folder, cfg, until="finished", scores=()):
    """An attempt that gets as far as `until`, with these scores; what `begin` returned."""
    with open_run(folder, cfg) as this:
        data = instantiate(cfg.data)
        results = this.begin(data)
        if results is None and until != "begun":
            this.claim()
            (folder / "checkpoints").mkdir(exist_ok=True)
            torch.save({"global_step": cfg.trainer.max_steps}, folder / "checkpoints" / "last.ckpt")
            if until == "finished":
                this.finish(
                    cfg.trainer.max_steps,
                    "trainer.max_steps",
                    RESULTS,
                    {
                        "run": str(folder),
                        "step": cfg.trainer.max_steps,
                        "diagnostics": {name: {} for name in scores},
                    },
                )
        return results


def seen(folder, cfg):
    return standing(folder, cfg, lambda: fingerprint(instantiate(cfg.data)))


def contents(folder):
    return {
        file: file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name not in (".lock", "seal.json")
    }


def test_a_run_is_described_before_it_is_trained(cfg, tmp_path):
    assert seen(tmp_path, cfg()) == "new"
    assert go(tmp_path, cfg(), until="begun") is None
    assert OmegaConf.load(tmp_path / ".hydra" / "config.yaml") == cfg()
    assert (tmp_path / DATA).exists()
    assert seen(tmp_path, cfg()) == "new"
    go(tmp_path, cfg(), until="saved")
    assert seen(tmp_path, cfg()) == "interrupted"


def test_a_finished_run_gives_its_results_and_is_not_touched(cfg, tmp_path):
    assert go(tmp_path, cfg()) is None
    before = contents(tmp_path)
    assert go(tmp_path, cfg()) == RESULTS
    assert go(tmp_path, cfg("diagnostics=[rate]", "trainer.devices=2")) == RESULTS
    assert contents(tmp_path) == before
    marker = json.loads((tmp_path / FINISHED).read_text())
    assert marker.keys() == {"identity", "data", "step", "epochs", "why", "seconds", "results"}
    assert (marker["step"], marker["why"]) == (20, "trainer.max_steps")
    assert seen(tmp_path, cfg()) == "finished"


@pytest.mark.parametrize("step", [12, None])
def test_a_marker_without_its_weights_is_not_believed(cfg, tmp_path, capsys, step):
    go(tmp_path, cfg())
    last = tmp_path / "checkpoints" / "last.ckpt"
    if step is None:
        last.unlink()
    else:
        torch.save({"global_step": step}, last)
    assert seen(tmp_path, cfg()) == "interrupted"
    assert go(tmp_path, cfg(), until="begun") is None
    assert "finished.json says step 20 and" in capsys.readouterr().out
    assert not (tmp_path / FINISHED).exists()


def test_a_finished_run_is_trained_longer_and_is_unfinished_meanwhile(cfg, tmp_path):
    go(tmp_path, cfg())
    before = contents(tmp_path)
    assert go(tmp_path, cfg("trainer.max_steps=30"), until="begun") is None
    assert contents(tmp_path) == before  # it may still be refused
    assert go(tmp_path, cfg("trainer.max_steps=30"), until="saved") is None
    assert not (tmp_path / FINISHED).exists()
    assert seen(tmp_path, cfg("trainer.max_steps=30")) == "interrupted"
    assert seen(tmp_path, cfg()) == "other"


def test_a_run_that_is_trained_longer_names_the_scores_that_go_with_its_earlier_step(
    cfg, tmp_path, capsys
):
    """`evaluate` may have added them, and the run does not compute them again."""
    gone = "scores.json had sap_r2, dci of an earlier step or version: gone from it"
    go(tmp_path, cfg(), scores=("rate", "sap_r2", "dci"))
    go(tmp_path, cfg("trainer.max_steps=30"), until="saved", scores=("rate",))
    assert "scores.json" not in capsys.readouterr().out
    go(tmp_path, cfg("trainer.max_steps=30"), scores=("rate",))
    assert gone in capsys.readouterr().out
    assert [*json.loads((tmp_path / "scores.json").read_text())["diagnostics"]] == ["rate"]
    go(tmp_path, cfg("trainer.max_steps=40"), scores=("rate",))
    assert "scores.json" not in capsys.readouterr().out


def test_a_finished_run_is_not_made_shorter(cfg, tmp_path):
    go(tmp_path, cfg())
    before = contents(tmp_path)
    with pytest.raises(
        RefusedError,
        match=r"trainer.max_steps is 10 but .* has finished step 20: expected at least that",
    ):
        go(tmp_path, cfg("trainer.max_steps=10"))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("until", ["saved", "finished"])
def test_another_run_is_refused_and_nothing_is_changed(cfg, tmp_path, until):
    go(tmp_path, cfg(), until)
    before = contents(tmp_path)
    with pytest.raises(
        RefusedError,
        match=r"seed is 1 here and 0 there.*: expected the same one.*; train in another folder",
    ):
        go(tmp_path, cfg("seed=1", "objective.beta=7"))
    assert contents(tmp_path) == before
    assert seen(tmp_path, cfg("seed=1")) == "other"


def test_a_folder_without_training_belongs_to_nobody(cfg, tmp_path):
    go(tmp_path, cfg(), until="begun")
    assert seen(tmp_path, cfg("seed=1")) == "new"
    assert go(tmp_path, cfg("seed=1")) is None
    assert seen(tmp_path, cfg("seed=1")) == "finished"


def test_other_data_under_the_same_configuration_are_refused(cfg, tmp_path, monkeypatch):
    go(tmp_path, cfg(), until="saved")
    before = contents(tmp_path)
    monkeypatch.setattr("jensen.run.fingerprint.fingerprint", lambda data: "others")
    with pytest.raises(
        RefusedError, match="was trained on other data under the same configuration"
    ):
        go(tmp_path, cfg())
    assert contents(tmp_path) == before
    assert standing(tmp_path, cfg(), lambda: "others") == "other"


def test_the_marker_is_the_last_thing_written(cfg, tmp_path, monkeypatch):
    put = folders.put_json

    def killed(path, entry):
        if path.name == FINISHED:
            raise KeyboardInterrupt
        put(path, entry)

    monkeypatch.setattr(folders, "put_json", killed)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, cfg())
    assert (tmp_path / "scores.json").exists()
    assert not (tmp_path / FINISHED).exists()
    assert not (tmp_path / FAILED).exists()
    assert seen(tmp_path, cfg()) == "interrupted"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("objective.beta is -1: expected more"), "objective.beta is -1: expected more"),
        (RuntimeError("out of memory\nand much more"), "RuntimeError: out of memory"),
    ],
)
def test_a_failure_is_written_down_until_the_next_attempt(cfg, tmp_path, error, line):
    with pytest.raises(type(error)), open_run(tmp_path, cfg()):
        raise error
    assert json.loads((tmp_path / FAILED).read_text())["error"] == line
    assert seen(tmp_path, cfg()) == "failed"
    assert seen(tmp_path, cfg("seed=1")) == "new"
    assert (
        seen(tmp_path, cfg("diagnostics=[rate]")) == "new"
    )  # without effect on the numbers, but it may be the mend
    go(tmp_path, cfg(), until="saved")
    assert not (tmp_path / FAILED).exists()
    assert seen(tmp_path, cfg()) == "interrupted"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_run_that_is_stopped_has_not_failed(cfg, tmp_path, stop):
    with pytest.raises(stop), open_run(tmp_path, cfg()):
        raise stop
    assert not (tmp_path / FAILED).exists()


def test_one_process_at_a_time(cfg, tmp_path):
    with open_run(tmp_path, cfg()):
        before = contents(tmp_path)
        with (
            pytest.raises(
                RefusedError, match=r"another process trains in .*: expected one at a time"
            ),
            open_run(tmp_path, cfg()),
        ):
            pass
        assert contents(tmp_path) == before
    go(tmp_path, cfg())


def test_half_written_files_are_as_none(cfg, tmp_path):
    go(tmp_path, cfg())
    for name in (FINISHED, FAILED, "scores.json", DATA):
        (tmp_path / name).write_text('{"identity": "ab')
    (tmp_path / f".{FINISHED}.partial").write_text("{")
    assert seen(tmp_path, cfg()) == "interrupted"
    assert go(tmp_path, cfg()) is None
    assert seen(tmp_path, cfg()) == "finished"


def test_a_run_whose_configuration_cannot_be_read_is_another(cfg, tmp_path):
    go(tmp_path, cfg())
    (tmp_path / ".hydra" / "config.yaml").write_text("")
    assert seen(tmp_path, cfg()) == "other"
    with pytest.raises(InputError, match=r"config.yaml"):
        go(tmp_path, cfg())


def no_room():
    raise OSError(errno.ENOSPC, "No space left on device")


def torch_says_otherwise():
    try:
        no_room()
    except OSError:
        raise RuntimeError("unexpected pos 5888 vs 5782")  # noqa: B904


@pytest.mark.parametrize("write", [no_room, torch_says_otherwise])
def test_a_full_disk_is_one_sentence(cfg, tmp_path, write):
    sentence = r"has no room left \(No space left on device\): expected free disk; make room and run the same command again"
    with pytest.raises(InputError, match=sentence), open_run(tmp_path, cfg()):
        write()
    assert "has no room left" in json.loads((tmp_path / FAILED).read_text())["error"]


def test_a_missing_file_is_no_full_disk(cfg, tmp_path):
    with pytest.raises(FileNotFoundError), open_run(tmp_path, cfg()):
        (tmp_path / "nowhere").read_text()
