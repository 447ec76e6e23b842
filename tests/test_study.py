"""scripts/study: what it composes, refuses and says."""

import json
import os
import runpy
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composing import composed

from jensen.base.errors import InputError
from jensen.evaluate import evaluate
from jensen.run.compose import compose
from jensen.run.diagnose import on_run

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "study"


@pytest.fixture
def script(study, monkeypatch):
    """The names of the script itself; `main(*words)` is what it does of a command."""
    monkeypatch.syspath_prepend(str(SCRIPT))
    found = runpy.run_path(str(SCRIPT / "__main__.py"), run_name="study")

    def main(*words):
        monkeypatch.setattr(sys, "argv", ["study", *words])
        return found["main"]()

    yield SimpleNamespace(**found | {"main": main})
    sys.modules.pop("scoring")


@pytest.fixture(scope="module")
def study():
    """The modules of the script, by name."""
    names = ("figures", "plan", "report", "sessions", "table")
    sys.path.insert(0, str(SCRIPT))
    try:
        found = {name: __import__(name) for name in names}
    finally:
        sys.path.remove(str(SCRIPT))
    yield SimpleNamespace(**found)
    for name in names:
        sys.modules.pop(name)


def test_the_study_is_of_90_runs_each_in_a_folder_of_its_own(study):
    for size in ("cpu", "gpu"):
        rounds = study.plan.SIZES[size].rounds
        places = [
            (study.plan.folder(name, seeds), run)
            for name in study.plan.OBJECTIVES
            for seeds in rounds
            for run in study.plan.runs(name, seeds)
        ]
        assert len(places) == len(set(places)) == 90
        assert sorted(sum(rounds, ())) == [0, 1, 2]


@pytest.mark.parametrize("size", ["cpu", "gpu", "full"])
@pytest.mark.parametrize(
    "name", ["beta", "beta_tcvae", "factor", "dip_ii", "capacity", "beta_factorised"]
)
def test_each_sweep_composes_the_objective_at_its_strength(study, size, name):
    swept = study.plan.OBJECTIVES[name]
    words = [
        word
        for word in study.plan.sweep(name, study.plan.SIZES[size], (0, 1), "out")
        if not word.startswith(("hydra.", "seed=", "hydra/", f"{swept.key}="))
    ]
    cfg = composed(*words, f"{swept.key}=7")
    assert (
        cfg.objective._target_
        == {
            "beta": "jensen.objective.Beta",
            "beta_tcvae": "jensen.objective.Decomposed",
            "factor": "jensen.objective.Factor",
            "dip_ii": "jensen.objective.DIP",
            "capacity": "jensen.objective.Capacity",
            "beta_factorised": "jensen.objective.Beta",
        }[name]
    )
    held = cfg
    for key in swept.key.split("."):
        held = held[key]
    assert held == 7
    if name == "dip_ii":
        assert cfg.objective.diagonal == 7
    prior = "FactorisedMixturePrior" if name == "beta_factorised" else "StandardNormal"
    assert cfg.model.prior._target_ == f"jensen.model.{prior}"
    assert cfg.trainer.max_steps == {"cpu": 2000, "gpu": 10_000, "full": 300_000}[size]
    assert cfg.trainer.val_check_interval == cfg.trainer.max_steps
    assert not cfg.diagnostics


