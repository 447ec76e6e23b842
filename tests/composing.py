"""Configurations as Hydra composes them, without its reading the same files and composing the same
words again and again.
"""

import pickle
from collections.abc import Callable, Hashable
from copy import copy
from functools import cache
from typing import Any

import omegaconf
from hydra import compose, initialize_config_dir
from hydra._internal import config_loader_impl as loader
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigSource
from omegaconf import DictConfig

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


def read_once() -> None:
    """Have Hydra read each file of `conf/`, parse each word and merge each set of choices of groups
    once in this process; what a person's own folders are part of is read anew each time.
    """
    # Hydra's search for plugins imports the sources' modules anew: the classes before are not used.
    Plugins.instance()
    for scheme in ("file", "pkg"):
        source = SourcesRegistry.instance().resolve(scheme)
        source.load_config = _once(source.load_config, _of_a_file)
    loader.create_defaults_list = _choices_once(loader.create_defaults_list)
    loader.ConfigLoaderImpl._compose_config_from_defaults_list = _once(
        loader.ConfigLoaderImpl._compose_config_from_defaults_list, _of_a_composition
    )
    loader.CachingConfigRepository.__init__ = _share
    OverridesParser.parse_rule = _once(OverridesParser.parse_rule, lambda _, *words: words)
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
    folder = str(conf_folder())
    return places if all(kind != "file" or path == folder for kind, _, path in places) else None


def _of_a_file(source: ConfigSource, config_path: str) -> Hashable:
    places = _ours(source)
    return places and (places, config_path)


def _of_a_composition(
    _: object, defaults: list[ResultDefault], repo: IConfigRepository
) -> Hashable:
    places = _ours(*repo.get_sources())
    return places and (places, repr(defaults))


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
