"""The scores and the codes of one run, in a process that scores one after another."""

import os
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch

from jensen.base.errors import InputError
from jensen.data.source import shared
from jensen.evaluate import evaluate
from jensen.launch.console import quoted
from jensen.run.compose import compose
from jensen.run.record import get_json


def score(run: Path, codes: Path, words: list[str]) -> str:
    """`python -m jensen.evaluate run=RUN` with overrides, and the run's codes in an npz file; why
    there are none, or nothing.
    """
    torch.set_num_threads(1)
    own = [
        f"run={quoted(run)}",
        *words,
        f"+diagnostics.encode={{_target_:jensen.encode.write_codes,_partial_:true,out:{quoted(codes)}}}",
    ]
    codes.parent.mkdir(parents=True, exist_ok=True)
    with (
        codes.with_suffix(".log").open("w") as log,
        redirect_stdout(log),
        redirect_stderr(log),
        shared(),
    ):
        try:
            evaluate(compose("evaluate", own))
        except InputError as error:
            return str(error)
        except Exception as error:  # one run does not end the study
            print(repr(error), file=sys.stderr)
            return f"{type(error).__name__}: {error}"
    return ""


def end_with_parent() -> None:
    """Have this process end with the one that started it, however that ended."""
    first = os.getppid()

    def watch() -> None:
        while os.getppid() == first:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def is_scored(run: Path, codes: Path) -> bool:
    """Tell whether `score` has come to its end for this run's last step."""
    found = get_json(run / "scores.json")
    step = get_json(run / "finished.json").get("step")
    return (
        "encode" in found.get("diagnostics", {}) and found.get("step") == step and codes.is_file()
    )
