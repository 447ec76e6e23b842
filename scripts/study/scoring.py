"""The scores and the codes of one run, in a process that scores one after another."""

import traceback
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from plan import SCORES, TREES

from jensen.base.errors import InputError
from jensen.evaluate import evaluate
from jensen.launch.console import quoted
from jensen.run.compose import compose
from jensen.run.record import get_json


def score(run: Path, codes: Path) -> str:
    """`python -m jensen.evaluate run=RUN` with the scores of the plan, and the run's codes in an npz
    file; the reason why there are none, or nothing.
    """
    kept = f"_target_:jensen.encode.write_codes,_partial_:true,out:{quoted(codes)}"
    return _evaluated(run, codes, [*SCORES, f"+diagnostics.encode={{{kept}}}"])


def grow(run: Path, codes: Path) -> str:
    """The same of what trees are grown for."""
    return _evaluated(run, codes, list(TREES))


def _evaluated(run: Path, codes: Path, words: list[str]) -> str:
    codes.parent.mkdir(parents=True, exist_ok=True)
    with (
        codes.with_suffix(".log").open("a") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        try:
            evaluate(compose("evaluate", [f"run={quoted(run)}", *words]))
        except InputError as error:
            return str(error)
        except Exception as error:  # one run does not end the study
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"
    return ""


def is_scored(run: Path, codes: Path) -> bool:
    """Tell whether `score` has come to its end for this run's last step."""
    return codes.is_file() and "encode" in _computed(run)


def is_grown(run: Path) -> bool:
    return "dci_boost20" in _computed(run)


def _computed(run: Path) -> Mapping[str, Any]:
    """What has been computed of the run's last step, by the name of the diagnostic."""
    found = get_json(run / "scores.json")
    last = get_json(run / "finished.json").get("step")
    return found.get("diagnostics", {}) if found.get("step") == last else {}
