"""Evaluating, encoding and loading finished runs, and scoring codes from elsewhere."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import shell
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sklearn.metrics import mutual_info_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import TINY

import jensen
from jensen.base.errors import InputError
from jensen.diagnostics.from_codes import read_codes
from jensen.encode import write_codes
from jensen.evaluate import evaluate, evaluate_sweep
from jensen.launch.training import train
from jensen.run.borrowed import borrowed
from jensen.run.compose import compose
from jensen.run.diagnose import on_run
from jensen.run.load import restored
from jensen.run.reading import configuration
from jensen.run.record import put_json, put_scores

OVERRIDES = (*TINY, "trainer.accelerator=cpu", "trainer.max_steps=30", "diagnostics=[]")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run's folder, made once by the command that users type."""
    folder = tmp_path_factory.mktemp("finished")
    command("train", *OVERRIDES, "hydra.run.dir=run", cwd=folder)
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def command(
    program: str, *overrides: str, cwd: Path, status: int = 0
) -> subprocess.CompletedProcess[str]:
    done = shell.run(f"jensen.{program}", *overrides, cwd=cwd)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_evaluate_writes_scores_and_appends_to_tensorboard(run):
    done = command("evaluate", f"run={run}", "diagnostics=[rate,mig_hist20]", cwd=run.parent)
    assert "encoded 60 examples in" in done.stdout
    entry = json.loads((run / "scores.json").read_text())
    assert {"run", "checkpoint", "step", "split", "bound", "version", "diagnostics"} <= entry.keys()
    assert entry["step"] == 30
    assert (
        entry["diagnostics"]["mig_hist20"]["settings"]["function"]["path"]
        == "jensen.scores.mig_hist20"
    )
    events = EventAccumulator(str(run))
    events.Reload()
    (event,) = events.Scalars("mig_hist20/mig_hist20")
    assert event.step == 30
    assert event.value == pytest.approx(entry["diagnostics"]["mig_hist20"]["mig_hist20"])
    assert not list(run.glob("*.partial"))


def test_later_diagnostics_join_the_scores_of_the_same_checkpoint(run):
    command("evaluate", f"run={run}", "diagnostics=[rate]", cwd=run.parent)
    command("evaluate", f"run={run}", "diagnostics=[sap_r2]", cwd=run.parent)
    assert set(json.loads((run / "scores.json").read_text())["diagnostics"]) == {"rate", "sap_r2"}


def test_scores_stay_where_a_run_is_moved_to_or_asked_for_from_elsewhere(tmp_path):
    run = tmp_path / "run"
    entry = {"checkpoint": "last", "step": 30, "split": "validation", "version": "1"}
    put_scores(run / "scores.json", entry | {"run": "elsewhere/run", "diagnostics": {"x": 1}})
    mine = entry | {"run": str(run), "diagnostics": {"y": 2}}
    assert put_scores(run / "scores.json", mine) == []
    assert json.loads((run / "scores.json").read_text())["diagnostics"] == {"x": 1, "y": 2}
    later = mine | {"step": 60, "diagnostics": {"z": 3}}
    assert put_scores(run / "scores.json", later) == ["x", "y"]
    chosen = tmp_path / "chosen.json"
    put_scores(chosen, mine)
    other = later | {"run": str(tmp_path / "other")}
    assert put_scores(chosen, other) == ["y"]
    assert put_scores(chosen, other | {"step": 90}) == []


def test_the_evaluated_bound_is_the_one_of_training(configure, tmp_path):
    cfg = configure(*OVERRIDES)
    results = train(cfg, tmp_path)
    bound = on_run(tmp_path, "validation", "last", {})["bound"]
    for name in ("elbo", "distortion", "rate", "loss"):
        assert bound[name] == pytest.approx(results[f"val/{name}"], rel=1e-6)


