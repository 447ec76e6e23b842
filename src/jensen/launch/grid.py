"""The sweeper of every combination, where nobody chooses another one."""

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

GRID = {
    "_target_": "hydra_plugins.jensen_plugins.Grid",
    "max_batch_size": None,
    "params": None,
}


def register() -> None:
    """Have `hydra/sweeper=basic`, Hydra's default, be `Grid` in this process.

    A choice of `conf/train.yaml` would win over the one that an experiment makes.
    """
    Plugins.instance()  # imports Hydra's own, which stores itself under that name
    ConfigStore.instance().store(name="basic", group="hydra/sweeper", node=GRID, provider="jensen")
