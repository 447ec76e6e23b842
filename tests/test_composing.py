"""What tests compose, with all that `composing` remembers, is what Hydra composes."""

import json
import subprocess
import sys

from composing import composed
from omegaconf import OmegaConf

from jensen.run.conf import conf_folder

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
    found = [OmegaConf.to_yaml(compose("train", words)) for words in json.loads(sys.argv[2])]
print(json.dumps(found))
"""


def test_what_is_composed_by_memory_is_what_hydra_composes():
    line = [sys.executable, "-c", _PLAIN, str(conf_folder()), json.dumps(CASES)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for words, expected in zip(CASES, json.loads(done.stdout), strict=True):
        composed(*words).seed = 7  # a copy, which is nobody else's
        assert OmegaConf.to_yaml(composed(*words)) == expected
