"""Configurations as Hydra composes them, without its reading the same files and composing the same
words again and again.
"""

import pickle
from collections.abc import Callable, Hashable
from copy import copy
from functools import cache
from typing import Any
from unittest.mock import patch

import omegaconf
import quicker
from hydra import compose, initialize_config_dir
from hydra._internal import config_loader_impl as loader
from hydra._internal import defaults_list
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.default_element import InputDefault, ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigSource
from lightning_fabric.utilities import registry
from omegaconf import DictConfig

from jensen.launch import grid
from jensen.run.conf import conf_folder


def composed(*overrides: str) -> DictConfig:
    """`conf/train.yaml` with overrides: a copy of one's own, to change."""
    found: DictConfig = pickle.loads(_composed(overrides))  # a fifth of the time of deepcopy
    return found


@cache
def _composed(overrides: tuple[str, ...]) -> bytes:
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return pickle.dumps(compose("train", list(overrides)))
    finally:
        GlobalHydra.instance().hydra = before


@cache
def read_once() -> None:
    """Have Hydra read each file of `conf/`, parse each word and merge each set of choices of groups
    once in this process; what a person's own folders are part of is read anew each time.
    """
    quicker.install()
    # Hydra's search for plugins imports the sources' modules anew: the classes before are not used.
    Plugins.instance()
    grid.register()  # as every command does; what is remembered has it
    for scheme in ("file", "pkg"):
        source = SourcesRegistry.instance().resolve(scheme)
        source.load_config = _once(source.load_config, _of_a_file)
    loader.create_defaults_list = _choices_once(loader.create_defaults_list)
    ours = loader.ConfigLoaderImpl
    ours._load_single_config = _once(ours._load_single_config, _of_a_part)
    ours._compose_config_from_defaults_list = _once(
        _parents_last(ours._compose_config_from_defaults_list), _of_a_composition
    )
    ConfigRepository.load_config = _once(ConfigRepository.load_config, _of_a_place)
    loader.CachingConfigRepository.__init__ = _share
    defaults_list._create_interpolation_map = _if_read(defaults_list._create_interpolation_map)
    OverridesParser.parse_rule = _once(OverridesParser.parse_rule, lambda _, *words: words)
    registry.entry_points = cache(
        registry.entry_points
    )  # Lightning reads every package's, a trainer
    for module in (omegaconf.base, omegaconf._utils):
        module.parse = cache(module.parse)  # the tree of an interpolation, which is only read


def _once(function: Callable[..., Any], key_of: Callable[..., Hashable]) -> Callable[..., Any]:
    """The function, called once for each key; each call gets a copy. Where the key is None, it is
    called each time.
    """
    known: dict[Hashable, bytes] = {}

    def remembered(*arguments: Any, **named: Any) -> Any:
        key = key_of(*arguments, **named)
        if key is None:
            return function(*arguments, **named)
        if key not in known:
            known[key] = pickle.dumps(function(*arguments, **named))
        return pickle.loads(known[key])

    return remembered


def _ours(*sources: ConfigSource) -> Hashable:
    """The places that are searched, if no person's own is among them."""
    places = tuple((each.scheme(), each.provider, each.path) for each in sources)
    folder = _folder()
    return places if all(kind != "file" or path == folder for kind, _, path in places) else None


@cache
def _folder() -> str:
    return str(conf_folder())


def _of_a_file(source: ConfigSource, config_path: str) -> Hashable:
    places = _ours(source)
    return places and (places, config_path)


def _of_a_place(repo: ConfigRepository, config_path: str) -> Hashable:
    places = _ours(*repo.get_sources())
    return places and (places, config_path)


def _of_a_part(_: object, default: ResultDefault, repo: IConfigRepository) -> Hashable:
    places = _ours(*repo.get_sources())
    return places and (places, repr(default))


def _of_a_composition(
    _: object, defaults: list[ResultDefault], repo: IConfigRepository
) -> Hashable:
    places = _ours(*repo.get_sources())
    return places and (places, repr(defaults))


def _parents_last(compose: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """Each file that is merged in has the whole tree looked through for parents: once is enough."""

    def composed_once(*arguments: Any, **named: Any) -> DictConfig:
        with patch.object(omegaconf.base.Box, "_re_parent", lambda _: None):
            found = compose(*arguments, **named)
        found._re_parent()
        return found

    return composed_once


def _if_read(create: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """The choices so far, which only an interpolation in a list of defaults reads."""

    def known(overrides: Overrides, listed: list[InputDefault], self_added: bool) -> DictConfig:
        if any(not each.is_self() and each.is_interpolation() for each in listed):
            return create(overrides, listed, self_added)
        return DictConfig({})

    return known


def _share(repo: loader.CachingConfigRepository, delegate: IConfigRepository) -> None:
    """As it was, but the sources, which are replaced and not changed, are not copied."""
    repo.delegate = copy(delegate)
    repo.cache = {}


def _choices_once(create: Callable[..., DefaultsList]) -> Callable[..., DefaultsList]:
    """Of the overrides only the choices of groups make the list; the values pass it by."""

    def of_choices(
        repo: IConfigRepository, overrides_list: list[Override], **more: Any
    ) -> DefaultsList:
        return create(repo=repo, overrides_list=overrides_list, **more)

    def key(repo: IConfigRepository, overrides_list: list[Override], **more: Any) -> Hashable:
        places = _ours(*repo.get_sources())
        lines = tuple(each.input_line for each in overrides_list)
        return places and (places, lines, tuple(more.items()))

    once = _once(of_choices, key)

    def remembered(
        repo: IConfigRepository, overrides_list: list[Override], **more: Any
    ) -> DefaultsList:
        values = Overrides(repo=repo, overrides_list=overrides_list).config_overrides
        chosen = [each for each in overrides_list if not any(each is value for value in values)]
        found: DefaultsList = once(repo=repo, overrides_list=chosen, **more)
        found.config_overrides = values
        found.overrides.config_overrides = values
        return found

    return remembered


def choices(group: str) -> list[str]:
    """The names in a group of `conf/`, such as `model/prior`."""
    return sorted(file.stem for file in (conf_folder() / group).glob("*.yaml"))


def priors() -> list[str]:
    """Those of `model/prior` that a plain VAE may have: not p(z | c), whose tests are
    `test_conditions`.
    """
    return [name for name in choices("model/prior") if name != "conditional_normal"]
