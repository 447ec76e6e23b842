"""What is advised where a model has collapsed names keys that its objective has."""

import re

import pytest
from composing import choices, composed
from hydra.utils import instantiate
from omegaconf import OmegaConf

from jensen.callbacks.health import _remedies


@pytest.mark.parametrize("choice", choices("objective"))
def test_every_key_that_is_advised_is_one_of_the_objective_that_collapsed(choice):
    cfg = composed("data=sprites", f"objective={choice}")
    said = _remedies(instantiate(cfg.objective))
    keys = re.findall(r"(?:objective|optimizer)\.[a-z_]+", said)
    assert keys
    for key in keys:
        assert OmegaConf.select(cfg, key) is not None, key