def test_encode_writes_what_the_loaded_model_says(run, tmp_path):
    command("encode", f"run={run}", f"out={tmp_path / 'codes.npz'}", cwd=run.parent)
    model = jensen.load(run).model
    data = instantiate(configuration(run).data)
    assert not model.training
    with np.load(tmp_path / "codes.npz", allow_pickle=False) as codes, torch.no_grad():
        order = data.source.rows[0].sort().values
        examples = data.examples("train")
        posterior = model.encode(examples.decode(examples[order].stored))
        assert np.allclose(codes["codes"], posterior.mean, atol=1e-6)
        assert np.allclose(codes["log_var"], posterior.log_var, atol=1e-6)
        assert np.array_equal(codes["factors"], examples[order].factors)
        assert codes["names"].tolist() == ["shape", "scale", "orientation", "posX", "posY"]


@pytest.mark.parametrize(("split", "count"), [("validation", 60), ("train", 240)])
def test_any_split_is_encoded(run, split, count):
    seen = []
    on_run(run, split, "best", {"count": lambda snapshot: seen.append(len(snapshot.z)) or {}})
    assert seen == [count]


def test_codes_from_elsewhere_are_scored(tmp_path):
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 4, (500, 2))
    np.savez(
        tmp_path / "codes.npz",
        codes=factors + 0.01 * rng.standard_normal((500, 2)),
        factors=factors,
    )
    command("evaluate", "codes=codes.npz", "diagnostics=[mig_hist20]", cwd=tmp_path)
    found = json.loads((tmp_path / "codes.scores.json").read_text())["diagnostics"]["mig_hist20"][
        "mig_hist20"
    ]
    entropy = [mutual_info_score(column, column) for column in factors.T]
    leak = mutual_info_score(*factors.T)
    assert found == pytest.approx(np.mean([1 - leak / each for each in entropy]), abs=1e-6)


def test_codes_with_variances_are_drawn_from_so_that_pictures_of_dead_latents_are_not_of_their_means(
    tmp_path,
):
    codes = np.zeros((4000, 2))
    log_var = np.log([0.25, 4.0]) * np.ones((4000, 1))
    np.savez(tmp_path / "codes.npz", codes=codes, log_var=log_var, factors=np.zeros((4000, 1), int))
    assert read_codes(tmp_path / "codes.npz").z.std(0).tolist() == pytest.approx(
        [0.5, 2.0], rel=0.05
    )
    assert torch.equal(read_codes(tmp_path / "codes.npz").z, read_codes(tmp_path / "codes.npz").z)
    np.savez(tmp_path / "means.npz", codes=codes, factors=np.zeros((4000, 1), int))
    assert not read_codes(tmp_path / "means.npz").z.any()


def test_what_can_be_scored_is_and_what_failed_or_is_left_out_is_named(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "codes.npz",
        codes=rng.standard_normal((300, 2)),
        factors=rng.integers(0, 3, (300, 2)),
    )
    chosen = "diagnostics=[mig_exact,sap_r2,samples]"
    done = command("evaluate", "codes=codes.npz", chosen, cwd=tmp_path, status=1)
    assert "mig_exact: left out: diagnostics holds mig_exact, and the run of" in done.stdout
    assert "mig_exact" not in done.stderr
    assert "samples failed" in done.stderr
    assert set(json.loads((tmp_path / "codes.scores.json").read_text())["diagnostics"]) == {
        "sap_r2"
    }


def test_nothing_is_asked_of_codes_that_have_nothing_of_what_was_chosen(tmp_path):
    np.savez(tmp_path / "codes.npz", codes=np.eye(9, 2), factors=np.zeros((9, 1), int))
    chosen = {"_target_": "jensen.diagnostics.sigma.sigma", "_partial_": True}
    cfg = evaluate_settings(codes=str(tmp_path / "codes.npz"), diagnostics={"sigma": chosen})
    with pytest.raises(InputError, match="nothing could be asked: diagnostics holds sigma"):
        evaluate(cfg)
    assert json.loads((tmp_path / "codes.scores.json").read_text())["diagnostics"] == {}


