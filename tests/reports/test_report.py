"""A sweep's report: its numbers against numpy's, on folders written by hand, and the whole command
on a real sweep.
"""

import base64
import csv
import itertools
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import shell
import torch
from cases import some
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import TINY

from jensen.base.errors import InputError
from jensen.reports import figures
from jensen.reports.choice import choose
from jensen.reports.comparable import apart
from jensen.reports.criteria import chosen, verdicts
from jensen.reports.cue_weights import cue_weights
from jensen.reports.document import document, missing
from jensen.reports.evidence import evidence
from jensen.reports.page import page, rendered
from jensen.reports.pictures import theory
from jensen.reports.read import read
from jensen.reports.sweep import Group, Run, Sweep, flat, grouped, numbers, shown
from jensen.reports.table import as_csv, cell, columns, measured, quartiles, tables
from jensen.run.identity import LOCATION
from jensen.run.reading import written_tree
from jensen.run.targets import one_spelling

SCORE = "jensen.diagnostics.score.score"


def scores(elbo: float, **diagnostics: dict) -> dict:
    """A scores.json; diagnostics by name, those that are called like a score with its settings."""
    bound = {"loss": 1.0, "elbo": elbo, "distortion": -elbo - 10, "rate": 10.0}
    return {
        "run": "r",
        "checkpoint": "last",
        "step": 5,
        "split": "validation",
        "bound": bound,
        "diagnostics": diagnostics,
    }


def score(name: str, **values: object) -> dict:
    return {
        "settings": {"_target_": SCORE, "function": {"path": f"jensen.scores.{name}"}},
        **values,
    }


def write_run(
    folder: Path,
    found: dict | None,
    *,
    experiment: str = "a",
    finished: bool = True,
    **settings: object,
) -> Path:
    """The folder of a run as training leaves it, without a checkpoint; `settings` by key, `__` for
    a dot.
    """
    lines = ["algorithm: {}", "data: {source: {_target_: here}, x_shape: [2]}"]
    lines += [f"{key}: {json.dumps(value)}" for key, value in settings.items()]
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text("\n".join(lines) + "\n")
    (folder / ".hydra" / "hydra.yaml").write_text(
        f"hydra: {{runtime: {{choices: {{experiment: {experiment}}}}}}}\n"
    )
    if found is not None:
        (folder / "scores.json").write_text(json.dumps(found))
    if finished:
        (folder / "finished.json").write_text('{"identity": "x"}')
    return folder


RNG = np.random.default_rng(0)
BETAS = (1, 2, 16)
SEEDS = range(4)
ELBO = {(beta, seed): float(RNG.normal(-100 - beta, 2)) for beta in BETAS for seed in SEEDS}
MIG = {(beta, seed): float(RNG.uniform(0, 1)) for beta in BETAS for seed in SEEDS}
PARTS = {
    "mutual_information": 3.0,
    "total_correlation": 1.0,
    "dimension_wise_kl": 2.5,
    "log_n": 7.0,
}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """3 betas and 4 seeds; the diagnostic mig_hist20 is missing in one run, and one is of seven
    runs only.
    """
    for (beta, seed), elbo in ELBO.items():
        found = scores(
            elbo,
            decomposition={"settings": {"_target_": "d"}, **PARTS},
            rate={
                "settings": {"_target_": "r"},
                "active_units": 5.0,
                "by_latent": [0.1 * beta, 4.0 / beta],
            },
            mig_hist20=score(
                "mig_hist20", mig_hist20=MIG[beta, seed], points=100, per_factor=[0.1, 0.2]
            ),
        )
        if (beta, seed) == (2, 1):
            del found["diagnostics"]["mig_hist20"]
        write_run(
            tmp_path / f"beta={beta}_seed={seed}",
            found,
            seed=seed,
            objective={"beta": beta, "kind": "x"},
        )
    return tmp_path


def test_groups_are_the_values_of_what_was_swept_and_the_seeds_are_inside(sweep):
    found = read(sweep)
    assert found.keys == {"beta": "objective.beta"}
    assert [group.values for group in found.groups] == [
        {"beta": beta} for beta in BETAS
    ]  # by number: 16 comes last
    assert [[run.seed for run in group.runs] for group in found.groups] == [[0, 1, 2, 3]] * 3
    assert [group.label for group in found.groups] == ["beta = 1", "beta = 2", "beta = 16"]
    assert not found.left_out


