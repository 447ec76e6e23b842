"""The words of a run and a command: lines for the person at the terminal, and bad input as one
sentence.
"""

import errno
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from hydra.errors import InstantiationException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from jensen.base.errors import InputError
from jensen.callbacks.words import leads, note, rank, say, show
from jensen.run.typos import arguments, choices_with, did_you_mean

__all__ = [
    "FULL",
    "explain",
    "leads",
    "misconfigured",
    "note",
    "quieten",
    "rank",
    "said",
    "say",
    "show",
    "warnings_noted",
]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Numbers of an OSError that room on another disk would mend."""

_LACKING = re.compile(r"Interpolation key '([\w.]+)' not found")
_UNKNOWN_METRIC = re.compile(
    r"Early stopping conditioned on metric `(.*?)` which .* following: (.*)"
)


@contextmanager
def warnings_noted() -> Iterator[None]:
    """Python's warnings are for the run's log too, beside the terminal."""
    show = warnings.showwarning

    def shown(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        show(message, category, filename, lineno, file, line)
        note(f"{category.__name__}: {message} ({filename}:{lineno})")

    warnings.showwarning = shown
    try:
        yield
    finally:
        if warnings.showwarning is shown:
            warnings.showwarning = show


def said(error: BaseException) -> str:
    """The first line of what an error says; its class where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def misconfigured() -> tuple[type[Exception], ...]:
    """The class of what Lightning refuses; none until Lightning is loaded, which takes seconds."""
    module: Any = sys.modules.get("lightning_fabric.utilities.exceptions")
    return (module.MisconfigurationException,) if module else ()


def explain(error: BaseException) -> str | None:
    """The sentence of the InputError that `error` is or was caused by; a parameter in front gets
    its whole key.

    Of a value that cannot be resolved, or from which nothing can be made, it is one that is written
    here.
    """
    if (sentence := _within(error)) is not None:
        return sentence
    if isinstance(error, RuntimeError) and (found := _UNKNOWN_METRIC.match(said(error))):
        return (
            f"the monitor of EarlyStopping is {found[1]}: expected one of what a validation gives,"
            f" {found[2].replace('`', '')}"
        )
    if isinstance(error, misconfigured()):
        return f"the trainer refuses this ({said(error)}): expected settings that go together; change those that it names"
    if isinstance(error, ModuleNotFoundError):
        return f"a package is missing ({said(error)}): expected it beside jensen; install it, or leave out what needs it"
    return None


def lacking(error: OmegaConfBaseException) -> tuple[str, str]:
    """The group and the key that a value is said to be that of, and that is not there; else empty."""
    found = _LACKING.match(said(error))
    group, _, key = found[1].rpartition(".") if found else ("", "", "")
    return group, key


def _lacking(error: OmegaConfBaseException) -> str:
    """The sentence for a key that is said to be that of another, where choices of a group have that
    one and the choice that was made has not; else empty.
    """
    place, key = lacking(error)
    group, _, within = place.partition(".")
    holders = choices_with(group, within) if within else []  # they hold another choice of the group
    if not (having := [each for each in choices_with(group, key) if each not in holders]):
        return ""
    override = f"{group}@{place}" if within else group
    return (
        f"{error.full_key} is that of {place}.{key}, and there is none: expected a choice of {group}"
        f" that has it; take {override}={' or '.join(having)}"
    )


def _within(error: BaseException) -> str | None:
    """`explain` of an error, or of what caused it, but for the errors of libraries."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is not set: expected a value; add {error.full_key}=..."
    if isinstance(error, OmegaConfBaseException):
        return _lacking(error) or (
            f"{error.full_key} cannot be resolved ({said(error)}): expected a value, or a key that"
            " has one"
        )
    cause = error.__cause__
    sentence = _within(cause) if cause is not None else None
    if not isinstance(error, InstantiationException):
        return sentence
    # Of a cause from OmegaConf the message has a key of its own, before that of the part.
    key = (
        str(error).rpartition("full_key: ")[2].strip().removeprefix("algorithm.")
        if "full_key: " in str(error)
        else ""
    )
    if sentence is None:
        target = re.search("target '([^']*)'", str(error))
        what = target[1] if target else "its _target_"
        if str(error).startswith("Error locating target"):
            return (
                f"{key}._target_ is {what}, which cannot be found ({_of_import(cause)}): expected"
                " the name of a class or function of a module that is there; correct it"
            )
        return (
            f"{key} cannot be made ({said(cause or error)}): expected values that {what} takes; see"
            f" its documentation{_argument_meant(str(cause), what)}"
        )
    return f"{key}.{sentence}" if key and sentence.split(" ")[0].isidentifier() else sentence


def _argument_meant(said: str, target: str) -> str:
    """`; did you mean ...?` where a message says that `target` takes no argument of a name."""
    found = re.search(r"unexpected keyword argument '(\w+)'", said)
    return did_you_mean(found[1], arguments(target)) if found else ""


def _of_import(error: BaseException | None) -> str:
    """The cause below hydra's own line, such as `ModuleNotFoundError("No module named 'x'")`,
    without the class.
    """
    lines = str(error).strip().splitlines()
    found = re.search(r"[\"'](.*)[\"']\)?$", lines[1]) if len(lines) > 1 else None
    return found[1] if found else said(error or ValueError())


def quieten() -> None:
    """Silences what Lightning says that is no news or does not hold here."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("callbacks.model_summary", "profilers.profiler"):  # what they say was asked for
        logging.getLogger(f"pytorch_lightning.{name}").setLevel(logging.INFO)
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
