"""The study: what each objective does to the latents of dSprites.

    python scripts/study [--size cpu|gpu|full] [--out FOLDER] [--minutes N] [overrides]

Trains six objectives at five strengths each with three seeds, scores every run, and writes
FOLDER/study.csv and FOLDER/report/. The same command again skips what is done and continues what was
stopped. Ctrl-C, SIGTERM and --minutes have every run save itself; what is scored by then is in the
table, and what is left is said. Overrides, such as trainer.max_steps=100, are added to all runs.
"""

import argparse
import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

if importlib.util.find_spec("jensen") is None:
    sys.exit(
        f"study: {sys.executable} has no jensen: expected the Python of an environment that has, such as"
        " .venv/bin/python after scripts/setup"
    )

import plan
import sessions
from scoring import grow, is_grown, is_scored, score

from jensen.base.errors import InputError, check_count
from jensen.launch.beside import begin, kill
from jensen.launch.parent import ENDS_WITH_PARENT

ROOT = Path(__file__).resolve().parents[2]
BEGAN = time.monotonic()


@dataclass
class Part:
    """A sweep of one objective over its strengths and some seeds."""

    name: str
    seeds: tuple[int, ...]
    process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> str:
        return plan.folder(self.name, self.seeds)

    def __str__(self) -> str:
        return f"{self.name}, seeds {', '.join(map(str, self.seeds))}"


