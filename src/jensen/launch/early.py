"""The answers of a command that need nothing of what trains: torch and Lightning take seconds to
import.
"""

import argparse
import os
import sys
from pathlib import Path

_CONFIGURATION = (["--cfg", "job"], ["-c", "job"])


def answer(command: str) -> None:
    """Print the help, the version or the configuration that the command line asks for, and end.

    Raises:
        SystemExit: it was asked for, and the process ends; torch cannot be imported; or this is another
            rank than zero of a command that has none. Otherwise nothing is done.
    """
    words = sys.argv[1:]
    pairs = [words[i : i + 2] for i in range(len(words))]
    asked = {"--help", "-h", "--version"} & {*words} or any(
        pair in pairs for pair in _CONFIGURATION
    )
    if not asked:
        _refuse_without_kernels()
        if command != "train":
            _refuse_rank(command)
        return
    from jensen.launch import naming
    from jensen.launch.console import program

    naming.register()
    try:
        program(command)(lambda cfg: None)()
        sys.stdout.flush()
    except BrokenPipeError:  # as of `| head`; Python would say so at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit()


def take_no_options(command: str, description: str | None) -> None:
    """Print the help of a command that has no configuration, and end, if the command line asks for it.

    Raises:
        SystemExit: it was asked for, there are other words, or torch cannot be imported.
    """
    name = f"python -m jensen.{command}"
    parser = argparse.ArgumentParser(name, description=description)
    if unknown := parser.parse_known_args()[1]:
        sys.exit(f"{unknown[0]} is no option of {name}: expected none; leave it out")
    _refuse_without_kernels()


def _refuse_without_kernels() -> None:
    """End where torch cannot make the folder of its kernels: it does so at its import, whether there will
    be any or not.
    """
    folder = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if folder is None:
        return
    try:
        Path(folder).absolute().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(
            f"TORCHINDUCTOR_CACHE_DIR is {folder}, which cannot be made ({error.strerror}): expected a"
            " folder that can be written; set another, or unset it"
        )


def _refuse_rank(command: str) -> None:
    """End where the environment calls this process another rank than zero, which says and writes nothing."""
    from jensen.callbacks.words import RANKS

    name = next((each for each in RANKS if each in os.environ), "")
    if name and os.environ[name] != "0":
        sys.exit(
            f"{name} is {os.environ[name]} in the environment, but jensen.{command} is one process, rank 0:"
            f" expected no other; unset {name}, or start one process alone"
        )
