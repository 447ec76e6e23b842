"""The answers of a command that need nothing of what trains: torch and Lightning take seconds to
import.
"""

import argparse
import os
import sys

_CONFIGURATION = (["--cfg", "job"], ["-c", "job"])


def answer(command: str) -> None:
    """Print the help, the version or the configuration that the command line asks for, and end.

    Raises:
        SystemExit: it was asked for, and the process ends; otherwise nothing is done.
    """
    words = sys.argv[1:]
    pairs = [words[i : i + 2] for i in range(len(words))]
    asked = {"--help", "-h", "--version"} & {*words} or any(
        pair in pairs for pair in _CONFIGURATION
    )
    if not asked:
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
        SystemExit: it was asked for, or there are other words.
    """
    name = f"python -m jensen.{command}"
    parser = argparse.ArgumentParser(name, description=description)
    if unknown := parser.parse_known_args()[1]:
        sys.exit(f"{unknown[0]} is no option of {name}: expected none; leave it out")
