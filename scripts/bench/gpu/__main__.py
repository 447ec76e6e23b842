"""What a GPU makes of jensen, in one command: tests, training steps, stacks, EM, two ranks.

    python scripts/bench/gpu [--sections tests,conv,em] [--seconds 285] [--out gpu.json]
                             [--device cuda] [--tiny]

Each section runs in a process of its own, with its own limit, and hands over a record at a time:
the file holds whatever was measured until the command was cut. It names the device, the versions,
the date and the command. A table of the records is printed last. `--device cpu --tiny` tries the
sections out where there is no GPU; what it measures says nothing.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]


class Section(NamedTuple):
    """A module beside this one, the arguments of its `main`, and the seconds it may take."""

    module: str
    arguments: dict[str, Any]
    seconds: int


SECTIONS = {
    "machine": Section("machine", {}, 30),
    "conv": Section("training", {"model": "conv"}, 75),
    "mlp": Section("training", {"model": "mlp"}, 60),
    "compiled": Section("training", {"model": "conv", "compiled": True}, 100),
    "mlp_compiled": Section("training", {"model": "mlp", "compiled": True}, 80),
    "tests": Section("tests", {}, 120),
    "em": Section("mixtures", {"names": "ABCE"}, 60),
    "em_large": Section("mixtures", {"names": "GS"}, 60),
    "ranks": Section("ranks", {}, 60),
    "stack": Section("stacks", {}, 90),
    "stack_compiled": Section("stacks", {"compiled": True}, 120),
    "convolutions": Section("convolutions", {}, 90),
    "streamed": Section("streamed", {}, 60),
    "kernels": Section("kernels", {}, 150),
    "strides": Section("strides", {}, 200),
    "sweep": Section("sweep", {}, 240),
}
_LEAST = 8
"""Seconds that a section is not begun with less of."""


def child(name: str, options: argparse.Namespace) -> None:
    """Run one section; each record is a line of JSON."""
    from importlib import import_module

    def report(**record: Any) -> None:
        print("RECORD " + json.dumps(record), flush=True)

    section = SECTIONS[name]
    main = import_module(section.module).main
    main(report, device=options.device, tiny=options.tiny, **section.arguments)


def run(name: str, options: argparse.Namespace, limit: float, save: Any) -> None:
    """A section in a process of its own, ended at its limit; `save` takes each record."""
    command = [sys.executable, "-W", "ignore", str(HERE), "--child", name]
    command += ["--device", options.device, *(["--tiny"] if options.tiny else [])]
    paths = [str(ROOT / "src"), str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    own = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    if options.device == "cpu":
        own["CUDA_VISIBLE_DEVICES"] = ""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=own,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    words: list[str] = []
    reader = threading.Thread(target=lambda: words.extend(process.stderr), daemon=True)
    reader.start()
    cut = threading.Timer(limit, lambda: os.killpg(process.pid, signal.SIGKILL))
    cut.start()
    try:
        for line in process.stdout:
            if line.startswith("RECORD "):
                save(name, json.loads(line.removeprefix("RECORD ")))
            elif options.verbose:
                print(line, end="")
        code = process.wait()
    finally:
        cut.cancel()
        if process.poll() is None:  # this command is ended, by Ctrl-C or `timeout`
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    reader.join(5)
    seconds = round(time.perf_counter() - begin, 1)
    end: dict[str, Any] = {"name": "section", "seconds": seconds, "ended": "well"}
    if code:
        end["ended"] = f"cut after {limit:.0f} s" if code == -9 else f"failed, exit {code}"
        if code != -9:
            end["said"] = "".join(words)[-1500:]
    save(name, end)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sections", default=",".join(SECTIONS), help="names with commas between")
    parser.add_argument("--seconds", type=float, default=285, help="for all of them")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="sizes that try the sections out")
    parser.add_argument("--verbose", action="store_true", help="what the sections print")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options)
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    names = options.sections.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        parser.error(f"--sections has {', '.join(unknown)}: expected some of {', '.join(SECTIONS)}")
    found: dict[str, Any] = {
        "command": " ".join(["python scripts/bench/gpu", *sys.argv[1:]]),
        "began": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "sections": {},
    }

    def save(name: str, record: dict[str, Any]) -> None:
        found["sections"].setdefault(name, []).append(record)
        new = options.out.with_name(options.out.name + ".new")
        new.write_text(json.dumps(found, indent=1) + "\n")
        new.replace(options.out)
        print(f"{name:9} {_words(record)}", flush=True)

    begin = time.perf_counter()
    for name in names:
        left = options.seconds - (time.perf_counter() - begin)
        if left < _LEAST:
            save(name, {"name": "section", "ended": f"not begun, {left:.0f} s left"})
            continue
        limit = SECTIONS[name].seconds * (5 if options.tiny else 1)  # a small machine's
        run(name, options, min(left, limit), save)
    print(f"\n{time.perf_counter() - begin:.0f} s; {options.out}")
    for name, records in found["sections"].items():
        for record in records:
            print(f"{name:9} {_words(record)}")


def _words(record: dict[str, Any]) -> str:
    """A record as a line: its name, then its numbers."""

    def short(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    rest = [f"{key} {short(value)}" for key, value in record.items() if key != "name"]
    return f"{record.get('name', ''):24} {', '.join(rest)}"


if __name__ == "__main__":
    main()
