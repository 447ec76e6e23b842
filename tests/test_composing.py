"""What tests compose, with all that `composing` remembers and `quicker` leaves out, is what Hydra
composes and OmegaConf makes of it.
"""

import copy
import json
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from composing import composed
from omegaconf import DictConfig, ListConfig, OmegaConf, ValidationError, open_dict

from jensen.run.conf import conf_folder


@dataclass
class Given:
    count: int = 3
    places: list[Path] = field(default_factory=lambda: [Path("here")])


CASES = [
    ["experiment=squares", "seed=3"],
    ["data=mnist", "model=conv", "model/prior=vamp", "objective=factor", "+callbacks=ema"],
    ["algorithm=em", "data=gaussian", "diagnostics=[]", "+mine.key=[1, 2]"],
]
_PLAIN = """
import json, sys
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
with initialize_config_dir(sys.argv[1], version_base="1.3"):
    made = [compose("train", words) for words in json.loads(sys.argv[2])]
print(json.dumps([[OmegaConf.to_yaml(each, resolve=way) for way in (False, True)] for each in made]))
"""


def test_copies_are_whole_and_nobody_elses():
    cfg = composed("data=mnist", "+mine.key=[1, 2]")
    for copied in (copy.deepcopy(cfg), pickle.loads(pickle.dumps(cfg)), copy.copy(cfg)):
        assert copied == cfg
        assert OmegaConf.is_struct(copied)
        assert copied.trainer._get_parent() is copied
        assert copied.data._get_node("batch_size")._get_parent() is copied.data
        with open_dict(copied):
            copied.mine.key.append("${seed}")
            copied.data.batch_size = 7
        assert copied.mine.key[2] == copied.seed
        assert cfg.mine.key == [1, 2]
        assert cfg.data.batch_size != 7


def test_what_a_configuration_is_is_told_as_ever():
    given = OmegaConf.structured(Given(), flags={"allow_objects": True})
    assert given.count == 3
    assert OmegaConf.get_type(copy.deepcopy(given)) is Given
    with pytest.raises(ValidationError):
        given.count = "many"
    assert isinstance(given, DictConfig)
    assert isinstance(given.places, ListConfig)
    assert not isinstance(given, ListConfig)
    assert not isinstance({}, DictConfig)
    assert OmegaConf.merge({"a": {"b": 1}}, {"a": {"c": [Path("x")]}}) == {
        "a": {"b": 1, "c": [Path("x")]}
    }


def test_what_is_composed_by_memory_is_what_hydra_composes():
    line = [sys.executable, "-c", _PLAIN, str(conf_folder()), json.dumps(CASES)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for words, expected in zip(CASES, json.loads(done.stdout), strict=True):
        composed(*words).seed = 7  # a copy, which is nobody else's
        for way in (False, True):
            assert OmegaConf.to_yaml(composed(*words), resolve=way) == expected[way]
