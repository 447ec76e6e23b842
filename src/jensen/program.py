"""How a command starts: where its configuration lies, and bad input as one sentence instead of a traceback."""

import errno
import functools
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from jensen.base import signals
from jensen.base.errors import InputError
from jensen.base.signals import Stopped

OmegaConf.register_new_resolver("if", lambda condition, yes, no: yes if condition else no, replace=True)  # ${if:${fast},2,9}


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Of an OSError, what room on another disk would mend."""


def conf_folder() -> Path:
    """`conf/` inside the installed package, else beside `src/` in a checkout."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def program(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Makes `main(cfg)` a command whose configuration is `conf/<config_name>.yaml` with the command line's overrides."""

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
                    logging.getLogger("jensen").error("failed: %s", error, exc_info=None if compact else error)
                raise

        command = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)(job)

        def called() -> None:
            signals.unwind_at_interrupt()
            sys.argv[1:] = map(readable, sys.argv[1:])
            command()

        return called

    return wrap


_ONE_PATH = ("run", "codes", "out", "sweep", "hydra.run.dir", "hydra.sweep.dir")
_PATHS = (*_ONE_PATH, "data.root", "data.path")
"""Keys whose values are names of files, in which every character may be; of the last two a sweep may name several."""


def readable(argument: str) -> str:
    """An argument as Hydra's grammar wants it: a folder of a sweep, `run=runs/beta=4_seed=0`, only in quotes."""
    key, _, value = argument.partition("=")
    if key in _PATHS and value not in ("", "null"):
        plain = not re.fullmatch(r"'.*'|\".*\"", value)
        swept = key not in _ONE_PATH and ("," in value or re.fullmatch(r"\w+\(.*\)", value))
        return f"{key}={quoted(value)}" if plain and not swept else argument
    return f"{key}={quoted(value)}" if "=" in value and not {*value} & {*"'\"[](){}"} else argument


def quoted(value: object) -> str:
    """As the value of an override."""
    # Hydra's grammar: a backslash is itself, but for those before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + (r"\'" if found[2] else ""), str(value))
    return f"'{escaped}'"


@contextmanager
def one_sentence() -> Iterator[None]:
    """Makes bad input an error that Hydra prints without a traceback (with one under HYDRA_FULL_ERROR=1)."""
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
        raise CompactHydraException(sentence) from (None if isinstance(error, OmegaConfBaseException) else error)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise CompactHydraException(
            f"{error.filename or 'a file'} cannot be written ({error.strerror}): expected room in a folder of yours; make room"
            " and run the same command again, it continues"
        ) from error


def quieten() -> None:
    """Silences what Lightning says that is no news or does not hold here."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # batches are gathered from memory: workers would only copy them
        ".*your dataloader is not resumable.*",  # it is: the order of the data follows from the step (data/order.py)
        ".*sync_dist=True.*",  # what is logged is the same on all ranks already
        ".*smaller than the logging interval.*",  # that is of an epoch; logging goes by steps
        ".*callbacks used to create the checkpoint.*",  # a run may go on with others
        ".*`srun` command is available.*",  # a run on a machine that has SLURM need not be a job of it
        ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning 2.6 under torch 2.15
    ):
        warnings.filterwarnings("ignore", message)


def explain(error: BaseException) -> str | None:
    """The sentence of the InputError that `error` is or was caused by; a parameter in front gets its whole key.

    Of a value that cannot be resolved, or from which nothing can be made, it is one that is written here.
    """
    if (sentence := _within(error)) is not None:
        return sentence
    if isinstance(error, MisconfigurationException):
        return f"the trainer refuses this ({said(error)}): expected settings that go together; change those that it names"
    if isinstance(error, ModuleNotFoundError):
        return f"a package is missing ({said(error)}): expected it beside jensen; install it, or leave out what needs it"
    return None


def _within(error: BaseException) -> str | None:
    """`explain` of an error, or of what caused it, but for the errors of libraries."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is not set: expected a value; add {error.full_key}=..."
    if isinstance(error, OmegaConfBaseException):
        return f"{error.full_key} cannot be resolved ({said(error)}): expected a value, or a key that has one"
    cause = error.__cause__
    sentence = _within(cause) if cause is not None else None
    if not isinstance(error, InstantiationException):
        return sentence
    # Of a cause from OmegaConf the message has a key of its own, before that of the part.
    key = str(error).rpartition("full_key: ")[2].strip().removeprefix("algorithm.") if "full_key: " in str(error) else ""
    if sentence is None:
        target = re.search("target '([^']*)'", str(error))
        what = target[1] if target else "its _target_"
        if str(error).startswith("Error locating target"):
            return (
                f"{key}._target_ is {what}, which cannot be found ({_of_import(cause)}): expected the name of a class or"
                " function of a module that is there; correct it"
            )
        return f"{key} cannot be made ({said(cause or error)}): expected values that {what} takes; see its documentation"
    return f"{key}.{sentence}" if key and sentence.split(" ")[0].isidentifier() else sentence


def _of_import(error: BaseException | None) -> str:
    """What stands below hydra's own line, such as `ModuleNotFoundError("No module named 'x'")`, without the class."""
    lines = str(error).strip().splitlines()
    found = re.search(r"[\"'](.*)[\"']\)?$", lines[1]) if len(lines) > 1 else None
    return found[1] if found else said(error or ValueError())


def said(error: BaseException) -> str:
    """Of what an error says; its class where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


class RunLog(logging.FileHandler):
    """`train.log` of a run. Where that is a link nothing is written, since the training is refused in a moment."""

    def _open(self) -> TextIOWrapper:
        try:
            descriptor = os.open(
                self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666
            )
        except OSError:
            if not Path(self.baseFilename).is_symlink():
                raise
            descriptor = os.open(os.devnull, os.O_WRONLY)
        return os.fdopen(descriptor, "a")


def leads() -> bool:
    """Whether this process is rank zero, the one that writes; of ranks that are yet to be started, it is the first."""
    return getattr(rank_zero_only, "rank", 0) == 0


@rank_zero_only
def say(line: str) -> None:
    """One line for the person at the terminal, from one rank."""
    print(f"jensen: {line}", flush=True)
