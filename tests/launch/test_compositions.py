"""A sweep's jobs are composed as Hydra composes each, and mostly without it."""

import pytest
import shell
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from jensen.launch import naming
from jensen.launch.compositions import Compositions
from jensen.run.conf import conf_folder

PLAIN = [
    [
        ["objective.beta=1", "seed=0"],
        ["objective.beta=4.5", "seed=1"],
        ["objective.beta=null", "seed=1e3"],
        ["objective.beta='2'", "seed=a b"],
    ],
    [["+mine.key=1", "seed=0"], ["+mine.key=true", "seed=2"]],
    [["++mine.key=1"], ["++mine.key='x=[1]'"], ["++mine.key="]],
    [["seed=1", "objective.beta=1"], ["seed=2", "objective.beta=3"]],
    [["seed=1", "seed=2"], ["seed=3", "seed=4"]],
]
"""Jobs that differ in plain values alone."""
OTHERS = [
    ["model=mlp", "seed=0"],
    ["model=linear", "seed=0"],
    ["model/prior=mixture", "seed=0"],
    ["model/prior=vamp", "seed=0"],
    ["model.encoder.hidden=[8]", "model=mlp"],
    ["model.encoder.hidden=[9]", "model=mlp"],
    ["seed=${latent_dim}"],
    ["seed='${oc.env:HOME}'"],
    ["~diagnostics.rate"],
    ["hydra.sweep.subdir=a"],
    ["hydra.sweep.subdir=b"],
    ["callbacks={}"],
    ["objective=beta", "objective.beta=2"],
    ["experiment=beta_sprites", "seed=1"],
    ["experiment=mnist_mlp", "seed=1"],
    ["diagnostics=[rate]"],
    ["diagnostics=rate"],
    ["+schedule@objective.beta=linear"],
    ["+schedule@objective.beta=cyclic"],
]
"""Jobs of which no two have one composition."""


@pytest.fixture
def compositions():
    naming.register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("train", ["hydra.sweep.dir=x"], RunMode.MULTIRUN)
        yield Compositions(loader, master)


def asked(compositions, monkeypatch):
    """The jobs that Hydra was asked for, from now on."""
    words = []
    compose = compositions.loader.load_sweep_config

    def load(master, overrides):
        words.append(overrides)
        return compose(master, overrides)

    monkeypatch.setattr(compositions.loader, "load_sweep_config", load)
    return words


def test_jobs_that_differ_in_plain_values_are_composed_once_and_as_hydra_does(
    compositions, monkeypatch
):
    words = asked(compositions, monkeypatch)
    for jobs in PLAIN:
        words.clear()
        found = [compositions.of(job) for job in jobs]
        assert words == jobs[:1]
        for job, mine in zip(jobs[1:], found[1:], strict=True):
            theirs = compositions.loader.load_sweep_config(compositions.master, job)
            assert OmegaConf.to_yaml(mine) == OmegaConf.to_yaml(theirs), job
            assert mine == theirs, job


def test_all_else_is_asked_of_hydra(compositions, monkeypatch):
    words = asked(compositions, monkeypatch)
    for job in OTHERS:
        compositions.of(job)
    assert words == OTHERS


def test_a_composition_is_nobody_elses(compositions):
    for _ in range(2):
        mine = compositions.of(["seed=1"])
        assert mine.latent_dim == 10
        mine.latent_dim = 11


def test_what_hydra_refuses_is_refused(compositions):
    for words in (["objective.bta=1"], ["model=none_such"], ["+seed=1"]):
        for _ in range(2):
            with pytest.raises(HydraException):
                compositions.of(words)


@pytest.mark.parametrize(
    ("words", "sweeper"), [((), "Grid"), (("experiment=tune_beta",), "Optuna")]
)
def test_an_experiment_chooses_its_sweeper_and_all_others_have_the_grid(words, sweeper, tmp_path):
    said = shell.run("jensen.train", *words, "--cfg", "hydra", cwd=tmp_path).stdout
    chosen = OmegaConf.create(said).hydra.sweeper
    assert chosen._target_ == f"hydra_plugins.jensen_plugins.{sweeper}"
