"""Any diagnostics on a finished run, or on codes from elsewhere.

python -m jensen.evaluate run=RUN 'diagnostics=[mig_hist20,dci]'        python -m jensen.evaluate codes=codes.npz
"""

if __name__ == "__main__":
    from jensen.base import signals

    signals.end_at_interrupt()

import math
import os
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from jensen.base.errors import InputError, check_choice, check_flag, check_path
from jensen.base.memory import Fitting
from jensen.bound.bound import Bound
from jensen.callbacks.diagnose import Diagnose, write
from jensen.callbacks.durable import target
from jensen.data.arrays import arrays as inside
from jensen.data.arrays import in_words
from jensen.data.codes import read
from jensen.data.downloads import downloads
from jensen.data.module import DataModule
from jensen.diagnostics.snapshot import STANDARD_NORMAL, Diagnostic, Results, Snapshot, Unknown
from jensen.family.gaussian import STANDARD, Gaussian, kl, sample
from jensen.launch.console import program
from jensen.run.load import configuration, is_double, restored
from jensen.run.record import get_json, numbers, put_scores
from jensen.run.trust import build
from jensen.run.words import quieten, say

SPLITS = ("validation", "test", "train")


class Recorded:
    """A diagnostic that keeps what it returned, and goes on where one refuses its input."""

    def __init__(self, name: str, diagnostic: Diagnostic) -> None:
        self.name, self.diagnostic = name, diagnostic
        self.results: Results = {}
        self.failure = ""

    def __call__(self, snapshot: Snapshot) -> Results:
        start = time.perf_counter()
        try:
            self.results = self.diagnostic(snapshot)
        except InputError as error:
            self.failure = str(error)
            say(f"{self.name}: failed: {self.failure}")
            return {}
        scalars = [
            f"{key} {value.item():.4f}" for key, value in self.results.items() if isinstance(value, Tensor) and not value.dim()
        ]
        say(f"{self.name}: {', '.join(scalars) or 'no numbers'} ({time.perf_counter() - start:.1f} s)")
        return self.results