def test_the_points_of_a_mixture_are_asked_what_needs_no_posterior_and_encoded_without_noise(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shell.run(
        "jensen.train",
        "experiment=gmm",
        "data.size=200",
        "data.validation=50",
        "trainer.max_steps=2",
        "hydra.run.dir=run",
        cwd=tmp_path,
    )
    needs = {"_target_": "jensen.diagnostics.decomposition.decomposition", "_partial_": True}
    kept = {"_target_": "jensen.diagnostics.components", "_partial_": True}
    cfg = evaluate_settings(run="run", diagnostics={"decomposition": needs, "components": kept})
    entry = evaluate(cfg)
    said = capsys.readouterr().out
    assert "decomposition: left out: diagnostics holds decomposition, and the run of a mix" in said
    assert [*entry["diagnostics"]] == ["components"]
    on_run(Path("run"), "validation", "last", {"encode": lambda s: write_codes(s, "codes.npz")})
    assert {*np.load("codes.npz")} == {"codes", "factors", "names", "prior"}


def evaluate_settings(**changes):
    nothing = {"run": None, "codes": None, "split": "validation", "checkpoint": "last"}
    return OmegaConf.create(
        {**nothing, "trust": [], "download": False, "out": None, "diagnostics": {}, **changes}
    )


def arrays(**changes):
    return {"codes": np.zeros((5, 2)), "factors": np.zeros((5, 1), int)} | changes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (arrays(factors=np.zeros((4, 1), int)), "with one N"),
        (arrays(factors=np.zeros((5, 1))), "expected integer labels"),
        (arrays(codes=np.zeros(5)), r"expected \(N, D\)"),
        (arrays(log_var=np.zeros((5, 3))), r"log_var \(5, 3\)"),
        (arrays(log_var=np.array(5 * [[0, np.nan]])), r"expected finite log-variances"),
        (arrays(log_var=np.full((5, 2), "x")), r"expected finite log-variances"),
        ({"codes": np.zeros((5, 2))}, "expected arrays codes"),
        (arrays(codes=np.array([{}], dtype=object)), "expected an npz file of plain arrays"),
    ],
)
def test_other_arrays_are_refused(tmp_path, content, message):
    np.savez(tmp_path / "codes.npz", **content)
    with pytest.raises(InputError, match=message):
        read_codes(tmp_path / "codes.npz")


def test_what_is_no_npz_file_is_refused(tmp_path):
    (tmp_path / "codes.npz").write_bytes(b"not a zip file")
    for name in ("codes.npz", "missing.npz"):
        with pytest.raises(InputError, match="cannot be read"):
            read_codes(tmp_path / name)


def test_a_folder_that_is_no_run_is_refused(tmp_path, run):
    with pytest.raises(InputError, match=r"has no \.hydra/config\.yaml"):
        jensen.load(tmp_path)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(InputError, match=r"last\.ckpt is missing"):
        jensen.load(run)


def test_a_torn_checkpoint_is_refused(run):
    path = run / "checkpoints" / "last.ckpt"
    shutil.copy(path, path.with_name("last.previous.ckpt"))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"restore that file, or take checkpoint=last\.previous$"):
        restored(run)
    jensen.load(run, "best")
    jensen.load(run, "last.previous")
    path.with_name("last.previous.ckpt").unlink()
    with pytest.raises(InputError, match=r"or take checkpoint=best$"):
        jensen.load(run)
    path.with_name("best.ckpt").unlink()
    with pytest.raises(InputError, match=r"restore that file$"):
        jensen.load(run)


def test_a_checkpoint_of_another_configuration_is_refused(run):
    path = run / ".hydra" / "config.yaml"
    path.write_text(path.read_text().replace("latent_dim: 3", "latent_dim: 4"))
    with pytest.raises(InputError, match="does not fit the model"):
        jensen.load(run)


def test_a_checkpoint_with_code_in_it_is_not_run(run, tmp_path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Payload()}, run / "checkpoints" / "last.ckpt")
    with pytest.raises(InputError, match="cannot be read"):
        jensen.load(run)
    assert not (tmp_path / "ran").exists()


