"""Names of a sweep's folders."""

import pytest

from jensen.launch.naming import run_name, sweep_name

NAMES = {
    ("objective.beta=4", "seed=0"): "beta=4_seed=0",
    ("experiment=beta_sprites", "trainer=ddp", "objective.beta=4", "diagnostics=[rate]"): "beta=4",
    ("objective=capacity", "objective.capacity=3"): "objective=capacity_capacity=3",
    ("model/likelihood=normal", "+model.likelihood.variance=2"): "likelihood=normal_variance=2",
    (
        "+schedule@objective.beta=linear",
        "objective.beta.end=8",
    ): "schedule@objective.beta=linear_end=8",
    ("optimizer.lr=0.1", "algorithm.lr=2"): "optimizer.lr=0.1_algorithm.lr=2",
    ("data.root=/a/b", "+source=x y/z"): "source=x-y-z",
    ("model.encoder.hidden=[16,8]",): "hidden=[16,8]",
    (): "run",
}


@pytest.mark.parametrize("overrides", NAMES)
def test_a_run_is_named_by_what_makes_it_another(overrides):
    assert run_name(overrides) == NAMES[overrides]


def test_a_place_of_data_is_named_where_it_is_not_excluded():
    assert (
        run_name(["data.root=/a/b", "data.path=c", "data.download=true"], []) == "root=-a-b_path=c"
    )
    assert (
        run_name(["data.root=/a/b", "data.path=c", "seed=1"], ["data.path", "seed"]) == "root=-a-b"
    )


def test_a_long_name_is_cut_and_still_tells_runs_apart():
    names = {run_name([f"+{'k' * 300}{last}=1"]) for last in "ab"}
    assert len(names) == 2
    assert all(len(name) < 200 for name in names)


def test_a_sweep_is_named_by_its_experiment():
    assert [sweep_name(each) for each in ("beta_sprites", None, "a,b")] == [
        "beta_sprites",
        "sweep",
        "sweep",
    ]