def on_run(
    run: Path,
    split: str,
    checkpoint: str,
    diagnostics: Mapping[str, Diagnostic],
    trust: str | Sequence[str] = (),
    download: bool = False,
) -> dict[str, Any]:
    """Encodes a split of the run's data once and runs the diagnostics on it; what they were run on.

    Nothing is written but the cache of the data.

    Args:
        trust: modules of yours that the run is made of (`trust.build`).
        download: whether data may be fetched where the run's configuration says so and they are missing.
    """
    check_choice("split", split, SPLITS)
    check_flag("download", download)
    quieten()
    algorithm, step = restored(run, checkpoint, trust)
    ended = get_json(run.expanduser() / "finished.json").get("step", step)
    if checkpoint == "last" and ended != step:
        say(f"{run}/finished.json says step {ended} and last.ckpt holds step {step}: the command that trained it mends that")
    cfg = configuration(run)
    data = build(cfg, "data", DataModule, trust)
    # How data are served is this machine's, and not the folder's, to say.
    data.workers, data.device, data.evaluated = 0, "auto", split
    with downloads(download), Fitting("data of the run"):
        data.prepare_data()
        data.show(1)
    trainer = Trainer(
        accelerator="auto",
        devices=1,
        precision="64-true" if is_double(cfg) else "32-true",
        logger=False,
        callbacks=[
            Diagnose(diagnostics, on_encoded=lambda count, seconds: say(f"encoded {count:,} examples in {seconds:.1f} s"))
        ],
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.validate(algorithm, data, verbose=False)
    bound = {
        name.removeprefix("val/"): float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")
    }
    return {"run": str(run), "checkpoint": checkpoint, "step": step, "split": split, "bound": bound}


def on_codes(path: Path, diagnostics: Mapping[str, Diagnostic]) -> dict[str, Any]:
    """Runs the diagnostics on `codes` `(N, D)`, `factors` `(N, F)` and, if there, `log_var` `(N, D)` of an npz file.

    What needs the prior is left out, with a sentence, unless the file says that it was N(0, I).
    """
    snapshot = read_codes(path)
    noisy = bool((snapshot.z != snapshot.posterior.mean).any())
    if noisy and isinstance(snapshot.prior, Unknown):
        say(snapshot.prior.sentence)
    for diagnostic in diagnostics.values():
        diagnostic(snapshot)
    return {"codes": str(path), "examples": len(snapshot.z)}


def read_codes(path: Path) -> Snapshot:
    """A snapshot without a model.

    Raises:
        InputError: no such file, not an npz without pickles, arrays that are missing or do not fit each other.
    """
    arrays = read(path)
    for name in ("codes", "factors"):
        if name not in arrays:
            raise InputError(f"{path} holds {in_words(inside(path))}: expected arrays codes (N, D) and factors (N, F)")
    codes, factors = arrays["codes"], arrays["factors"]
    log_var = arrays.get("log_var", np.full_like(codes, np.nan, dtype=np.float64))
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or log_var.shape != codes.shape:
        shapes = f"codes {codes.shape}, factors {factors.shape}, log_var {log_var.shape}"
        raise InputError(
            f"{path} has {shapes}: expected (N, D), (N, F) and (N, D) with one N; write arrays that belong together"
        )
    if not codes.size or not np.issubdtype(codes.dtype, np.floating) or not np.isfinite(codes).all():
        raise InputError(
            f"{path} has codes of {codes.dtype} {codes.shape} that are empty, NaN or infinite, or no floats:"
            " expected finite floating-point numbers; encode again"
        )
    if not np.issubdtype(factors.dtype, np.integer):
        raise InputError(f"{path} has factors of {factors.dtype}: expected integer labels; number the values of each factor")
    names = arrays.get("names", np.arange(factors.shape[1]))
    if (factors < 0).any() or names.shape != factors.shape[1:]:
        raise InputError(
            f"{path} has factors from {factors.min(initial=0)} and names of shape {names.shape}: expected labels of at least 0"
            f" and ({factors.shape[1]},), a name for each factor; number the values of each factor"
        )
    posterior = Gaussian(torch.from_numpy(codes).double(), torch.from_numpy(log_var).double())
    prior = _prior(path, arrays.get("prior"))
    rate = kl(posterior, prior) if isinstance(prior, Gaussian) else torch.full_like(posterior.mean, math.nan)
    nothing = torch.full((len(codes),), math.nan)
    return Snapshot(
        bound=Bound(nothing, nothing),
        posterior=posterior,
        z=_drawn(posterior),
        log_prior=nothing,
        latent_rate=rate,
        factors=torch.from_numpy(factors).long(),
        names=tuple(map(str, names)),
        images=torch.empty(0, 0),
        encode=_no_model,
        decode=_no_model,
        draw=_no_model,
        infer=_no_model,
        prior=prior,
    )


def _prior(path: Path, said: np.ndarray | None) -> Gaussian | Unknown:
    """N(0, I) where the file of codes says that they were made under it.

    Raises:
        InputError: what the file says is no word.
    """
    absent = f"expected {STANDARD_NORMAL} for rates, dimension_wise_kl and marginal_kl, which are left out"
    if said is None:
        return Unknown(
            f"{path} does not say which prior its codes were made under: {absent}; encode again with jensen.encode,"
            f" or add prior={STANDARD_NORMAL!r} to the file if it was N(0, I)"
        )
    if said.shape != () or said.dtype.kind != "U":
        raise InputError(
            f"{path} has a prior of {said.dtype} {said.shape}: expected a word; write"
            f" prior={STANDARD_NORMAL!r} if it was N(0, I), or leave it out"
        )
    word = str(said)[:40]
    if word == STANDARD_NORMAL:
        return STANDARD
    return Unknown(
        f"{path} says that its codes were made under the prior {word!r}: {absent}; evaluate run=FOLDER, which has it"
    )


def _drawn(posterior: Gaussian) -> Tensor:
    """A sample of the posterior `(N, D)`, always the same; its means, where they have no variance."""
    if not posterior.log_var.isfinite().all():
        return posterior.mean
    generator = torch.Generator().manual_seed(0)
    return sample(posterior, torch.randn(posterior.mean.shape, generator=generator, dtype=torch.float64))


def _no_model(*_: object) -> Any:
    raise InputError("codes=... names codes without a model, which this diagnostic needs: expected run=... instead")


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Runs the diagnostics of `cfg`, writes their numbers down, and gives what it has written.

    Raises:
        InputError: one of them failed, after the numbers of the others were written.
    """
    if (cfg.run is None) == (cfg.codes is None):
        raise InputError(f"run is {cfg.run} and codes is {cfg.codes}: expected one of run=FOLDER and codes=FILE.npz")
    check_path("run" if cfg.codes is None else "codes", cfg.run if cfg.codes is None else cfg.codes)
    chosen = None if cfg.out is None else target("out", cfg.out, ".json")
    diagnostics = {name: each for name, each in instantiate(cfg.diagnostics).items() if each is not None}
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
    settings: Any = OmegaConf.to_container(cfg.diagnostics, resolve=True)
    entry["version"] = version("jensen")
    entry["diagnostics"] = {
        name: {"settings": settings[name]} | numbers(each.results) for name, each in recorded.items() if not each.failure
    }
    put_scores(out, entry)
    say(f"scores in {out}")
    if failed := {name: each.failure for name, each in recorded.items() if each.failure}:
        raise InputError("; ".join(f"{name} failed: {failure}" for name, failure in failed.items()))
    return entry


@program("evaluate")
def main(cfg: DictConfig) -> None:
    evaluate(cfg)


if __name__ == "__main__":
    main()