def test_what_is_computed_of_each_run_composes(study):
    cfg = compose("evaluate", ["run=somewhere", *study.plan.SCORES])
    assert {*cfg.diagnostics} | {"dci_boost20"} >= {
        name.partition("/")[0] for name in study.table.COLUMNS.values() if "/" in name
    }
    trees = compose("evaluate", ["run=somewhere", *study.plan.TREES])
    assert [*trees.diagnostics] == ["dci_boost20"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--minutes", "-1"], "--minutes is -1: expected a number of at least 0"),
        (["--scoring-minutes", "nan"], "--scoring-minutes is nan: expected"),
        (["--cores", "0"], "--cores is 0: expected an integer of at least 1"),
        (["--rounds", "0/x"], "--rounds is 0/x: expected seeds, as 0/1,2"),
        (["trainer.max_step=9"], r"trainer\.max_step is no key .*did you mean trainer\.max_steps"),
        (["objective.tc=9", "--only", "beta_tcvae,beta"], r"objective\.tc is no key of the conf"),
    ],
)
def test_what_no_run_could_be_trained_by_is_refused_at_once(script, tmp_path, words, sentence):
    with pytest.raises(InputError, match=sentence):
        script.main("--out", str(tmp_path / "out"), *words)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("status", "rest"),
    [
        (0, "the same command again does the rest"),
        (143, "the same command again does the rest"),  # it was asked to end
        (-9, "the same command again does the rest"),
        (1, "logs/beta/seeds_0.log says what to mend; then the same command does the rest"),
    ],
)
def test_the_same_command_is_not_said_to_do_what_a_sweep_refused(script, tmp_path, status, rest):
    part = script.Part("beta", (0,), SimpleNamespace(poll=lambda: status))
    study = script.Study(tmp_path, script.plan.SIZES["cpu"], [part], [], 1, 1, 0.0, 0.0)
    assert study._ended(part)
    assert study.rest() == rest


ASKED = {"size": "cpu", "version": 1, "words": [], "rounds": [[0], [1]]}


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"size": "gpu"}, r"is of size cpu, and this is size gpu: expected the same in one folder"),
        ({"version": 2}, "is of version 1, and this is version 2"),
        ({"words": ["trainer.max_steps=3"]}, "is of overrides none, and this is overrides trainer"),
        ({"rounds": [[0, 1]]}, r"is of seeds \[0\] \[1\], and this is seeds \[0, 1\]"),
    ],
)
def test_a_folder_of_another_study_is_refused_in_one_sentence(study, tmp_path, asked, sentence):
    with study.sessions.session(tmp_path, ASKED, []):
        pass
    study.sessions.check(tmp_path, ASKED)
    with pytest.raises(InputError, match=sentence) as refused:
        study.sessions.check(tmp_path, ASKED | asked)
    assert "\n" not in str(refused.value)