def test_medians_and_quartiles_are_numpys(sweep):
    found = read(sweep)
    table = {
        (row["beta"], row["quantity"]): row
        for row in csv.DictReader(as_csv(found, measured(found)).splitlines())
    }
    for beta in BETAS:
        for name, source in (("elbo", ELBO), ("mig_hist20/mig_hist20", MIG)):
            values = [
                source[beta, seed]
                for seed in SEEDS
                if (name, beta, seed) != ("mig_hist20/mig_hist20", 2, 1)
            ]
            row = table[str(beta), name]
            assert int(row["runs"]) == len(values)
            assert float(row["median"]) == pytest.approx(np.median(values), rel=1e-12)
            assert float(row["quartile_1"]) == pytest.approx(np.percentile(values, 25), rel=1e-12)
            assert float(row["quartile_3"]) == pytest.approx(np.percentile(values, 75), rel=1e-12)
        assert (
            float(table[str(beta), "decomposition/log_n"]["median"]) == 7.0
        )  # not in the tables, but in the file
    assert ("1", "mig_hist20/points") not in table


def test_the_tables_show_the_bound_its_parts_and_the_scores(sweep):
    found = read(sweep)
    values = measured(found)
    first, second = tables(found, values)
    assert first[0] == [
        "beta",
        "runs",
        "distortion",
        "rate",
        "elbo",
        "MI",
        "TC",
        "DWKL",
        "active units",
    ]
    assert second[0] == ["beta", "runs", "mig_hist20"]
    median, low, high = (
        np.percentile([ELBO[1, seed] for seed in SEEDS], at) for at in (50, 25, 75)
    )
    assert first[1][4] == f"{median:.2f} [{low:.2f}, {high:.2f}]"
    assert second[2][2].endswith("(3 of 4)")
    assert columns(found, values)[-1] == "mig_hist20/mig_hist20"


