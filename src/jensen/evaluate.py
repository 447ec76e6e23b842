"""Any diagnostics on a finished run, on all of a sweep, or on codes from elsewhere.

python -m jensen.evaluate run=RUN 'diagnostics=[mig_hist20,dci]'        python -m jensen.evaluate
codes=codes.npz
"""

if __name__ == "__main__":
    from jensen.base import signals
    from jensen.launch import early

    early.answer("evaluate")
    signals.end_at_interrupt()

import io
import os
import time
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

import jensen
from jensen.base.errors import InputError, check_count, check_path
from jensen.base.files import target
from jensen.base.ranks import processes
from jensen.callbacks.diagnose import write
from jensen.diagnostics.from_codes import read_codes
from jensen.diagnostics.snapshot import Diagnostic, Results, Snapshot, check_families
from jensen.family.unknown import Unknown
from jensen.launch import threads
from jensen.launch.beside import beside
from jensen.launch.console import program
from jensen.launch.threads import cores
from jensen.reports.text import one_line
from jensen.run.borrowed import borrowed
from jensen.run.diagnose import on_run
from jensen.run.folder import FAILED, FINISHED, first_line, incomplete
from jensen.run.record import get_json, put_scores
from jensen.run.results import numbers
from jensen.run.words import say, show


class Recorded:
    """A diagnostic that keeps what it returned, and goes on where one refuses its input.

    absent: why it was left out, of codes that have not what it needs. failure: why it refused.
    """

    def __init__(self, name: str, diagnostic: Diagnostic) -> None:
        self.name = name
        self.diagnostic = diagnostic
        self.results: Results = {}
        self.absent = ""
        self.failure = ""

    def __call__(self, snapshot: Snapshot) -> Results:
        start = time.perf_counter()
        try:
            check_families({self.name: self.diagnostic}, type(snapshot.posterior))
        except InputError as error:
            self.absent = str(error)
            say(f"{self.name}: left out: {self.absent}")
            return {}
        try:
            self.results = self.diagnostic(snapshot)
        except InputError as error:
            self.failure = str(error)
            say(f"{self.name}: failed: {self.failure}")
            return {}
        scalars = [
            f"{key} {value.item():.4f}"
            for key, value in self.results.items()
            if isinstance(value, Tensor) and not value.dim()
        ]
        say(
            f"{self.name}: {', '.join(scalars) or 'no numbers'} ({time.perf_counter() - start:.1f}"
            " s)"
        )
        return self.results


def on_codes(path: Path, diagnostics: Mapping[str, Diagnostic]) -> dict[str, Any]:
    """Runs the diagnostics on `codes` `(N, D)`, `factors` `(N, F)` and, if there, `log_var` `(N,
    D)` of an npz file.

    What needs the prior is left out, with a sentence, unless the file says that it was N(0, I).
    """
    snapshot = read_codes(path)
    noisy = bool((snapshot.z != snapshot.posterior.mean).any())
    if noisy and isinstance(snapshot.prior, Unknown):
        say(snapshot.prior.sentence)
    for diagnostic in diagnostics.values():
        diagnostic(snapshot)
    return {"codes": str(path), "examples": len(snapshot.z)}


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Runs the diagnostics of `cfg`, writes their numbers down, and gives what it has written.

    Raises:
        InputError: one of them failed, after the numbers of the others were written; or all of
            them were left out.
    """
    _one_subject(cfg)
    check_path("run" if cfg.codes is None else "codes", cfg.run if cfg.codes is None else cfg.codes)
    chosen = None if cfg.out is None else target("out", cfg.out, ".json")
    settings, absent = borrowed(cfg.diagnostics, cfg.run)
    for name, sentence in absent.items():
        say(f"{name}: left out: {sentence}")
    diagnostics = {name: each for name, each in instantiate(settings).items() if each is not None}
    recorded = {name: Recorded(name, diagnostic) for name, diagnostic in diagnostics.items()}
    leading = not processes()[0]  # of a fit that has ended each rank goes on with the program
    if cfg.run is not None:
        subject = Path(str(cfg.run)).expanduser()
        entry = on_run(subject, cfg.split, cfg.checkpoint, recorded, cfg.trust, cfg.download)
        out = subject / "scores.json"
        if leading:
            _picture(subject, recorded, entry["step"])
    else:
        subject = Path(str(cfg.codes)).expanduser()
        entry = on_codes(subject, recorded)
        out = subject.with_suffix(".scores.json")
    out = chosen or out
    entry["version"] = jensen.__version__
    entry["diagnostics"] = {
        name: {"settings": settings[name]} | numbers(each.results)
        for name, each in recorded.items()
        if not (each.failure or each.absent)
    }
    if leading and (gone := put_scores(out, entry)):
        say(f"{out} had {', '.join(gone)} of another run, step, split or version: gone from it")
    say(f"scores in {out}")
    if failed := {name: each.failure for name, each in recorded.items() if each.failure}:
        raise InputError("; ".join(f"{name} failed: {failure}" for name, failure in failed.items()))
    if all(each.absent for each in recorded.values()) and (absent or recorded):
        every = [*absent.values(), *(each.absent for each in recorded.values())]
        raise InputError("nothing could be asked: " + "; ".join(every))
    return entry


def _picture(run: Path, recorded: Mapping[str, Recorded], step: int) -> None:
    """Write what was found to the run's TensorBoard."""
    if not os.access(run, os.W_OK):
        say(f"{run} cannot be written: nothing in TensorBoard")
        return
    with SummaryWriter(str(run)) as writer:
        for name, each in recorded.items():
            write(writer, name, each.results, step)