@dataclass
class Study:
    """One session of the study in a folder, from its start to its end or its deadline."""

    out: Path
    size: plan.Size
    parts: list[Part]
    words: list[str]
    cores: int
    at_once: int
    train_until: float
    until: float
    stopped: int = 0
    waiting: list[Part] = field(default_factory=list)
    running: list[Part] = field(default_factory=list)
    refused: list[Part] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    scoring: dict[str, Future[str]] = field(default_factory=dict)
    growing: dict[str, Future[str]] = field(default_factory=dict)

    def runs(self) -> Iterator[tuple[str, Path]]:
        """The name of each run, and its folder."""
        for part in self.parts:
            for each in plan.runs(part.name, part.seeds):
                yield f"{part.folder}/{each}", self.out / "runs" / part.folder / each

    def codes(self, name: str) -> Path:
        return self.out / "codes" / f"{name}.npz"

    def run(self) -> None:
        """Train and score, until all is done or it is to stop."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        self.waiting = [part for part in self.parts if not self._is_trained(part)]
        try:
            while not self._work() and not self._over():
                self.cores = max(1, self.cores // 2)
                say(f"a process that scores was killed: going on with {self.cores}")
                for futures in (self.scoring, self.growing):
                    for name in [name for name, each in futures.items() if broken(each)]:
                        del futures[name]
        finally:
            self._end()
            self._collect()

    def _over(self) -> bool:
        return bool(self.stopped) or time.monotonic() > self.until

    def _work(self) -> bool:
        """Go on with what there is; whether that came to an end, which it does not where a process
        that scores was killed, as a system without memory does.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["scoring"])
        with ProcessPoolExecutor(self.cores, context, begin) as pool:
            try:
                while not self._over():
                    if time.monotonic() > self.train_until:
                        self._end()
                    while self.waiting and len(self.running) < self.at_once:
                        self.running.append(self._begin(self.waiting.pop(0)))
                    self.running = [part for part in self.running if not self._ended(part)]
                    self._score(pool)
                    if not self.waiting and not self.running and not self._pending():
                        return True
                    time.sleep(0.5)
            except BrokenExecutor:
                return False
            finally:
                if self._pending():
                    for process in list((pool._processes or {}).values()):
                        kill(process)
                pool.shutdown(wait=True, cancel_futures=True)
        return True

    def _is_trained(self, part: Part) -> bool:
        folder = self.out / "runs" / part.folder
        names = plan.runs(part.name, part.seeds)
        return all((folder / name / "finished.json").is_file() for name in names)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = number

    def _begin(self, part: Part) -> Part:
        folder = self.out / "runs" / part.folder
        log = self.out / "logs" / f"{part.folder}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        words = plan.sweep(part.name, self.size, part.seeds, str(folder), self.words)
        own = os.environ | {
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
            ),
            "OMP_NUM_THREADS": str(self.size.threads),
            "PYTHONUNBUFFERED": "1",
            ENDS_WITH_PARENT: "1",
        }
        command = [sys.executable, "-m", "jensen.train", "-m", *words]
        with log.open("ab") as output:
            part.process = subprocess.Popen(
                command,
                env=own,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                process_group=0,
            )
        say(f"training {part}")
        return part

    def _ended(self, part: Part) -> bool:
        assert part.process is not None
        if (status := part.process.poll()) is None:
            return False
        if 0 < status < 128:  # by itself, and not by a signal
            self.refused.append(part)
        say(f"trained {part}" if not status else f"{part}: ended with status {status}, see logs/")
        return True

    def rest(self) -> str:
        """How to come to what is not done yet."""
        if not self.refused:
            return "the same command again does the rest"
        logs = ", ".join(f"logs/{part.folder}.log" for part in self.refused)
        return f"{logs} says what to mend; then the same command does the rest"

    def _end(self) -> None:
        """Have every run that is being trained save itself, and begin no other."""
        self.waiting = []
        for part in self.running:
            assert part.process is not None
            if part.process.poll() is None:
                part.process.send_signal(signal.SIGTERM)
        for part in self.running:
            assert part.process is not None
            part.process.wait()

    def _score(self, pool: ProcessPoolExecutor) -> None:
        """Ask for the scores of the runs that have been trained, and when all have those, for what
        trees are grown for.
        """
        for name, run in self.runs():
            if name not in self.scoring and (run / "finished.json").is_file():
                codes = self.codes(name)
                self.scoring[name] = (
                    done("") if is_scored(run, codes) else pool.submit(score, run, codes)
                )
        if any(map(broken, [*self.scoring.values(), *self.growing.values()])):
            raise BrokenExecutor
        if not all(map(Future.done, self.scoring.values())):
            return
        for name, run in self.runs():
            busy = sum(not future.done() for future in self.growing.values())
            if busy >= self.cores:  # what is trained meanwhile waits for no more than one
                return
            if (
                name in self.scoring
                and name not in self.growing
                and not self.scoring[name].result()
            ):
                grown = is_grown(run)
                self.growing[name] = done("") if grown else pool.submit(grow, run, self.codes(name))

    def _pending(self) -> bool:
        """Tell whether a run that is trained has something left to be computed."""
        if not all(map(Future.done, [*self.scoring.values(), *self.growing.values()])):
            return True
        scored = {name for name, future in self.scoring.items() if well(future)}
        return bool(scored - {*self.growing})

    def _collect(self) -> None:
        """Note which runs something went wrong with; of those that were cut off, nothing did."""
        for found in (self.scoring, self.growing):
            for name, future in found.items():
                if not future.done() or future.cancelled() or broken(future):
                    continue
                error = future.exception()
                why = future.result() if error is None else f"{type(error).__name__}: {error}"
                if why:
                    self.failed[name] = why


def broken(future: Future[str]) -> bool:
    """Tell whether the process was killed that this was computed by."""
    return (
        future.done() and not future.cancelled() and isinstance(future.exception(), BrokenExecutor)
    )


def well(future: Future[str]) -> bool:
    """Tell whether what has ended ended well."""
    return future.exception() is None and not future.result()


def done(value: str) -> Future[str]:
    future: Future[str] = Future()
    future.set_result(value)
    return future


def say(line: str) -> None:
    print(f"study: {time.monotonic() - BEGAN:5.0f} s: {line}", flush=True)


