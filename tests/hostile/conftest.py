"""A finished run, to be damaged."""

import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from tiny import TINY

from jensen.launch.training import train
from jensen.run.conf import conf_folder

QUICK = (
    *TINY,
    "diagnostics=[]",
    "trainer.max_steps=6",
    "trainer.val_check_interval=3",
    "trainer.accelerator=cpu",
)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "run"
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        train(compose("train", [*QUICK]), folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy in a folder that is as a sweep's."""
    return Path(shutil.copytree(finished, tmp_path / "sweep" / "run"))
