"""Any diagnostics on a finished run, or on codes from elsewhere.

python -m jensen.evaluate run=RUN 'diagnostics=[mig_hist20,dci]'        python -m jensen.evaluate codes=codes.npz
"""

import json
import math
import os
import time
from collections.abc import Mapping
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

from jensen.callbacks.diagnose import Diagnose, write
from jensen.core.bound import Bound
from jensen.core.errors import InputError, check_choice
from jensen.core.gaussian import Gaussian, kl, standard
from jensen.diagnostics.snapshot import Diagnostic, Results, Snapshot
from jensen.program import program, quieten, say
from jensen.run import configuration, restored

SPLITS = ("validation", "test", "train")
_LISTED = 1000
"""Numbers of an array that scores.json still lists."""


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

    @property
    def numbers(self) -> dict[str, Any]:
        """Scalars and short arrays, as plain lists."""
        arrays = {key: value for key, value in self.results.items() if not isinstance(value, str)}
        small = {
            key: np.asarray(value) for key, value in arrays.items() if value.ndim < 3 and math.prod(value.shape) <= _LISTED
        }
        return {key: value.tolist() for key, value in small.items()}


def on_run(run: Path, split: str, checkpoint: str, diagnostics: Mapping[str, Diagnostic]) -> dict[str, Any]:
    """Encodes a split of the run's data once and runs the diagnostics on it; what they were run on."""
    check_choice("split", split, SPLITS)
    quieten()
    algorithm, step = restored(run, checkpoint)
    data = instantiate(configuration(run).data)
    data.evaluated = split
    algorithm.objective.dataset_size = data.train_size
    trainer = Trainer(
        accelerator="auto",
        devices=1,
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
    """Runs the diagnostics on `codes` `(N, D)`, `factors` `(N, F)` and, if there, `log_var` `(N, D)` of an npz file."""
    snapshot = read_codes(path)
    for diagnostic in diagnostics.values():
        diagnostic(snapshot)
    return {"codes": str(path), "examples": len(snapshot.z)}


def read_codes(path: Path) -> Snapshot:
    """A snapshot without a model.

    Raises:
        InputError: no such file, not an npz without pickles, arrays that are missing or do not fit each other.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("codes", "factors", "log_var", "names") if name in file}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} cannot be read ({error}): expected an npz file of plain arrays; write it with numpy.savez"
        ) from error
    for name in ("codes", "factors"):
        if name not in arrays:
            raise InputError(f"{path} holds {', '.join(arrays) or 'nothing'}: expected arrays codes (N, D) and factors (N, F)")
    codes, factors = arrays["codes"], arrays["factors"]
    log_var = arrays.get("log_var", np.full_like(codes, np.nan, dtype=np.float64))
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or log_var.shape != codes.shape:
        shapes = f"codes {codes.shape}, factors {factors.shape}, log_var {log_var.shape}"
        raise InputError(
            f"{path} has {shapes}: expected (N, D), (N, F) and (N, D) with one N; write arrays that belong together"
        )
    if not np.issubdtype(factors.dtype, np.integer):
        raise InputError(f"{path} has factors of {factors.dtype}: expected integer labels; number the values of each factor")
    posterior = Gaussian(torch.from_numpy(codes).double(), torch.from_numpy(log_var).double())
    nothing = torch.full((len(codes),), math.nan)
    return Snapshot(
        bound=Bound(nothing, nothing),
        posterior=posterior,
        z=posterior.mean,
        log_prior=nothing,
        latent_rate=kl(posterior, standard(posterior.mean)),
        factors=torch.from_numpy(factors).long(),
        names=tuple(map(str, arrays.get("names", np.arange(factors.shape[1])))),
        images=torch.empty(0, 0),
        encode=_no_model,
        decode=_no_model,
        draw=_no_model,
        infer=_no_model,
    )


def _no_model(*_: object) -> Any:
    raise InputError("codes=... names codes without a model, which this diagnostic needs: expected run=... instead")


def save(path: Path, entry: dict[str, Any]) -> None:
    """Writes scores as JSON, whole or not at all; diagnostics of the same subject that are there already are kept."""
    try:
        before = json.loads(path.read_text())
        if all(before.get(key) == entry.get(key) for key in ("run", "codes", "checkpoint", "step", "split", "version")):
            entry["diagnostics"] = before["diagnostics"] | entry["diagnostics"]
    except (OSError, ValueError, KeyError):
        pass
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(entry, indent=1) + "\n")
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): expected room in a folder of yours; set out=PATH"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


@program("evaluate")
def main(cfg: DictConfig) -> None:
    if (cfg.run is None) == (cfg.codes is None):
        raise InputError(f"run is {cfg.run} and codes is {cfg.codes}: expected one of run=FOLDER and codes=FILE.npz")
    recorded = {name: Recorded(name, diagnostic) for name, diagnostic in instantiate(cfg.diagnostics).items()}
    if cfg.run is not None:
        subject = Path(cfg.run)
        entry = on_run(subject, cfg.split, cfg.checkpoint, recorded)
        out = subject / "scores.json"
        with SummaryWriter(str(subject)) as writer:
            for name, each in recorded.items():
                write(writer, name, each.results, entry["step"])
    else:
        subject = Path(cfg.codes)
        entry = on_codes(subject, recorded)
        out = subject.with_suffix(".scores.json")
    out = Path(cfg.out) if cfg.out else out
    settings: Any = OmegaConf.to_container(cfg.diagnostics, resolve=True)
    entry["version"] = version("jensen")
    entry["diagnostics"] = {
        name: {"settings": settings[name]} | each.numbers for name, each in recorded.items() if not each.failure
    }
    save(out, entry)
    say(f"scores in {out}")
    if failed := {name: each.failure for name, each in recorded.items() if each.failure}:
        raise InputError("; ".join(f"{name} failed: {failure}" for name, failure in failed.items()))


if __name__ == "__main__":
    main()