def options() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="scripts/study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", choices=list(plan.SIZES), default="cpu")
    parser.add_argument("--out", type=Path, help="runs/study_SIZE")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument(
        "--scoring-minutes", type=float, help="of those, kept for scores alone; a quarter"
    )
    parser.add_argument("--only", help="some objectives: beta,factor")
    parser.add_argument("--rounds", help="seeds that are trained together, in turn: 0/1,2")
    parser.add_argument("--at-once", type=int, help="sweeps side by side")
    parser.add_argument("--cores", type=int, help="processes that score")
    parser.add_argument("--table", action="store_true", help="only the table and the report")
    return parser.parse_known_args()


def check(given: argparse.Namespace) -> None:
    """Refuse numbers that mean nothing."""
    for key in ("minutes", "scoring_minutes"):
        value = getattr(given, key)
        if value is not None and not value >= 0:  # NaN is not
            name = key.replace("_", "-")
            raise InputError(f"--{name} is {value:g}: expected a number of at least 0")
    for key in ("at_once", "cores"):
        if (value := getattr(given, key)) is not None:
            check_count(f"--{key.replace('_', '-')}", value)


def seeds_of(rounds: str) -> tuple[tuple[int, ...], ...]:
    try:
        return tuple(tuple(map(int, each.split(","))) for each in rounds.split("/"))
    except ValueError as error:
        raise InputError(f"--rounds is {rounds}: expected seeds, as 0/1,2") from error


def main() -> int:
    given, words = options()
    check(given)
    if odd := [word for word in words if word.startswith("-") or "=" not in word]:
        raise InputError(f"{odd[0]} is no option of scripts/study and no override: see --help")
    size = plan.SIZES[given.size]
    out = (given.out or Path("runs") / f"study_{given.size}").absolute()
    names = given.only.split(",") if given.only else list(plan.OBJECTIVES)
    if unknown := [name for name in names if name not in plan.OBJECTIVES]:
        raise InputError(f"--only has {unknown[0]}: expected some of {', '.join(plan.OBJECTIVES)}")
    rounds = seeds_of(given.rounds) if given.rounds else size.rounds
    for name in names if words else ():
        plan.check(name, size, rounds[0], words)
    asked = {
        "size": given.size,
        "version": plan.VERSION,
        "words": words,
        "rounds": [list(seeds) for seeds in rounds],
    }
    parts = [Part(name, seeds) for seeds in rounds for name in names]
    spare = given.minutes / 4 if given.scoring_minutes is None else given.scoring_minutes
    study = Study(
        out,
        size,
        parts,
        words,
        given.cores or len(os.sched_getaffinity(0)),
        given.at_once or size.at_once,
        train_until=BEGAN + 60 * (given.minutes - spare if given.minutes < 1e9 else given.minutes),
        until=BEGAN + 60 * given.minutes,
    )
    with sessions.session(out, asked, sys.argv[1:]) as record:
        if not given.table:
            study.run()
        names_of = dict(study.runs())
        trained = [run for run in names_of.values() if (run / "finished.json").is_file()]
        scored = [name for name, run in names_of.items() if is_scored(run, study.codes(name))]
        grown = [name for name in scored if is_grown(names_of[name])]
        record |= {"trained": len(trained), "scored": len(scored), "of": len(names_of)}
        record["stopped"] = signal.Signals(study.stopped).name if study.stopped else ""
        say(
            f"{len(trained)} of {len(names_of)} runs are trained, {len(scored)} are scored,"
            f" {len(grown)} by dci_boost20 too"
        )
        for name, why in study.failed.items():
            say(f"{name} has no scores: {why}")
        if len(grown) < len(names_of) and not given.table:
            late = time.monotonic() > study.train_until
            why = record["stopped"] or ("out of time" if late else "not all of it could be done")
            say(f"{why}: {study.rest()}")
    if scored:
        import table

        table.write(out)
        say(f"{out / 'study.csv'}: {len(scored)} runs")
    return 128 + study.stopped if study.stopped else int(bool(study.refused))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"study: {error}")