def evaluate_sweep(cfg: DictConfig) -> None:
    """Runs the diagnostics of `cfg` on each finished run of a sweep's folder, several at a time; those
    that have their results already are left out. A run that is not finished is named.

    Raises:
        InputError: no finished run, or some failed, after all others were done.
    """
    _one_subject(cfg)
    if cfg.out is not None:
        raise InputError(
            f"out is {cfg.out} and sweep is {cfg.sweep}: expected no out, since each run has its"
            " scores.json; take run=FOLDER"
        )
    check_path("sweep", cfg.sweep)
    folder = Path(str(cfg.sweep)).expanduser()
    runs = sorted(file.parent for file in folder.rglob(FINISHED))
    begun = {file.parents[1] for file in folder.rglob(".hydra/config.yaml")}
    failed_at_once = {file.parent for file in folder.rglob(FAILED)}
    for run in sorted((begun | failed_at_once) - {folder}):
        if why := incomplete(run):
            say(one_line(f"not evaluated: {run.relative_to(folder)}: {why}"))
    if not runs or runs == [folder]:
        raise InputError(
            f"sweep={folder} {'is a run' if runs else 'holds no finished run'}: expected the folder"
            f" of a sweep of jensen.train -m{', or run=' + str(folder) if runs else ''}"
        )
    left = [run for run in runs if not _has_results(run, cfg)]
    if len(left) < len(runs):
        say(f"{len(runs) - len(left)} of {len(runs)} runs have these results")
    jobs = cores() if cfg.jobs is None else cfg.jobs
    check_count("jobs", jobs)
    failed: dict[str, str] = {}
    told: set[str] = set()
    results = beside(_Alone(cfg), left, jobs) if left else ()
    for number, (run, (why, absent)) in enumerate(results, 1):
        name = str(run.relative_to(folder))
        say(f"[{number}/{len(left)}] {name}{': ' if why else ''}{why}")
        for sentence in absent:
            if sentence not in told:
                show(sentence)
        told.update(absent)
        if why:
            failed[name] = why
    if failed:
        each = "; ".join(f"{name}: {why}" for name, why in sorted(failed.items()))
        raise InputError(f"{len(failed)} of {len(runs)} runs failed: {each}")


class _Alone:
    """One run of a sweep, in a process of its own: the reason why it failed, and what it said was left
    out.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self.settings = OmegaConf.to_container(cfg)

    def __call__(self, run: Path) -> tuple[str, list[str]]:
        said = io.StringIO()
        why = ""
        cfg: Any = OmegaConf.create(self.settings)
        cfg.run = str(run)
        cfg.sweep = cfg.jobs = None
        with redirect_stdout(said), redirect_stderr(io.StringIO()):
            try:
                evaluate(cfg)
            except Exception as error:  # one run does not end the others
                why = first_line(error)
        return why, [line for line in said.getvalue().splitlines() if ": left out: " in line]


def _has_results(run: Path, cfg: DictConfig) -> bool:
    """Tell whether all that is asked for was computed of the run as it is, by this version."""
    found = get_json(run / "scores.json")
    asked = {
        "split": cfg.split,
        "checkpoint": cfg.checkpoint,
        "version": jensen.__version__,
        "step": get_json(run / FINISHED).get("step"),
    }
    if cfg.checkpoint != "last" or any(found.get(key) != value for key, value in asked.items()):
        return False
    settings, _ = borrowed(cfg.diagnostics, run)
    there = found.get("diagnostics", {})
    return bool(settings) and all(
        there.get(name, {}).get("settings") == each for name, each in settings.items()
    )


def _one_subject(cfg: DictConfig) -> None:
    given = {key: value for key in ("run", "sweep", "codes") if (value := cfg.get(key)) is not None}
    if len(given) != 1:
        found = " and ".join(f"{key}={value}" for key, value in given.items()) or "none is given"
        raise InputError(f"{found}: expected one of run=FOLDER, sweep=FOLDER and codes=FILE.npz")
    if cfg.get("jobs") is not None and "sweep" not in given:
        raise InputError(
            f"jobs is {cfg.jobs} and there is one run to do: expected jobs with sweep=FOLDER alone;"
            " leave it out"
        )


@program("evaluate")
def main(cfg: DictConfig) -> None:
    threads.take()
    if cfg.sweep is None:
        evaluate(cfg)
    else:
        evaluate_sweep(cfg)


if __name__ == "__main__":
    main()