def test_scores_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "scores.json"
    put_scores(path, {"run": "a", "diagnostics": {"x": 1}})
    before = path.read_text()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        put_scores(path, {"run": "a", "diagnostics": {"y": 2}})
    monkeypatch.undo()
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["scores.json"]


@pytest.fixture
def sweep(finished, tmp_path):
    """A folder of three runs, one of which holds no checkpoint that can be read, and one that is not
    finished.
    """
    folder = tmp_path / "sweep"
    for name in ("a", "b", "torn", "begun"):
        shutil.copytree(finished, folder / name)
    (folder / "torn" / "checkpoints" / "last.ckpt").write_bytes(b"")
    (folder / "begun" / "finished.json").unlink()
    return folder


def test_all_runs_of_a_sweep_are_evaluated_and_none_twice(sweep, finished, capsys):
    asked = "diagnostics=[rate,mig_hist20,ventriloquism]"
    cfg = compose("evaluate", [f"sweep={sweep}", asked, "jobs=2"])
    with pytest.raises(InputError, match=r"^1 of 3 runs failed: torn: .*last\.ckpt"):
        evaluate_sweep(cfg)
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if "ventriloquism: left out: " in line]  # in a process of its own
    mine = evaluate(compose("evaluate", [f"run={finished}", "diagnostics=[rate,mig_hist20]"]))
    for name in "ab":
        entry = json.loads((sweep / name / "scores.json").read_text())
        assert entry["bound"] == mine["bound"]
        assert entry["diagnostics"] == json.loads(json.dumps(mine["diagnostics"]))
    assert json.loads((sweep / "begun" / "scores.json").read_text())["diagnostics"] == {}
    capsys.readouterr()

    shutil.rmtree(sweep / "torn")
    before = (sweep / "a" / "scores.json").stat().st_mtime_ns
    evaluate_sweep(cfg)
    begun, done = capsys.readouterr().out.splitlines()
    assert begun.startswith("jensen: not evaluated: begun: not finished")
    assert done == "jensen: 2 of 2 runs have these results"
    assert (sweep / "a" / "scores.json").stat().st_mtime_ns == before


def test_a_run_that_is_not_finished_is_said_to_be_so(run, capsys):
    (run / "finished.json").unlink()
    why = "not finished; the command that began it continues it"
    evaluate(compose("evaluate", [f"run={run}", "diagnostics=[rate]"]))
    assert f"jensen: {run}: last.ckpt holds step 30 of 30, {why}\n" in capsys.readouterr().out
    cfg = compose("evaluate", [f"sweep={run.parent}", "diagnostics=[rate]"])
    with pytest.raises(InputError, match="holds no finished run"):
        evaluate_sweep(cfg)
    assert capsys.readouterr().out == f"jensen: not evaluated: run: {why}\n"
    put_json(run / "failed.json", {"error": "it could not"})
    with pytest.raises(InputError):
        evaluate_sweep(cfg)
    assert capsys.readouterr().out == "jensen: not evaluated: run: failed: it could not\n"


def test_another_setting_is_another_result(sweep, monkeypatch):
    done = []

    def noted(task, runs, jobs):
        done.extend(run.name for run in runs)
        return []

    monkeypatch.setattr("jensen.evaluate.beside", noted)
    entry = {"run": "", "checkpoint": "last", "split": "validation", "step": 30}
    cfg = compose("evaluate", [f"sweep={sweep}", "diagnostics=[mig_hist20]"])
    settings = borrowed(cfg.diagnostics, sweep / "a").settings
    kept = {name: {"settings": each} for name, each in settings.items()}
    entry |= {"version": jensen.__version__, "diagnostics": kept}
    for change in (
        {},
        {"step": 29},
        {"split": "test"},
        {"version": "0"},
        {"checkpoint": "best"},
        {"diagnostics": {"mig_hist20": {"settings": {}}}},
        {"diagnostics": {}},
    ):
        done.clear()
        put_json(sweep / "a" / "scores.json", entry | change)
        evaluate_sweep(cfg)
        assert ("a" in done) == bool(change), change
