"""Writes the codes of a run: `python -m jensen.encode run=RUN out=codes.npz`."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from torch import Tensor

from jensen.core.errors import InputError
from jensen.diagnostics.snapshot import Snapshot
from jensen.evaluate import on_run
from jensen.program import program, say


def write_codes(snapshot: Snapshot, out: Path) -> Mapping[str, Tensor]:
    """codes and log_var `(N, D)`, factors `(N, F)` and the factors' names, in an npz file, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(
                file,
                codes=snapshot.posterior.mean.cpu().numpy(),
                log_var=snapshot.posterior.log_var.cpu().numpy(),
                factors=snapshot.factors.cpu().numpy(),
                names=np.array(snapshot.names, dtype=str),
            )
        partial.replace(out)
    except OSError as error:
        raise InputError(f"out={out} cannot be written ({error.strerror}): expected room in a folder of yours") from error
    finally:
        partial.unlink(missing_ok=True)
    say(f"{len(snapshot.z):,} codes of {snapshot.z.shape[1]} latents in {out}")
    return {}


@program("encode")
def main(cfg: DictConfig) -> None:
    if cfg.run is None:
        raise InputError("run is not set: expected run=FOLDER, the folder of a run")
    on_run(Path(cfg.run), cfg.split, cfg.checkpoint, {"encode": lambda snapshot: write_codes(snapshot, Path(cfg.out))})


if __name__ == "__main__":
    main()