def test_a_folder_of_something_else_is_refused(study, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds files and no study\.json"):
        study.sessions.check(tmp_path, ASKED)


def test_two_studies_do_not_work_in_one_folder(study, tmp_path):
    with (
        study.sessions.session(tmp_path, ASKED, []),
        pytest.raises(InputError, match="is being worked in"),
        study.sessions.session(tmp_path, ASKED, []),
    ):
        pass


def test_each_session_is_written_down_with_its_commit_device_and_command(
    study, tmp_path, monkeypatch
):
    monkeypatch.setenv("JENSEN_COMMIT", "abc1234")
    for given in (["--size", "cpu"], ["--minutes", "3"]):
        with study.sessions.session(tmp_path, ASKED, given) as record:
            record["scored"] = 5
    first, second = json.loads((tmp_path / "study.json").read_text())["sessions"]
    assert second["command"] == "python scripts/study --minutes 3"
    assert first["commit"] == "abc1234"
    assert first["cores"] == len(os.sched_getaffinity(0))
    assert {"torch", "numpy", "jensen"} <= {*first["versions"]}
    assert second["scored"] == 5
    assert second["seconds"] >= 0


def made(study, tmp_path, seeds=3):
    """A study.csv of runs whose truth is known: TC falls with the distortion and is one nat lower by
    the second objective, whatever its strength; a score is minus TC, another one is noise.
    """
    generator = np.random.default_rng(0)
    rows = []
    for shift, objective in enumerate(("beta", "beta_tcvae")):
        for strength in (1, 2, 4, 8, 16):
            for seed in range(seeds):
                distortion = 50.0 + 3 * strength + generator.normal() * 0.1
                tc = 10 - 0.1 * (distortion - 50) - shift + 0.01 * generator.normal()
                row = {"objective": objective, "strength": strength, "seed": seed, "steps": 10}
                row |= {"latents": 10, "udr": generator.normal(), "warned": 0, "seconds": 1.0}
                row |= {column: generator.normal() for column in study.table.COLUMNS}
                row |= {"distortion": distortion, "tc": tc, "log_n": 9.0, "mig_exact": -tc}
                row |= {"tc_stratified": tc + 2, "tc_mws": tc + 81 + 3, "tc_se": 0.01}
                row |= {"dci_boost20": float("nan"), "run": f"{objective}/{strength}_{seed}"}
                rows.append(row)
    session = {
        "command": "c",
        "commit": "abc",
        "device": "d",
        "cores": 2,
        "versions": {"torch": "2"},
    }
    mark = {"size": "cpu", "version": 1, "sessions": [session | {"began": "now", "seconds": 3}]}
    path = tmp_path / "study.csv"
    path.write_text(study.table.as_csv(rows, mark))
    return path, rows


def test_the_table_holds_every_number_exactly_and_where_it_comes_from(study, tmp_path):
    path, rows = made(study, tmp_path)
    head, found = study.report.read(path)
    assert head["commit"] == "abc"
    assert head["device"] == "d, 2 cores"
    for row, again in zip(rows, found, strict=True):
        for key, value in row.items():
            assert again[key] == value or (np.isnan(value) and np.isnan(again[key]))


def test_the_report_says_what_the_rows_were_made_of(study, tmp_path):
    _, rows = made(study, tmp_path)
    said = "\n".join(study.report.at_equal_distortion(rows))
    assert said.count("beta_tcvae has the least TC. Others less beta_tcvae: beta +1.0") == 3
    assert "All of these differences have an interval without 0" in said
    places, read_off = study.report.equal_distortion(rows)
    for place in places:
        expected = 10 - 0.1 * (place - 50)
        np.testing.assert_allclose(read_off["tc"][place]["beta"], expected, atol=0.05)
    said = "\n".join(study.report.on_estimates(rows))
    assert "stratified: off by +2.00 to +2.00 nats" in said
    assert "(D - 1) log N = 81.00 nats" in said
    assert "the rest is +3.00 to +3.00" in said
    names, ranks = study.report.agreement(rows)
    assert "dci_boost20" not in names  # no run has it
    pair = ranks.of(names.index("mig_exact"), names.index("-tc"))
    assert pair == pytest.approx((1, 1, 1))
    said = "\n".join(study.report.on_effects(rows))
    more, _, _ = said.partition("\n")
    assert "tc" in more
    assert "distortion" in more


@pytest.mark.slow
def test_one_seed_gives_a_report_without_intervals(study, tmp_path):
    path, _ = made(study, tmp_path, seeds=1)
    head, rows = study.report.read(path)
    text = study.report.document(head, rows, 90)
    assert "10 of 90 runs" in text
    assert "no interval" in text
    assert "One seed a setting" in text


@pytest.mark.slow
def test_a_report_and_its_figures_follow_from_the_table_alone(study, tmp_path):
    path, _ = made(study, tmp_path)
    study.table.report(path, tmp_path / "report")
    found = {each.name for each in (tmp_path / "report").iterdir()}
    assert found == {"report.md", "rate_distortion.png", "tc_distortion.png", "scores.png"}


def test_a_table_without_runs_is_refused(study, tmp_path):
    path = tmp_path / "study.csv"
    path.write_text("# size: cpu\nobjective,strength\n")
    with pytest.raises(InputError, match="holds no runs"):
        study.report.read(path)


TABLES = sorted(SCRIPT.glob("study_*.csv"))


@pytest.mark.slow
@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_the_report_that_is_shown_is_of_the_table_that_is_shown(study, path):
    head, rows = study.report.read(path)
    shown = path.with_name(f"{path.stem.replace('study', 'report')}.md").read_text()
    assert study.report.document(head, rows, planned=90) == shown


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_the_rows_of_the_table_obey_what_holds_for_every_run(study, path):
    head, rows = study.report.read(path)
    assert {"size", "command", "commit", "device", "versions"} <= {*head}
    kept = {(row["objective"], row["strength"], row["seed"]) for row in rows}
    assert len(kept) == len(rows)
    assert {row["objective"] for row in rows} == {*study.plan.OBJECTIVES}
    for row in rows:
        assert row["elbo"] == pytest.approx(-row["distortion"] - row["rate"], abs=1e-3)
        assert row["mi"] <= row["log_n"] + 4 * row["mi_se"]
        assert row["tc"] >= -4 * row["tc_se"] - 1e-6
        excess = row["rate"] - row["mi"] - row["marginal_kl"]
        if row["objective"] == "beta_factorised":  # with a mixture prior the rate is an upper bound
            assert -0.02 < excess < 0.2
        else:
            assert abs(excess) < 0.03


def at_hand(path, name):
    """A run of a table where it is at hand: checkpoints are in no commit."""
    run = ROOT / "runs" / path.stem / "runs" / name
    if not (run / "checkpoints" / "last.ckpt").is_file():
        size = path.stem.removeprefix("study_")
        pytest.skip(
            f"{run} has no checkpoint: scripts/study --size {size} --rounds 0/1/2 leaves one"
        )
    return run


@pytest.mark.slow
@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_the_parts_add_up_to_the_rate_of_draws_and_what_stands_for_it_is_a_bound(study, path):
    """Of a mixture prior, with E log q(z|x) - log p(z) at draws of torch's own."""
    name = "beta_factorised/seeds_0/beta_8_seed_0"
    run = at_hand(path, name)
    found = []

    def sampled(snapshot):
        posterior = torch.distributions.Normal(
            snapshot.posterior.mean.double(), (0.5 * snapshot.posterior.log_var.double()).exp()
        )
        torch.manual_seed(0)
        for _ in range(32):
            z = posterior.sample()
            log_prior = snapshot.prior.log_prob(z.float()).double()
            found.append((posterior.log_prob(z).sum(1) - log_prior).mean())
        return {}

    on_run(run, "validation", "last", {"sampled": sampled}, [], False)
    rate = torch.stack(found)
    error = float(rate.std()) / len(rate) ** 0.5
    (row,) = (row for row in study.report.read(path)[1] if row["run"] == name)
    parts = row["mi"] + row["marginal_kl"]
    assert abs(float(rate.mean()) - parts) < 5 * error + 1e-3
    assert float(rate.mean()) < row["rate"] + 5 * error


@pytest.mark.slow
@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    "name",
    [
        "beta/seeds_0/beta_4_seed_0",
        "beta_tcvae/seeds_0/tc_6_seed_0",
        "beta_factorised/seeds_0/beta_4_seed_0",
    ],
)
def test_a_row_of_the_table_is_what_its_run_is_evaluated_to(study, path, name, tmp_path):
    run = at_hand(path, name)
    _, rows = study.report.read(path)
    (row,) = (row for row in rows if row["run"] == name)
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "scores.json").unlink()
    asked = "diagnostics=[rate,decomposition,mig_exact,mig_hist20,sap_r2]"
    evaluate(compose("evaluate", [f"run={tmp_path / 'run'}", asked]))
    (again,) = study.table.read(tmp_path).runs
    found = study.table.numbers(again.scores)
    exact = ("distortion", "rate", "active_units", "mig_hist20", "sap_r2")
    sampled = {"mi": "mi_se", "tc": "tc_se", "dwkl": "dwkl_se", "mig_exact": "mig_exact_se"}
    for column in exact:  # a GPU's sums against a CPU's
        value = found[study.table.COLUMNS[column]]
        assert value == pytest.approx(row[column], rel=2e-3, abs=2e-3), column
    for column, error in sampled.items():
        value = found[study.table.COLUMNS[column]]
        assert abs(value - row[column]) < 5 * row[error] + 2e-3, column
