"""Reports of sweeps over data and likelihoods: what does not compare is not compared, and one
sentence says so.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from hostile.commands import run_here
from scipy.stats import spearmanr

from jensen import report
from jensen.reports.comparable import apart, families, held_out, unit
from jensen.reports.criteria import chosen, verdicts
from jensen.reports.models import _agreement
from jensen.reports.read import read
from jensen.reports.sweep import Group, Run, Sweep
from jensen.reports.table import measured

ONE = "1" * 64
TWO = "2" * 64
BERNOULLI = "jensen.model.likelihood.Bernoulli"
NORMAL = "jensen.model.likelihood.Normal"


def write_run(
    folder: Path,
    elbo: float,
    mig: float = 0.1,
    *,
    fingerprint: str = "",
    held_out: int | None = None,
    likelihood: str = BERNOULLI,
    beta: int = 1,
    **data,
) -> None:
    """A finished run without a checkpoint; `data` are keys of `data`."""
    settings = {"source": {"_target_": "here"}, "x_shape": [2], **data}
    config = {"algorithm": {}, "seed": 0, "data": settings, "objective": {"beta": beta}}
    config["model"] = {"likelihood": {"_target_": likelihood}}
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(json.dumps(config))
    (folder / "finished.json").write_text('{"identity": "x"}')
    if fingerprint:
        (folder / ".hydra" / "identity.json").write_text(
            json.dumps({"data": fingerprint} | ({"held_out": held_out} if held_out else {}))
        )
    settings = {
        "_target_": "jensen.diagnostics.score.score",
        "function": {"path": "jensen.scores.mig_hist20"},
    }
    scores = {
        "checkpoint": "last",
        "split": "validation",
        "bound": {"elbo": elbo, "distortion": -elbo - 10, "rate": 10.0},
    }
    scores["diagnostics"] = {"mig_hist20": {"settings": settings, "mig_hist20": mig}}
    (folder / "scores.json").write_text(json.dumps(scores))


SWEPT = {
    "root": ({"root": "dk", "fingerprint": ONE}, {"root": "mnist", "fingerprint": TWO}),
    "path, of runs without fingerprints": ({"path": "a.npz"}, {"path": "b.npz"}),
    "size": ({"size": 100, "fingerprint": ONE}, {"size": 200, "fingerprint": TWO}),
    "validation": (
        {"validation": 100, "fingerprint": ONE},
        {"validation": 200, "fingerprint": ONE},
    ),
    "transform": (
        {"fingerprint": ONE, "transform": None},
        {"fingerprint": ONE, "transform": {"_target_": "t.noise"}},
    ),
    "changed where they lie": (
        {"root": "a", "fingerprint": ONE},
        {"root": "a", "fingerprint": TWO},
    ),
}


@pytest.mark.parametrize("how", SWEPT)
def test_nothing_is_chosen_across_different_data(tmp_path, how):
    for number, data in enumerate(SWEPT[how]):
        write_run(tmp_path / str(number), -10.0 - number, **data)
    sweep = read(tmp_path)
    assert len(sweep.groups) == 2
    assert not chosen(sweep, measured(sweep))
    (sentence,) = apart(sweep)
    assert sentence.startswith(
        f"nothing is chosen across different data ({sweep.groups[0].label};"
        f" {sweep.groups[1].label}): "
    )


def test_each_data_set_chooses_among_its_own(tmp_path):
    elbos = {("dk", 1): -10.0, ("dk", 4): -12.0, ("mnist", 1): -90.0, ("mnist", 4): -80.0}
    for (root, beta), elbo in elbos.items():
        write_run(
            tmp_path / f"{root}{beta}",
            elbo,
            -elbo,
            root=root,
            beta=beta,
            fingerprint=ONE if root == "dk" else TWO,
        )
    sweep = read(tmp_path)
    found = chosen(sweep, measured(sweep))
    assert {name: sweep.groups[choice.best].label for name, choice in found.items()} == {
        "elbo among root = dk": "beta = 1, root = dk",
        "elbo among root = mnist": "beta = 4, root = mnist",
        "mig_hist20/mig_hist20 among root = dk": "beta = 4, root = dk",
        "mig_hist20/mig_hist20 among root = mnist": "beta = 1, root = mnist",
    }
    assert verdicts(sweep, found)[2].startswith(
        "mig_hist20 among root = dk: beta = 4, root = dk (from one seed it"
    )


SAME = {
    "one place, copied": ({"root": "a"}, {"root": "b"}),
    "as many held out": ({"validation": 8, "held_out": 8}, {"validation": "auto", "held_out": 8}),
    "batch size": ({"batch_size": 10}, {"batch_size": 20}),
    "order": ({"seed": 0}, {"seed": 1}),
}


@pytest.mark.parametrize("how", SAME)
def test_the_same_data_are_compared_however_they_are_served(tmp_path, how):
    for number, data in enumerate(SAME[how]):
        write_run(tmp_path / str(number), -10.0 - number, beta=1 + number, fingerprint=ONE, **data)
    sweep = read(tmp_path)
    found = chosen(sweep, measured(sweep))
    assert found["elbo"].best == 0
    assert not apart(sweep)


@pytest.mark.parametrize("counts", [(8, 9), (None, 8)])
def test_other_numbers_held_out_are_other_data(tmp_path, counts):
    for number, (validation, count) in enumerate(zip(("auto", 8), counts, strict=True)):
        write_run(
            tmp_path / str(number), -10.0, fingerprint=ONE, validation=validation, held_out=count
        )
    assert len(families(read(tmp_path))) == 2


def test_probabilities_and_densities_have_no_common_elbo_and_have_common_scores(tmp_path):
    for number, likelihood in enumerate((BERNOULLI, NORMAL)):
        for beta in (1, 4):
            folder = tmp_path / f"{number}{beta}"
            write_run(
                folder,
                -10.0 * beta + 100 * number,
                0.1 * beta,
                likelihood=likelihood,
                beta=beta,
                fingerprint=ONE,
            )
    sweep = read(tmp_path)
    found = chosen(sweep, measured(sweep))
    assert {name: sweep.groups[choice.best].label for name, choice in found.items()} == {
        "elbo among likelihood = Bernoulli": "beta = 1, likelihood = Bernoulli",
        "elbo among likelihood = Normal": "beta = 1, likelihood = Normal",
        "mig_hist20/mig_hist20": "beta = 4, likelihood = Bernoulli",
    }
    (sentence,) = apart(sweep)
    assert sentence.startswith("no elbo is chosen across different units (density; probability)")


@pytest.mark.parametrize(
    ("likelihoods", "kinds"),
    [
        (("Bernoulli", "CrossEntropy"), 1),
        (("Normal", "LearnedNormal", "OptimalNormal", "ContinuousBernoulli"), 1),
        (("CrossEntropy", "ContinuousBernoulli"), 2),
        (("Normal", "Poisson"), 2),
    ],
)
def test_which_likelihoods_elbos_have_one_unit(likelihoods, kinds):
    runs = [
        Run(name, 0, {"model.likelihood._target_": f"jensen.model.likelihood.{name}"}, {})
        for name in likelihoods
    ]
    assert len({unit(run) for run in runs}) == kinds


def test_groups_of_one_data_set_a_seed_compare_where_the_seeds_are_the_same():
    def run(beta, seed):
        return Run(f"{beta}{seed}", seed, {"data.size": seed}, {}, str(seed))

    groups = [
        Group({"beta": beta}, [run(beta, seed) for seed in seeds])
        for beta, seeds in ((1, (0, 1)), (2, (0, 1)), (4, (0,)))
    ]
    assert [
        family.members for family in families(Sweep({"beta": "objective.beta"}, groups, {}))
    ] == [[0, 1], [2]]


def test_runs_agree_only_with_those_that_encoded_the_same_examples():
    """Two runs of each of two data sets: a pair's agreement is |Spearman's correlation| of its one
    latent, by scipy.
    """
    rng = np.random.default_rng(0)
    runs = [Run(str(seed), seed, {}, {}, data) for seed, data in enumerate((ONE, ONE, TWO, TWO))]
    codes = {place: rng.standard_normal((50, 1)) for place in range(4)}
    found = _agreement(
        Group({}, runs), codes, {place: np.ones(1) for place in range(4)}, "spearman"
    )
    pairs = [abs(spearmanr(codes[a][:, 0], codes[b][:, 0]).statistic) for a, b in ((0, 1), (2, 3))]
    assert found == pytest.approx([pairs[0], pairs[0], pairs[1], pairs[1]])
    alone = _agreement(
        Group({}, runs[1:3]), {0: codes[0], 1: codes[1]}, {0: np.ones(1), 1: np.ones(1)}, "spearman"
    )
    assert np.isnan(alone).all()
    assert held_out(runs[0]) == held_out(runs[1]) != held_out(runs[2])


@pytest.mark.slow
def test_the_report_says_in_one_sentence_what_it_does_not_compare(capsys, tmp_path):
    for number, data in enumerate(SWEPT["root"]):
        for beta in (1, 4):
            write_run(tmp_path / f"{number}{beta}", -10.0 - beta, beta=beta, **data)
    ended = run_here(capsys, report.main, f"sweep={tmp_path}", "models=false")
    assert ended.status == 0, ended.err
    assert ended.out.count("nothing is chosen across different data") == 1
    text = (tmp_path / "report.md").read_text()
    assert (
        "## Not compared\n\n- nothing is chosen across different data (root = dk; root = mnist)"
        in text
    )
    assert "- elbo among root = dk: beta = 1, root = dk" in text
