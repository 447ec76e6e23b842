"""The records of a run, as JSON: whole or not at all, and read as nothing where it is torn."""

import json
from pathlib import Path
from typing import Any

from jensen.base.errors import check_choice
from jensen.base.files import write

_LARGEST = 1 << 24
"""Bytes of a record that is read."""


def put(path: Path, text: str) -> None:
    """Raises:
    InputError: the file cannot be written; what was there is there still.
    """
    write(path, lambda file: file.write(text.encode()))


def put_json(path: Path, entry: dict[str, Any]) -> None:
    """Do as `put`."""
    put(path, json.dumps(entry, indent=1) + "\n")


def get_json(path: Path) -> dict[str, Any]:
    """Empty where there is no such file, or one that is cut short, or that no run wrote: a link,
    nested deep, or huge.
    """
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST:
            return {}
        entry = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


def maximised(maximise: str | None, results: dict[str, float]) -> float | None:
    """The result that a sweeper is to raise; None where `maximise` names none."""
    if maximise is None:
        return None
    check_choice("maximise", maximise, [*results])
    return results[maximise]


def put_scores(path: Path, entry: dict[str, Any]) -> list[str]:
    """Writes scores; diagnostics of the same subject that are there already are kept. Returns the
    names of those of another, which are gone.

    In a run's own folder they are of that run, wherever it lay when they were computed.
    """
    before = get_json(path)
    there = before.get("diagnostics", {})
    own = path.parent.resolve() == Path(entry.get("run") or "/").resolve()
    same = _subject(before, own) == _subject(entry, own)
    kept = there if same else {}
    put_json(path, entry | {"diagnostics": kept | entry["diagnostics"]})
    return [] if same else [name for name in there if name not in entry["diagnostics"]]


def _subject(entry: dict[str, Any], own: bool) -> list[Any]:
    run = entry.get("run")
    return [
        run and (own or Path(run).resolve()),
        *(entry.get(key) for key in ("codes", "checkpoint", "step", "split", "version")),
    ]