def test_the_page_has_the_table_of_settings_and_a_row_a_run(sweep):
    found = read(sweep)
    values = measured(found)
    drawings = {"scores": rendered(figures.scores(found, values, ["elbo"]), "svg")}
    text = page(found, "name", "what", "care", values, chosen(found, values), [], drawings, {})
    settings, runs = (
        [re.findall(r"<td>(.*?)</td>", row) for row in table.split("</tr>")]
        for table in re.findall(r"<tbody>(.*?)</tbody>", text, re.DOTALL)
    )
    first, second = tables(found, values)
    assert settings[:-1] == [
        one + other[2:] for one, other in zip(first[1:], second[1:], strict=True)
    ]
    assert len(runs) - 1 == len(BETAS) * len(SEEDS)
    for name, beta, seed, *numbers_of in runs[:-1]:
        assert name == f"beta={beta}_seed={seed}"
        assert float(numbers_of[2]) == pytest.approx(ELBO[int(beta), int(seed)], rel=1e-3)
        missing_here = (beta, seed) == ("2", "1")
        expected = "missing" if missing_here else f"{MIG[int(beta), int(seed)]:.4g}"
        assert numbers_of[-1] == expected
    (source,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', text)
    assert base64.b64decode(source) == drawings["scores"]
    assert b"dc:date" not in drawings["scores"]  # the same again


def test_what_is_missing_is_said_with_the_command_that_adds_it(sweep):
    (line,) = missing(read(sweep), sweep)
    assert line.endswith("'diagnostics=[mig_hist20]'")
    assert f"run={sweep / 'beta=2_seed=1'} " in line
    assert cell(quartiles([math.nan, math.nan]), 2, 3) == "missing"
    assert cell(quartiles([1.0]), 1, 2) == "1.00"


def test_unfinished_failed_and_torn_runs_are_listed_and_not_counted(sweep):
    (sweep / "beta=1_seed=0" / "finished.json").unlink()
    (sweep / "beta=1_seed=1" / "finished.json").unlink()
    (sweep / "beta=1_seed=1" / "failed.json").write_text('{"error": "objective.beta is -1"}')
    torn = sweep / "beta=2_seed=0" / "scores.json"
    torn.write_text(torn.read_text()[:40])
    (sweep / "beta=2_seed=2" / "scores.json").unlink()
    found = read(sweep)
    assert found.left_out.keys() == {
        "beta=1_seed=0",
        "beta=1_seed=1",
        "beta=2_seed=0",
        "beta=2_seed=2",
    }
    assert "continues it" in found.left_out["beta=1_seed=0"]
    assert found.left_out["beta=1_seed=1"] == "failed: objective.beta is -1"
    for name in ("beta=2_seed=0", "beta=2_seed=2"):
        assert "jensen.evaluate" in found.left_out[name]
    assert [len(group.runs) for group in found.groups] == [2, 2, 4]


def test_the_same_settings_and_seed_count_once(sweep):
    shutil.copytree(sweep / "beta=1_seed=3", sweep / "copy")
    found = read(sweep)
    assert [len(group.runs) for group in found.groups] == [4, 4, 4]
    assert found.left_out == {"copy": "it has the settings and the seed of beta=1_seed=3"}


def place_of_data(folder: Path, key: str, place: str, data: str, seed: int = 0) -> None:
    write_run(folder, scores(-1.0), seed=seed)
    config = folder / ".hydra" / "config.yaml"
    config.write_text(
        config.read_text().replace(
            "x_shape: [2]", f"x_shape: [2], {key.removeprefix('data.')}: {place}"
        )
    )
    (folder / ".hydra" / "identity.json").write_text(json.dumps({"identity": "x", "data": data}))


@pytest.mark.parametrize("key", LOCATION)
def test_runs_on_other_data_are_told_apart_by_their_place_and_runs_on_the_same_are_not(
    tmp_path, key
):
    for number, (place, data) in enumerate(
        [("/a/one.v1", "1"), ("/b/two.v1", "2"), ("/mount/b/two.v1", "2")]
    ):
        place_of_data(tmp_path / f"{number}", key, place, data, seed=number)
    found = read(tmp_path)
    assert found.keys == {key.removeprefix("data."): key}
    name = key.removeprefix("data.")
    assert [group.label for group in found.groups] == [f"{name} = /a/one.v1", f"{name} = /b/two.v1"]
    assert [[run.seed for run in group.runs] for group in found.groups] == [[0], [1, 2]]
    assert not found.left_out


def test_data_that_were_changed_where_they_lie_are_told_apart(tmp_path):
    place_of_data(tmp_path / "before", "data.root", "/a", "1" * 64)
    place_of_data(tmp_path / "after", "data.root", "/a", "2" * 64)
    found = read(tmp_path)
    assert [group.label for group in found.groups] == [
        "fingerprint = 11111111",
        "fingerprint = 22222222",
    ]
    assert not found.left_out


def test_folders_that_are_no_sweep_are_one_sentence(sweep, tmp_path):
    (tmp_path / "empty").mkdir()
    refused = {
        tmp_path / "nowhere": "is no folder",
        tmp_path / "empty": "holds no runs",
        sweep / "beta=1_seed=0": "is the folder of a run",
    }
    for folder, words in refused.items():
        with pytest.raises(InputError, match=words):
            read(folder)
    for marker in sweep.rglob("finished.json"):
        marker.unlink()
    with pytest.raises(InputError, match="no finished run among 12"):
        read(sweep)


def test_a_run_whose_weights_are_not_of_the_step_it_says_is_not_counted(sweep):
    run = sweep / "beta=1_seed=0"
    (run / "finished.json").write_text('{"identity": "x", "step": 60}')
    (run / "checkpoints").mkdir()
    torch.save({"global_step": 40}, run / "checkpoints" / "last.ckpt")
    assert (
        "last.ckpt holds step 40 of 60; the sweep's command again" in read(sweep).left_out[run.name]
    )


@pytest.mark.parametrize("content", [None, b"torn"])
def test_a_run_whose_checkpoints_are_gone_or_torn_is_not_counted_and_a_copy_without_the_folder_is(
    sweep, content
):
    run = sweep / "beta=1_seed=0"
    (run / "checkpoints").mkdir()
    if content is not None:
        (run / "checkpoints" / "last.ckpt").write_bytes(content)
    found = read(sweep)
    assert found.left_out.keys() == {run.name}
    assert (
        "its checkpoints/ holds no last.ckpt that can be read; restore it, or"
        in found.left_out[run.name]
    )
    assert len(found.runs) == 11


def test_a_run_without_an_experiment_is_said_to_have_none(sweep):
    write_run(
        sweep / "other", scores(-1.0), experiment="null", seed=0, objective={"beta": 1, "kind": "x"}
    )
    with pytest.raises(
        InputError,
        match=r"mixes experiments \(beta=16_seed=0 is of experiment=a, other of no experiment\)",
    ):
        read(sweep)


@some(1, "label", ["x" * 160, "costs $1, and no formula: $\\frac$"])
def test_figures_have_room_for_any_label_and_warn_of_nothing(label, recwarn):
    runs = [
        run(seed, **{"model.kind": f"{label}{number}", "objective.beta": 1 + number})
        for number in (0, 1)
        for seed in (0, 1)
    ]
    found = grouped(
        [*runs, *(each._replace(seed=seed) for seed, each in enumerate(runs[:1], 5))], {}
    )
    values = measured(found)
    drawn = [figures.rate_distortion(found, values), figures.scores(found, values, ["elbo"])]
    drawn.append(figures.choices(found, chosen(found, values)))
    for figure in drawn:
        figures.fit(figure).canvas.draw()
    assert not recwarn.list


def test_a_folder_of_two_experiments_is_refused(sweep):
    write_run(
        sweep / "other", scores(-1.0), experiment="b", seed=0, objective={"beta": 1, "kind": "x"}
    )
    with pytest.raises(
        InputError,
        match=r"mixes experiments \(beta=16_seed=0 is of experiment=a, other of experiment=b\)",
    ):
        read(sweep)


def test_runs_judged_on_other_data_do_not_share_a_table(sweep):
    write_run(
        sweep / "other",
        scores(-1.0) | {"split": "test"},
        seed=9,
        objective={"beta": 1, "kind": "x"},
    )
    with pytest.raises(InputError, match="judged on test"):
        read(sweep)


def run(seed: int, elbo: float = -1.0, **settings: object) -> Run:
    return Run(f"{settings}_{seed}", seed, settings, scores(elbo))


def test_a_swept_group_is_named_by_what_it_makes():
    runs = [
        run(
            0, **{"objective._target_": "jensen.objective.beta.Beta", "objective.beta": 4, "lr": lr}
        )
        for lr in (0.1, 0.01)
    ]
    runs.append(
        run(
            0,
            **{
                "objective._target_": "jensen.objective.dip.DIP",
                "objective.diagonal": 9,
                "lr": 0.1,
            },
        )
    )
    found = grouped(runs, {})
    assert list(found.keys) == ["objective", "lr"]  # diagonal and beta have one value each
    assert [group.label for group in found.groups] == [
        "objective = Beta, lr = 0.01",
        "objective = Beta, lr = 0.1",
        "objective = DIP, lr = 0.1",
    ]


def test_a_key_that_only_some_runs_have_tells_them_apart_where_nothing_else_does():
    """A choice that is null in one run and an object in another, and a key that was added."""
    runs = [
        run(0, **{"transform": None}),
        run(0, **{"transform._target_": "t.noise", "transform.level": 1}),
    ]
    found = grouped(runs, {})
    assert [group.label for group in found.groups] == ["transform = noise", "transform = None"]
    assert not found.left_out
    added = grouped([run(0, beta=1), run(0, beta=1, mine=3), run(1, beta=1)], {})
    assert [group.label for group in added.groups] == ["mine = 3", "mine = None"]
    assert [[each.seed for each in group.runs] for group in added.groups] == [[0], [0, 1]]


def test_keys_that_end_alike_keep_their_whole_names():
    found = grouped(
        [run(0, **{"optimizer.lr": a, "objective.lr": b}) for a, b in ((1, 2), (2, 1))], {}
    )
    assert list(found.keys) == ["optimizer.lr", "objective.lr"]


def test_flat_and_shown():
    assert flat({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None}) == {
        "a.b": 1,
        "a.c.d": (1, 2),
        "e": None,
    }
    assert [shown(value) for value in (4.0, 0.001, (1, 2), "a.b.C", True, None)] == [
        "4",
        "0.001",
        "[1,2]",
        "C",
        "True",
        "None",
    ]
    assert [shown(value) for value in (1234567, 0.12345678)] == [
        "1234567",
        "0.12345678",
    ]  # six digits would join them


def test_more_draws_stand_for_fewer():
    found = numbers(scores(-1.0, decomposition={"log_n": 1.0}, decomposition_full={"log_n": 2.0}))
    assert found["decomposition/log_n"] == 2.0


def exact_share(values: list[list[float]]) -> list[float]:
    """The share that `choose` estimates, by all resamples of all groups."""
    medians = [
        [float(np.median(draw)) for draw in itertools.product(group, repeat=len(group))]
        for group in values
    ]
    wins = np.zeros(len(values))
    for drawn in itertools.product(*medians):
        best = np.array(drawn) == max(drawn)
        wins += best / best.sum()
    return (wins / math.prod(map(len, medians))).tolist()


@pytest.mark.parametrize(
    "values",
    [
        [[0.1, 0.5, 0.6], [0.2, 0.4, 0.7], [0.0, 0.1, 0.2]],
        [[1.0, 2.0], [1.0, 2.0]],
        [[0.3, 0.3, 0.3], [0.3, 0.3, 0.3], [0.2, 0.4]],
    ],
)
def test_the_bootstrap_is_the_enumeration_to_four_standard_errors(values):
    found = choose(values)
    assert found.best == int(np.argmax([np.median(group) for group in values]))
    for share, exact in zip(found.share, exact_share(values), strict=True):
        assert abs(share - exact) < 4 * math.sqrt(0.25 / 10_000)
    assert sum(found.share) == pytest.approx(1)


def test_a_choice_from_one_seed_says_that_it_cannot_be_known():
    found = choose([[0.1, 0.2], [0.9]])
    assert (found.best, found.share) == (1, None)
    sweep = Sweep({"beta": "beta"}, [Group({"beta": beta}, [run(0)]) for beta in (1, 4)], {})
    (sentence,) = verdicts(sweep, {"elbo": found})
    assert sentence == "elbo: beta = 4 (from one seed it cannot be known how sure that is)"


def test_a_group_without_the_score_cannot_win():
    found = choose([[math.nan, math.nan], [0.1, 0.2, math.nan], [0.3, 0.4]])
    assert found.best == 2
    assert found.share == (0.0, 0.0, 1.0)


def test_each_criterion_chooses(sweep):
    found = read(sweep)
    choices = chosen(
        found, measured(found) | {"udr/lasso": [[0.1, 0.1, math.nan, math.nan]] * 2 + [[0.2] * 4]}
    )
    assert choices.keys() == {"elbo", "mig_hist20/mig_hist20", "udr/lasso"}
    medians = [np.median([ELBO[beta, seed] for seed in SEEDS]) for beta in BETAS]
    assert choices["elbo"].best == int(np.argmax(medians))
    assert choices["udr/lasso"].best == 2
    assert (
        choices["udr/lasso"].share is None
    )  # two groups of two runs, which have one number between them


def test_a_run_that_ended_with_a_warning_is_marked_and_not_chosen(sweep):
    best = max(BETAS, key=lambda beta: np.median([ELBO[beta, seed] for seed in SEEDS]))
    others = [beta for beta in BETAS if beta != best]
    second = max(others, key=lambda beta: np.median([ELBO[beta, seed] for seed in SEEDS]))
    for seed in SEEDS:
        marker = sweep / f"beta={best}_seed={seed}" / "finished.json"
        entry = json.loads(marker.read_text()) | {"warnings": {"collapsed": "it has collapsed"}}
        marker.write_text(json.dumps(entry))
    found = read(sweep)
    values = measured(found)
    assert chosen(found, values)["elbo"].best == BETAS.index(second)
    assert chosen(found, values, warned=True)["elbo"].best == BETAS.index(best)
    marked = [sentence for sentence in apart(found) if sentence.endswith(": it has collapsed")]
    assert len(marked) == len(SEEDS)
    assert "seed=0 ended with a warning" in document(
        found, sweep, values, chosen(found, values), [], []
    )
    assert len(found.runs) == len(BETAS) * len(SEEDS)  # they are in the tables


def test_beta_has_a_scale_of_octaves_and_other_keys_make_series():
    runs = [run(0, beta=beta, lr=lr) for beta in (1, 4, 16) for lr in (0.1, 0.2)]
    place = figures.along(grouped(runs, {}))
    assert (place.name, place.log) == ("beta", 2)
    assert place.series == {"lr = 0.1": [0, 2, 4], "lr = 0.2": [1, 3, 5]}
    assert [place.places[number] for number in place.series["lr = 0.2"]] == [1, 4, 16]


def test_without_numbers_the_groups_stand_side_by_side():
    place = figures.along(grouped([run(0, kind=kind) for kind in ("a", "b")], {}))
    assert (place.name, place.places, place.log) == ("", [0.0, 1.0], 0)
    assert [*place.ticks.values()] == ["kind = a", "kind = b"]
    lr = figures.along(grouped([run(0, lr=lr) for lr in (1e-4, 1e-3)], {}))
    assert (lr.name, lr.log) == ("lr", 10)


def test_seeds_alone_make_one_group(tmp_path):
    for seed in range(3):
        write_run(tmp_path / f"seed={seed}", scores(-float(seed)), seed=seed)
    found = read(tmp_path)
    assert [group.label for group in found.groups] == ["all"]
    assert not chosen(found, measured(found))
    assert tables(found, measured(found))[0][1][:2] == ["all", "3"]


def test_every_figure_of_a_sweep_without_the_rest_can_be_left_out(sweep):
    found = read(sweep)
    values = measured(found)
    assert figures.kl_spectrum(found) is not None
    assert figures.traversals(found, {}) is None
    bare = Sweep(found.keys, [Group(group.values, [run(0)]) for group in found.groups], {})
    assert figures.kl_spectrum(bare) is None
    assert figures.scores(bare, values, ["nothing"]) is None
    figure = figures.rate_distortion(bare, measured(bare))
    assert len(figure.axes[0].get_legend().get_texts()) == 1  # no mutual information


def test_the_spectrum_is_sorted_in_each_run(sweep):
    (picture,) = figures.kl_spectrum(read(sweep)).axes[0].get_images()
    assert np.asarray(picture.get_array()).tolist() == [
        [4.0, 2.0, pytest.approx(1.6)],
        [pytest.approx(0.1), 0.2, 0.25],
    ]


def sized(components: int, labelled: float | None, seed: int = 0, data: str = "d") -> Run:
    """A run of a Bayesian mixture of that size."""
    found = {
        "bayesian_mixture": {"settings": {"_target_": "b"}, "labelled": labelled},
        "evidence": {"bic": 10.0 * components, "icl": 12.0 * components},
    }
    known = scores(-1.0, **found)
    return Run(f"{components}-{seed}", seed, {"model.components": components}, known, data)


def test_the_evidence_of_each_size_is_that_of_its_best_run_and_gives_odds():
    runs = [sized(1, -110.0), sized(2, -103.0), sized(2, -100.0, seed=1), sized(3, -102.0)]
    found = grouped(runs, {})
    above, below = evidence(found, measured(found)).axes
    lines = {line.get_label(): line for line in above.get_lines()}
    np.testing.assert_allclose(lines["elbo + log labellings"].get_ydata(), [-110, -100, -102])
    np.testing.assert_allclose(lines["-BIC / 2"].get_ydata(), [-5, -10, -15])
    np.testing.assert_allclose(lines["-ICL / 2"].get_ydata(), [-6, -12, -18])
    odds = np.exp([-10.0, 0.0, -2.0])
    np.testing.assert_allclose([bar.get_height() for bar in below.patches], odds / odds.sum())


@pytest.mark.parametrize(
    "runs",
    [
        [sized(2, -100.0), sized(2, -101.0, seed=1)],
        [sized(1, -100.0), sized(2, -100.0, data="other")],
        [run(0), run(1)],
    ],
    ids=["one size", "other data", "no mixtures"],
)
def test_there_is_no_evidence_to_compare_of(runs):
    found = grouped(runs, {})
    assert evidence(found, measured(found)) is None


def test_the_curve_of_theory_ends_where_shannon_says(configure, tmp_path):
    """Rate 0 costs the variance of the data; at a rate r of equal variances the error is variance *
    exp(-2 r / D).
    """
    from omegaconf import OmegaConf

    (tmp_path / ".hydra").mkdir()
    cfg = configure(
        "experiment=water_filling", "data.variances=[2.0,2.0]", "data.x_shape=[2]", "latent_dim=2"
    )
    OmegaConf.save(cfg, tmp_path / ".hydra" / "config.yaml")
    noise = cfg.model.likelihood.variance
    points = theory(written(tmp_path), tmp_path)
    assert points[-1][0] == pytest.approx(0, abs=1e-9)
    for rate, distortion in points:
        error = 4.0 * math.exp(-rate)
        assert distortion == pytest.approx(
            error / (2 * noise) + math.log(2 * math.pi * noise), rel=1e-9
        )
    OmegaConf.save(configure(), tmp_path / ".hydra" / "config.yaml")
    assert theory(written(tmp_path), tmp_path) == []


def written(folder: Path) -> Run:
    """The run in a folder of which only the configuration is there."""
    return Run(".", 0, flat(one_spelling(written_tree(folder))), {})


def command(
    *words: str, module: str = "jensen.report", cwd: Path
) -> subprocess.CompletedProcess[str]:
    return shell.run(module, *words, cwd=cwd)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A real sweep, and what the report of it said."""
    folder = tmp_path_factory.mktemp("trained")
    quick = ("trainer.accelerator=cpu", "trainer.max_steps=4", "trainer.val_check_interval=4")
    swept = (
        "objective.beta=1,4",
        "seed=0,1",
        "hydra.sweep.dir=sweep",
        "diagnostics=[rate,decomposition,mig_hist20]",
    )
    done = command("-m", *TINY, *quick, *swept, module="jensen.train", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, command("sweep=sweep", cwd=folder)


def test_the_command_leaves_tables_and_pictures(trained):
    folder, done = trained
    assert done.returncode == 0, done.stderr
    for words in ("beta", "UDR (Lasso)", "mig_hist20: beta = ", "report.md"):
        assert words in done.stdout
    text = (folder / "sweep" / "report.md").read_text()
    rows = list(csv.reader((folder / "sweep" / "report.csv").read_text().splitlines()))
    assert rows[0] == ["beta", "quantity", "runs", "median", "quartile_1", "quartile_3"]
    assert {"elbo", "udr/spearman", "udr/lasso", "rate/active_units"} <= {row[1] for row in rows}
    for title in ("Alignment across seeds", "Aggregate posteriors"):
        assert f"## {title}" in text
        assert title in done.stdout
    names = ["rate_distortion", "scores", "kl_spectrum", "choices", "traversals"]
    for name in names:
        assert f"![{name}](report/{name}.png)" in text
        with Image.open(folder / "sweep" / "report" / f"{name}.png") as picture:
            assert min(picture.size) > 150
        assert (folder / "sweep" / "report" / f"{name}.pdf").read_bytes().startswith(b"%PDF-")
        assert "<svg" in (folder / "sweep" / "report" / f"{name}.svg").read_text()
    html = (folder / "sweep" / "report.html").read_text()
    assert html.count("data:image/svg+xml;base64,") == len(names) - 1  # traversals are pictures
    assert html.count("data:image/png;base64,") == html.count("data:image/gif;base64,") == 2
    assert "━" not in done.stdout + done.stderr  # no bar that says not of what
    assert re.search(r"beta=1_seed=0: encoded 60 examples", done.stdout)
    accumulator = EventAccumulator(str(folder / "sweep" / "report"))
    accumulator.Reload()
    assert sorted(accumulator.Tags()["images"]) == sorted(f"report/{name}" for name in names)


@pytest.mark.slow
def test_a_second_report_replaces_the_first(trained):
    folder, _ = trained
    before = (folder / "sweep" / "report.csv").read_text()
    assert command("sweep=sweep", "models=false", cwd=folder).returncode == 0
    assert len([*(folder / "sweep" / "report").glob("events*")]) == 1
    after = (folder / "sweep" / "report.csv").read_text()
    assert after.splitlines() == [line for line in before.splitlines() if ",udr/" not in line]


def test_the_udr_of_a_group_is_that_of_its_codes(trained, tmp_path):
    """From the codes that jensen.encode writes, by scipy's rank correlation."""
    from scipy.stats import spearmanr

    folder, _ = trained
    codes = []
    rates = []
    for seed in (0, 1):
        (place,) = (folder / "sweep").glob(f"*beta=1_seed={seed}")
        assert (
            command(
                f"run='{place}'",
                f"out={tmp_path / 'codes.npz'}",
                module="jensen.encode",
                cwd=folder,
            ).returncode
            == 0
        )
        with np.load(tmp_path / "codes.npz") as file:
            mean = file["codes"].astype(float)
            log_var = file["log_var"].astype(float)
        codes.append(mean)
        rates.append(0.5 * (np.exp(log_var) + mean**2 - 1 - log_var).mean(0) > 0.01)
    one, other = (code[:, used] for code, used in zip(codes, rates, strict=True))
    table = np.abs([[spearmanr(a, b).statistic for b in other.T] for a in one.T])
    by_row, by_column = ((table.max(axis) ** 2 / table.sum(axis)).sum() for axis in (1, 0))
    expected = (by_row + by_column) / sum(table.shape)
    rows = csv.DictReader((folder / "sweep" / "report.csv").read_text().splitlines())
    (found,) = [row for row in rows if (row["beta"], row["quantity"]) == ("1", "udr/spearman")] or [
        None
    ]
    if found is None:  # the second report ran first
        assert command("sweep=sweep", cwd=folder).returncode == 0
        rows = csv.DictReader((folder / "sweep" / "report.csv").read_text().splitlines())
        (found,) = [row for row in rows if (row["beta"], row["quantity"]) == ("1", "udr/spearman")]
    assert float(found["median"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_a_model_whose_codes_are_not_finite_is_left_out_with_the_reason(trained, tmp_path):
    one_setting = shutil.ignore_patterns("*beta=1*", "report*")
    folder = Path(shutil.copytree(trained[0] / "sweep", tmp_path / "sweep", ignore=one_setting))
    (run,) = folder.glob("*beta=4_seed=1")
    path = run / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    next(iter(saved["state_dict"].values())).fill_(torch.inf)
    torch.save(saved, path)
    done = command("sweep=sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        "its codes are NaN or infinite: expected finite ones; restore its checkpoint" in done.stdout
    )


def test_bad_input_ends_the_command_with_a_sentence(tmp_path):
    done = command("sweep=nowhere", cwd=tmp_path)
    assert done.returncode == 1
    assert "sweep=nowhere is no folder: expected the folder of a sweep" in done.stderr
    assert "Traceback" not in done.stderr


# ---- what a model trusts


def watched(see, seed):
    """A run of experiment=ventriloquism whose weights are the theory's."""
    noise = {"see": see, "hear": (2.0, 0.25)}
    precision = np.array([*noise.values()], float) ** -2
    total = precision.sum(0) + 1
    told = {
        f"weight_{name}_{at}": precision[sense, at] / total[at]
        for sense, name in enumerate(noise)
        for at in range(2)
    } | {f"variance_{at}": 1 / total[at] for at in range(2)}
    told["settings"] = {"sources": ["place", "time"]}
    settings = flat({"data": {"noise": noise, "prior_sd": 1.0}})
    return Run(f"see={see}_seed={seed}", seed, settings, scores(-4.0, ventriloquism=told))


def swept(*runs):
    return Sweep({}, [Group({}, [run]) for run in runs], {})


def test_weights_over_the_noise_of_a_sense_are_drawn_beside_the_ideal_observers():
    runs = [watched((see, 2.0), seed) for seed in range(3) for see in (0.25, 1.0, 4.0)]
    figure = cue_weights(swept(*runs))
    left, right = figure.axes
    assert left.get_xlabel() == "noise of see in place (deviation)"
    lines = {line.get_label(): line for line in left.get_lines()}
    assert {"see, place", "hear, place", "see, time", "hear, time"} <= {*lines}
    solid = [line for line in left.get_lines() if len(line.get_xdata()) == 200]
    dots = [line for line in left.get_lines() if len(line.get_xdata()) == 9]
    assert len(solid) == len(dots) == 4
    for line, points in zip(solid, dots, strict=True):
        on_line = np.interp(points.get_xdata(), line.get_xdata(), line.get_ydata())
        np.testing.assert_allclose(points.get_ydata(), on_line, atol=1e-3)
    # of place sight is the better one until it is blurred; of time hearing stays it
    assert solid[0].get_ydata()[0] > 0.9 > 0.1 > solid[0].get_ydata()[-1]
    assert np.ptp(solid[3].get_ydata()) < 1e-12
    assert solid[3].get_ydata()[0] == pytest.approx(0.9275362319)
    variances = [line for line in right.get_lines() if len(line.get_xdata()) == 9]
    assert variances[1].get_ydata()[0] == pytest.approx(0.05797101449)


def test_weights_are_not_drawn_where_it_is_not_one_noise_that_was_swept():
    first = watched((0.25, 2.0), 0)
    assert cue_weights(swept(first, watched((1.0, 1.0), 0))) is None
    assert cue_weights(swept(first, watched((0.25, 2.0), 1))) is None


def test_weights_are_not_drawn_of_runs_that_nobody_looked_at(sweep):
    assert cue_weights(read(sweep)) is None
