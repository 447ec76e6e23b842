"""The start of a command: where its configuration lies, and bad input as one sentence instead of a
traceback.
"""

import argparse
import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any, NoReturn
from unittest.mock import patch

import hydra
from hydra._internal import utils as hydras
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

import jensen
from jensen.base import signals
from jensen.base.errors import InputError, RefusedError, SaidError
from jensen.base.signals import Stopped
from jensen.launch import grid, optuna
from jensen.launch.help import show_help
from jensen.run.additions import LISTS, gathered, untaken
from jensen.run.compose import given_words
from jensen.run.conf import conf_folder
from jensen.run.typos import did_you_mean, explain_overrides, unread
from jensen.run.words import FULL, explain, misconfigured, note, say, warnings_noted


def program(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Makes `main(cfg)` a command whose configuration is `conf/<config_name>.yaml` with the command
    line's overrides.
    """

    def wrap(main: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(main)
        def job(cfg: DictConfig) -> Any:
            try:
                with one_sentence(), warnings_noted():
                    _refuse_unread(cfg)
                    return main(cfg)
            except Stopped as stopped:
                if stopped.sentence:
                    say(stopped.sentence)
                raise
            except Exception as error:
                compact = isinstance(error, CompactHydraException)
                elsewhere = isinstance(error.__cause__, SaidError)
                # Of a sweep's jobs Hydra prints nothing but the first error.
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    if elsewhere:
                        raise
                    logging.getLogger("jensen").error(
                        "failed: %s", error, exc_info=None if compact else error
                    )
                    raise
                if not isinstance(error.__cause__, RefusedError):  # nothing of theirs is changed
                    note(f"failed: {error}", None if compact else error)
                if elsewhere and not _full_error():
                    sys.exit(1)
                if compact and not _full_error():
                    end(str(error))
                raise

        command = hydra.main(
            version_base="1.3", config_path=str(conf_folder()), config_name=config_name
        )(job)

        def called() -> None:
            if sys.argv[1:] == ["--version"]:
                print(f"jensen {jensen.__version__}")
                return
            signals.unwind_at_interrupt()
            # tqdm's own is a semaphore of several processes too: one that is killed leaves it behind,
            # and Python says so after whatever a sweep says of that job.
            tqdm.set_lock(RLock())
            sys.argv[1:] = gathered([*map(readable, sys.argv[1:])])
            if {"--help", "-h"} & {*sys.argv}:
                show_help(config_name, sys.argv[1:])
                return
            grid.register()
            overrides = _parsed(config_name).overrides
            if "hydra/sweeper=optuna" in overrides:  # whose keys Hydra could not even merge
                end(optuna.NOT_OURS)
            report = functools.partial(_report, config_name, overrides, hydras.run_and_report)
            with patch.object(hydras, "run_and_report", report):
                command()

        return called

    return wrap


def _full_error() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def end(sentence: str) -> NoReturn:
    """Ends the command, which was asked for something that cannot be."""
    print(sentence, file=sys.stderr)
    sys.exit(1)


def _report(
    name: str, overrides: list[str], report: Callable[..., Any], function: Callable[[], Any]
) -> Any:
    """`function`, of Hydra, by its own `report` of errors; those of the configuration as one
    sentence.
    """

    def called() -> Any:
        try:
            return function()
        except (HydraException, ValueError) as error:
            if _full_error() or not isinstance(error, CompactHydraException | ValueError):
                raise
            if sentence := _of_configuration(name, overrides, error):
                end(sentence)
            raise

    return report(called)


def _of_configuration(name: str, overrides: list[str], error: Exception) -> str:
    """The sentence for what Hydra says of a configuration; empty where `error` is another's."""
    if isinstance(error, CompactHydraException):
        cause = error.__cause__
        ours = isinstance(cause, InputError) or type(error) is CompactHydraException
        return str(error) if ours else explain_overrides(name, overrides, error)
    return str(error) if str(error).startswith("Config group override") else ""


def _refuse_unread(cfg: DictConfig) -> None:
    """Refuse what a + added and nothing would read, and nobody say so: a misspelt key, an addition
    that was not taken.
    """
    settings = HydraConfig.get()
    words = given_words(settings)
    if sentence := unread(cfg, words, settings.runtime.choices) or untaken(words, cfg):
        raise InputError(sentence)


def _parsed(name: str) -> argparse.Namespace:
    """The command line by Hydra's parser; what that refuses is a sentence."""
    parser = hydras.get_args_parser()
    flags = [flag for action in parser._actions for flag in action.option_strings]
    options = sorted(flag for flag in flags if flag.startswith("--"))

    def refuse(message: str) -> NoReturn:
        words = message.removeprefix("unrecognized arguments: ").split()
        word = words[0]
        bare = word.lstrip("-")
        if word.startswith("-") and "=" in bare and not word.startswith("--config"):
            end(f"{word} is no option: expected an override, without dashes; write {bare}")
        if message.startswith("unrecognized") and not word.startswith("-"):
            end(f"{word} stands behind an option: expected options, such as -m, in front of all")
        known = ", ".join(options)
        if message.startswith("unrecognized") and word.startswith("-"):
            end(f"{word} is no option: expected one of {known}{did_you_mean(word, options)}")
        end(f"the command line cannot be read ({message}): see python -m jensen.{name} --help")

    with patch.object(parser, "error", refuse):
        found = parser.parse_args()
    if found.multirun and name != "train":
        rest = ", or sweep=FOLDER for all runs of a sweep" if name == "evaluate" else ""
        end(
            f"-m has jensen.train make many runs, and jensen.{name} makes none: expected one thing to do"
            f" at a time{rest}; leave -m out"
        )
    modes = ("run", "multirun", "cfg", "info", "shell_completion")
    given = [f"--{mode.replace('_', '-')}" for mode in modes if getattr(found, mode)]
    if len(given) > 1:
        end(f"{' and '.join(given)} are given: expected one of them at a time; leave one out")
    if found.resolve and not found.cfg:
        end("--resolve is given without --cfg: expected both; write --cfg job --resolve")
    return found


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
    if key in LISTS and value == "null":  # as most people say: none of several is the empty list
        return f"{key}=[]"
    if key in _PATHS and value not in ("", "null"):
        plain = not re.fullmatch(r"'.*'|\".*\"", value)
        swept = key not in _ONE_PATH and ("," in value or re.fullmatch(r"\w+\(.*\)", value))
        return f"{key}={quoted(value)}" if plain and not swept else argument
    return f"{key}={quoted(value)}" if "=" in value and not {*value} & {*"'\"[](){}"} else argument


def quoted(value: object) -> str:
    """A value of an override."""
    # Hydra's grammar: a backslash is itself, but for those before a quote.
    escaped = re.sub(
        r"(\\*)('|$)", lambda found: found[1] * 2 + (r"\'" if found[2] else ""), str(value)
    )
    return f"'{escaped}'"


def _refusals() -> tuple[type[Exception], ...]:
    """The classes of errors that are bad input."""
    ours = (InputError, InstantiationException, ModuleNotFoundError, OmegaConfBaseException)
    return (*ours, *misconfigured())


@contextmanager
def one_sentence() -> Iterator[None]:
    """Makes bad input an error that Hydra prints without a traceback (with one under
    HYDRA_FULL_ERROR=1).
    """
    try:
        yield
    except _refusals() as error:
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
