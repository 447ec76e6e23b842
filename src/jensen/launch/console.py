"""The start of a command: where its configuration lies, and bad input as one sentence instead of a
traceback.
"""

import functools
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import jensen
from jensen.base import signals
from jensen.base.errors import InputError
from jensen.base.signals import Stopped
from jensen.run.conf import conf_folder
from jensen.run.words import FULL, explain, say


def program(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Makes `main(cfg)` a command whose configuration is `conf/<config_name>.yaml` with the command
    line's overrides.
    """

    def wrap(main: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(main)
        def job(cfg: DictConfig) -> Any:
            try:
                with one_sentence():
                    return main(cfg)
            except Stopped as stopped:
                if stopped.sentence:
                    say(stopped.sentence)
                raise
            except Exception as error:
                # Of a sweep's jobs Hydra prints nothing but the first error.
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    compact = isinstance(error, CompactHydraException)
                    logging.getLogger("jensen").error(
                        "failed: %s", error, exc_info=None if compact else error
                    )
                raise

        command = hydra.main(
            version_base="1.3", config_path=str(conf_folder()), config_name=config_name
        )(job)

        def called() -> None:
            if sys.argv[1:] == ["--version"]:
                print(f"jensen {jensen.__version__}")
                return
            signals.unwind_at_interrupt()
            sys.argv[1:] = map(readable, sys.argv[1:])
            command()

        return called

    return wrap


_ONE_PATH = ("run", "codes", "out", "sweep", "hydra.run.dir", "hydra.sweep.dir")
_PATHS = (*_ONE_PATH, "data.root", "data.path")
"""Keys whose values are names of files, in which every character may be; of the last two a sweep
may name several.
"""


def readable(argument: str) -> str:
    """An argument as Hydra's grammar wants it: a folder of a sweep, `run=runs/beta=4_seed=0`, only
    in quotes.
    """
    key, _, value = argument.partition("=")
    if key in _PATHS and value not in ("", "null"):
        plain = not re.fullmatch(r"'.*'|\".*\"", value)
        swept = key not in _ONE_PATH and ("," in value or re.fullmatch(r"\w+\(.*\)", value))
        return f"{key}={quoted(value)}" if plain and not swept else argument
    return f"{key}={quoted(value)}" if "=" in value and not {*value} & {*"'\"[](){}"} else argument


def quoted(value: object) -> str:
    """As the value of an override."""
    # Hydra's grammar: a backslash is itself, but for those before a quote.
    escaped = re.sub(
        r"(\\*)('|$)", lambda found: found[1] * 2 + (r"\'" if found[2] else ""), str(value)
    )
    return f"'{escaped}'"


@contextmanager
def one_sentence() -> Iterator[None]:
    """Makes bad input an error that Hydra prints without a traceback (with one under
    HYDRA_FULL_ERROR=1).
    """
    try:
        yield
    except (
        InputError,
        InstantiationException,
        MisconfigurationException,
        ModuleNotFoundError,
        OmegaConfBaseException,
    ) as error:
        sentence = explain(error)
        if sentence is None:
            raise
        # Of a cause from OmegaConf Hydra would print the message too.
        raise CompactHydraException(sentence) from (
            None if isinstance(error, OmegaConfBaseException) else error
        )
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise CompactHydraException(
            f"{error.filename or 'a file'} cannot be written ({error.strerror}): expected room in"
            " a folder of yours; make room and run the same command again, it continues"
        ) from error
