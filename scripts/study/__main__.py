"""The study: what each objective does to the latents of dSprites.

    python scripts/study [--size cpu|gpu|full] [--out FOLDER] [--minutes N] [overrides]

Trains six objectives at five strengths each with three seeds, scores every run, and writes
FOLDER/study.csv and FOLDER/report/. The same command again skips what is done and continues what was
stopped. Ctrl-C, SIGTERM and --minutes have every run save itself; what is scored by then is in the
table, and what is left is said. Overrides, such as trainer.max_steps=100, are added to all runs.
"""

import argparse
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import plan
import sessions
from scoring import end_with_parent, is_scored, score

from jensen.base.errors import InputError
from jensen.launch.parent import ENDS_WITH_PARENT

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Part:
    """A sweep of one objective over its strengths and some seeds."""

    name: str
    seeds: tuple[int, ...]
    process: subprocess.Popen[bytes] | None = None

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
    failed: dict[str, str] = field(default_factory=dict)
    scoring: dict[Path, Future[str]] = field(default_factory=dict)

    def runs(self) -> Iterator[tuple[str, Path]]:
        """The name of each run, and its folder."""
        for part in self.parts:
            for each in plan.runs(part.name, part.seeds):
                yield f"{part.name}/{each}", self.out / "runs" / part.name / each

    def codes(self, name: str) -> Path:
        return self.out / "codes" / f"{name}.npz"

    def run(self) -> None:
        """Train and score, until all is done or it is to stop."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        waiting = [part for part in self.parts if not self._is_trained(part)]
        running: list[Part] = []
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["scoring"])
        with ProcessPoolExecutor(self.cores, context, end_with_parent) as pool:
            try:
                while not self.stopped and time.monotonic() < self.until:
                    if time.monotonic() > self.train_until:
                        self._end(running)
                        waiting = []
                    while waiting and len(running) < self.at_once:
                        running.append(self._begin(waiting.pop(0)))
                    running = [part for part in running if not self._ended(part)]
                    self._score(pool)
                    if not waiting and not running and all(map(Future.done, self._futures())):
                        break
                    time.sleep(0.5)
            finally:
                self._end(running)
                if not all(map(Future.done, self._futures())):
                    for process in list(pool._processes.values()):
                        process.kill()  # Lightning takes SIGTERM for its own
                pool.shutdown(wait=True, cancel_futures=True)
        self._collect()

    def _is_trained(self, part: Part) -> bool:
        folder = self.out / "runs" / part.name
        names = plan.runs(part.name, part.seeds)
        return all((folder / name / "finished.json").is_file() for name in names)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = number

    def _begin(self, part: Part) -> Part:
        folder = self.out / "runs" / part.name
        log = self.out / "logs" / f"{part.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        words = plan.sweep(part.name, self.size, part.seeds, str(folder))
        own = os.environ | {
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
            ),
            "OMP_NUM_THREADS": str(self.size.threads),
            "PYTHONUNBUFFERED": "1",
            ENDS_WITH_PARENT: "1",
            **self.size.environment,
        }
        command = [sys.executable, "-m", "jensen.train", "-m", *words, *self.words]
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
        say(f"trained {part}" if not status else f"{part}: ended with status {status}, see logs/")
        return True

    def _end(self, running: list[Part]) -> None:
        """Have every run that is being trained save itself."""
        for part in running:
            assert part.process is not None
            if part.process.poll() is None:
                part.process.send_signal(signal.SIGTERM)
        for part in running:
            assert part.process is not None
            part.process.wait()

    def _score(self, pool: ProcessPoolExecutor) -> None:
        """Ask for the scores of the runs that have been trained."""
        for name, run in self.runs():
            if run in self.scoring or not (run / "finished.json").is_file():
                continue
            if not is_scored(run, self.codes(name)):
                self.scoring[run] = pool.submit(score, run, self.codes(name), list(plan.SCORES))

    def _futures(self) -> list[Future[str]]:
        return list(self.scoring.values())

    def _collect(self) -> None:
        for run, found in self.scoring.items():
            if found.cancelled() or not found.done():
                continue
            error = found.exception()
            if why := found.result() if error is None else f"{type(error).__name__}: {error}":
                self.failed[str(run.relative_to(self.out / "runs"))] = why


def say(line: str) -> None:
    print(f"study: {line}", flush=True)


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


def main() -> int:
    began = time.monotonic()
    given, words = options()
    if odd := [word for word in words if word.startswith("-") or "=" not in word]:
        raise InputError(f"{odd[0]} is no option of scripts/study and no override: see --help")
    size = plan.SIZES[given.size]
    out = (given.out or Path("runs") / f"study_{given.size}").absolute()
    names = given.only.split(",") if given.only else list(plan.OBJECTIVES)
    if unknown := [name for name in names if name not in plan.OBJECTIVES]:
        raise InputError(f"--only has {unknown[0]}: expected some of {', '.join(plan.OBJECTIVES)}")
    rounds = size.rounds
    if given.rounds:
        rounds = tuple(tuple(map(int, each.split(","))) for each in given.rounds.split("/"))
    parts = [Part(name, seeds) for seeds in rounds for name in names]
    spare = given.minutes / 4 if given.scoring_minutes is None else given.scoring_minutes
    study = Study(
        out,
        size,
        parts,
        words,
        given.cores or len(os.sched_getaffinity(0)),
        given.at_once or size.at_once,
        train_until=began + 60 * (given.minutes - spare if given.minutes < 1e9 else given.minutes),
        until=began + 60 * given.minutes,
    )
    with sessions.session(out, given.size, words, sys.argv[1:]) as record:
        if not given.table:
            study.run()
        names_of = dict(study.runs())
        trained = [run for run in names_of.values() if (run / "finished.json").is_file()]
        scored = [name for name, run in names_of.items() if is_scored(run, study.codes(name))]
        record |= {"trained": len(trained), "scored": len(scored), "of": len(names_of)}
        record["stopped"] = signal.Signals(study.stopped).name if study.stopped else ""
        say(f"{len(trained)} of {len(names_of)} runs are trained, {len(scored)} are scored")
        for name, why in study.failed.items():
            say(f"{name} has no scores: {why}")
        if len(scored) < len(names_of):
            say("the same command again does the rest")
    if scored:
        import table

        table.write(out)
        say(f"{out / 'study.csv'}: {len(scored)} runs")
    return 128 + study.stopped if study.stopped else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"study: {error}")
