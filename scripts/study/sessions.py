"""The record of a study's folder: what it is of, and each session that worked in it."""

import os
import platform
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import jensen
from jensen.base.errors import InputError
from jensen.run.record import get_json, put_json

ROOT = Path(__file__).resolve().parents[2]
MARK = "study.json"


@contextmanager
def session(out: Path, asked: dict[str, Any], given: list[str]) -> Iterator[dict[str, Any]]:
    """A session in a folder, written down at its start and its end; what is put into the record is
    too.

    Args:
        asked: what all sessions in one folder have in common.
        given: the words of the command.

    Raises:
        InputError: the folder is of another study, or another session works in it.
    """
    check(out, asked)
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"--out {out} is being worked in by another scripts/study: expected a folder of its"
            " own, or to wait for that one's end"
        ) from error
    with lock:
        mark = get_json(out / MARK) or dict(asked)
        record: dict[str, Any] = {
            "began": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            "command": shlex.join(["python", "scripts/study", *given]),
            **machine(),
        }
        mark["sessions"] = [*mark.get("sessions", []), record]
        put_json(out / MARK, mark)
        begin = time.monotonic()
        try:
            yield record
        finally:
            record["seconds"] = round(time.monotonic() - begin, 1)
            put_json(out / MARK, mark)


def check(out: Path, asked: dict[str, Any]) -> None:
    """Refuse a folder of another size, version or other overrides, and one that holds something
    else.
    """
    mark = get_json(out / MARK)
    if not mark:
        if out.exists() and any(path.name != ".lock" for path in out.iterdir()):
            raise InputError(
                f"--out {out} holds files and no {MARK}: expected a folder of scripts/study, or a"
                " new one"
            )
        return
    for key, value in asked.items():
        if mark.get(key) != value:
            name = {"words": "overrides", "rounds": "seeds"}.get(key, key)
            found = shown(mark.get(key))
            raise InputError(
                f"--out {out} is of {name} {found}, and this is {name} {shown(value)}: expected the"
                " same in one folder; choose another --out"
            )


def shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return str(value)


def machine() -> dict[str, Any]:
    """The commit, the versions and the device."""
    import torch

    found = {"jensen": jensen.__version__, "python": platform.python_version()}
    for name in ("torch", "pytorch-lightning", "scikit-learn", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    cores = len(os.sched_getaffinity(0))
    return {"commit": commit(), "versions": found, "device": device, "cores": cores}


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def commit() -> str:
    """The commit that $JENSEN_COMMIT names, else that of this checkout, with a + where files differ
    from it.
    """
    if named := os.environ.get("JENSEN_COMMIT"):
        return named

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if not done.returncode else ""

    try:
        found = git("rev-parse", "--short", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except OSError:
        found = changed = ""
    return found + ("+" if changed else "") or "unknown"
