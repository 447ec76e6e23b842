"""A command as a user's shell runs it, `python -m jensen.train ...`, in a process of its own,
without the seconds of importing.

The process is forked from one that has imported the package and done nothing else. What differs
from a fresh interpreter is what happens while it imports: a test of that, or of an environment that
imports read, starts `sys.executable` itself.
"""

import atexit
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path

COMMANDS = ("train", "evaluate", "encode", "report", "doctor")
SERVER = get_context("forkserver")
SERVER.set_forkserver_preload([f"jensen.{command}" for command in COMMANDS])


def run(
    module: str, *words: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE WORDS` in the folder `cwd`, to its end; `env` is added to the environment,
    less pytest's own.
    """
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))
    }
    with tempfile.TemporaryDirectory() as said:
        out = Path(said, "out")
        err = Path(said, "err")
        process = SERVER.Process(
            target=_live, args=(module, words, str(cwd), own | dict(env or {}), str(out), str(err))
        )
        process.start()
        process.join(timeout)
        late = process.exitcode is None
        if late:
            process.kill()
            process.join()
        text = [file.read_text() if file.exists() else "" for file in (out, err)]
    if late:
        raise subprocess.TimeoutExpired([module, *words], timeout, *text)
    status: int = process.exitcode  # type: ignore[assignment]
    process.close()
    return subprocess.CompletedProcess([module, *words], status, *text)


def _live(
    module: str, words: tuple[str, ...], cwd: str, env: dict[str, str], out: str, err: str
) -> None:
    """The process: what Python does between its start and its end."""
    for descriptor, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = [cwd, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["-m", *words]
    warnings.resetwarnings()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if "ResourceWarning" in env.get("PYTHONWARNINGS", ""):
        warnings.filterwarnings("error", category=ResourceWarning)
    sys.modules.pop(module, None)  # imported as __main__ alone, as it would be
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
