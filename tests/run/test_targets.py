"""Parts are named by their package, in conf/ and in the folders of runs; names of older runs still
load, and no others.
"""

import re
from importlib import import_module

import pytest
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from jensen.base.errors import InputError
from jensen.model.vae import VAE
from jensen.run.conf import conf_folder
from jensen.run.identity import difference, identity
from jensen.run.targets import PACKAGES, long, one_spelling, short
from jensen.run.trust import build

NAMED = sorted(
    {
        name
        for file in conf_folder().rglob("*.yaml")
        for name in re.findall(r"(?:_target_|path): *(jensen\.[\w.]+)", file.read_text())
    }
)
SHORT = [
    f"jensen.{package}.{name}"
    for package in PACKAGES
    for name in import_module(f"jensen.{package}").PLACES
]


def spelt_out(tree):
    if isinstance(tree, dict):
        return {
            key: long(value) if key == "_target_" else spelt_out(value)
            for key, value in tree.items()
        }
    return [*map(spelt_out, tree)] if isinstance(tree, list) else tree


def test_conf_names_each_part_by_its_package_or_by_the_file_that_has_its_name():
    for name in NAMED:
        *_, above, last = name.split(".")
        by_file = name.count(".") == 3 and above in (last, "score")
        assert name.count(".") == 2 or by_file, name
        assert callable(get_object(name)), name


def test_a_short_name_is_the_part_itself():
    for name in SHORT:
        part = get_object(name)
        assert f"{part.__module__}.{part.__qualname__}" == long(name) != name
    assert get_object(long(name)) is part
    assert short(long(name)) == short(name) == name
    assert name.rpartition(".")[2] in dir(import_module(name.rpartition(".")[0]))


def test_a_package_has_no_name_that_is_a_modules_too():
    """The module would hide it once it is imported."""
    for package in PACKAGES:
        places = import_module(f"jensen.{package}").PLACES
        assert not places.keys() & set(places.values())


@pytest.mark.parametrize(
    "name",
    [
        "jensen.objective.Nothing",
        "jensen.objective.beta.Gamma",
        "jensen.model.beta.Beta",
        "my.objective.Beta",
        "jensen",
        "a",
        "",
    ],
)
def test_any_other_name_is_left_as_it_is(name):
    assert short(name) == long(name) == name


def test_a_run_is_the_same_in_either_spelling(configure):
    cfg = configure("data=gaussian", "model=linear", "+schedule@objective.beta=linear")
    old = OmegaConf.create(spelt_out(OmegaConf.to_container(cfg)))
    assert old.model.encoder._target_ == "jensen.model.linear.LinearEncoder"
    assert old.objective.beta._target_ == "jensen.base.schedule.Linear"
    assert identity(old) == identity(cfg)
    assert difference(old, cfg) == ""
    assert one_spelling(OmegaConf.to_container(old)) == OmegaConf.to_container(cfg)
    assert identity(configure("data=gaussian", "model=linear")) != identity(cfg)
    assert isinstance(build(old, "model", VAE), VAE)
    assert isinstance(build(cfg, "model", VAE), VAE)


@pytest.mark.parametrize(
    "target",
    [
        *(
            "jensen.callbacks.Last",
            "jensen.data.lazily",
            "jensen.base.lazy.import_module",
            "jensen.model.import_module",
        ),
        *("jensen.objective.__getattr__", "jensen.run.targets.import_module", "jensen.load"),
    ],
)
def test_a_stranger_may_name_no_more_by_a_package(configure, target):
    cfg = OmegaConf.create(OmegaConf.to_container(configure("data=gaussian", "model=linear")))
    cfg.model.encoder = {"_target_": target}
    with pytest.raises(
        InputError, match=r"^model\.encoder\._target_ of the run is .* which is no part of jensen"
    ):
        build(cfg, "model", VAE)


def test_an_unknown_name_of_a_package_is_one_sentence_of_hydras():
    with pytest.raises(Exception, match=r"jensen\.objective\.Gamma"):
        instantiate({"_target_": "jensen.objective.Gamma"})
