"""Any diagnostics on a finished run, or on codes from elsewhere.

python -m jensen.evaluate run=RUN 'diagnostics=[mig_hist20,dci]'        python -m jensen.evaluate
codes=codes.npz
"""

if __name__ == "__main__":
    from jensen.base import signals
    from jensen.launch import early

    early.answer("evaluate")
    signals.end_at_interrupt()

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

import jensen
from jensen.base.errors import InputError, check_path
from jensen.callbacks.diagnose import write
from jensen.callbacks.durable import target
from jensen.diagnostics.from_codes import read_codes
from jensen.diagnostics.snapshot import Diagnostic, Results, Snapshot, check_families
from jensen.family.unknown import Unknown
from jensen.launch.console import program
from jensen.run.borrowed import borrowed
from jensen.run.diagnose import on_run
from jensen.run.record import numbers, put_scores
from jensen.run.words import say


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
    if (cfg.run is None) == (cfg.codes is None):
        raise InputError(
            f"run is {cfg.run} and codes is {cfg.codes}: expected one of run=FOLDER and"
            " codes=FILE.npz"
        )
    check_path("run" if cfg.codes is None else "codes", cfg.run if cfg.codes is None else cfg.codes)
    chosen = None if cfg.out is None else target("out", cfg.out, ".json")
    settings, absent = borrowed(cfg.diagnostics, cfg.run)
    for name, sentence in absent.items():
        say(f"{name}: left out: {sentence}")
    diagnostics = {name: each for name, each in instantiate(settings).items() if each is not None}
    recorded = {name: Recorded(name, diagnostic) for name, diagnostic in diagnostics.items()}
    if cfg.run is not None:
        subject = Path(str(cfg.run)).expanduser()
        entry = on_run(subject, cfg.split, cfg.checkpoint, recorded, cfg.trust, cfg.download)
        out = subject / "scores.json"
        if os.access(subject, os.W_OK):
            with SummaryWriter(str(subject)) as writer:
                for name, each in recorded.items():
                    write(writer, name, each.results, entry["step"])
        else:
            say(f"{subject} cannot be written: nothing in TensorBoard")
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
    put_scores(out, entry)
    say(f"scores in {out}")
    if failed := {name: each.failure for name, each in recorded.items() if each.failure}:
        raise InputError("; ".join(f"{name} failed: {failure}" for name, failure in failed.items()))
    if all(each.absent for each in recorded.values()) and (absent or recorded):
        every = [*absent.values(), *(each.absent for each in recorded.values())]
        raise InputError("nothing could be asked: " + "; ".join(every))
    return entry


@program("evaluate")
def main(cfg: DictConfig) -> None:
    evaluate(cfg)


if __name__ == "__main__":
    main()
