"""The configurations of a sweep's jobs, as Hydra composes them."""

import pickle
from collections.abc import Hashable, Sequence

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

_PLAIN = (bool, int, float, str, type(None))


class Compositions:
    """Composes each job's configuration; of jobs that differ in plain values alone, such as a beta
    and a seed, Hydra composes the first, and the others are it with their values.

    Hydra reads and merges some sixty files for each job, whatever it differs in.

    Args:
        loader: Hydra's.
        master: the sweep's configuration.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self.loader = loader
        self.master = master
        self._parser = OverridesParser.create()
        self._is_group: dict[str, bool] = {}
        self._first: dict[Hashable, bytes] = {}

    def of(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration of one job, to change.

        Raises:
            HydraException: overrides that Hydra refuses.
        """
        parsed = self._parser.parse_overrides(list(overrides))
        plain = [each for each in parsed if self._is_plain(each)]
        key = tuple(_key(each) if each in plain else each.input_line for each in parsed)
        if key not in self._first:
            first = self.loader.load_sweep_config(self.master, list(overrides))
            self._first[key] = pickle.dumps(first)
            return first
        found: DictConfig = pickle.loads(self._first[key])
        for each in plain:
            OmegaConf.update(found, each.key_or_group, each.value(), force_add=not _changes(each))
        _say_whose(found, parsed)
        OmegaConf.copy_cache(from_config=self.master, to_config=found)
        return found

    def _is_plain(self, override: Override) -> bool:
        """Tell whether an override sets one value, and chooses no file, deletes nothing, asks for
        no other key.
        """
        if override.is_delete() or override.is_hydra_override():
            return False
        if override.package is not None or not isinstance(override.value(), _PLAIN):
            return False
        return "${" not in str(override.value()) and not self._chooses(override.key_or_group)

    def _chooses(self, key: str) -> bool:
        if key not in self._is_group:
            hydra = OmegaConf.to_container(self.master.hydra.overrides.hydra)
            assert isinstance(hydra, list)
            options = self.loader.get_group_options(
                key, None, self.master.hydra.job.config_name, hydra
            )
            self._is_group[key] = bool(options)
        return self._is_group[key]


def _key(override: Override) -> tuple[str, str]:
    return override.key_or_group, str(override.type)


def _changes(override: Override) -> bool:
    return not (override.is_add() or override.is_force_add())


def _say_whose(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Write down the overrides where Hydra does."""
    own = [each for each in overrides if not each.is_hydra_override()]
    naming = config.hydra.job.config.override_dirname
    with open_dict(config):
        config.hydra.overrides.task = [each.input_line for each in own]
        config.hydra.job.override_dirname = get_overrides_dirname(
            overrides=own,
            kv_sep=naming.kv_sep,
            item_sep=naming.item_sep,
            exclude_keys=naming.exclude_keys,
        )
