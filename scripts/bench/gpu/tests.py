"""tests/test_cuda.py, but for what is slow."""

import subprocess
import sys
import time
from collections.abc import Callable

import alone  # noqa: F401


def main(report: Callable[..., None], device: str, tiny: bool) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    command += ["-m", "not slow", "--durations=5", "tests/test_cuda.py"]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if " FAILED" in line or line.startswith(("FAILED", "ERROR")):
            report(name="test", said=line.rstrip()[:300])
    code = process.wait()
    report(
        name="tests/test_cuda.py",
        exit=code,
        seconds=round(time.perf_counter() - begin, 1),
        said=lines[-1] if lines else "",
    )
    if code:
        report(name="output", said="\n".join(lines)[-6000:])
