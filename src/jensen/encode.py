"""Write the codes of a run: `python -m jensen.encode run=RUN out=codes.npz`."""

if __name__ == "__main__":
    from jensen.base import signals
    from jensen.launch import early

    early.answer("encode")
    signals.end_at_interrupt()

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from omegaconf import DictConfig
from torch import Tensor

from jensen.base.errors import InputError, check_path
from jensen.base.files import target, write
from jensen.diagnostics.snapshot import Snapshot, kind
from jensen.family.codes import Codes
from jensen.family.family import diagonal
from jensen.family.flowed import FlowedGaussian
from jensen.launch import threads
from jensen.launch.console import program
from jensen.run.diagnose import on_run
from jensen.run.words import say


def write_codes(snapshot: Snapshot, out: Path | str) -> Mapping[str, Tensor]:
    """codes and log_var `(N, D)`, factors `(N, F)`, their names and the prior's kind, in an npz
    file, whole or not at all. A posterior that a flow has moved has no log_var; its codes are where
    the flow takes the mean. Nor have the points of a mixture.

    Raises:
        InputError: the file cannot be written.
    """

    noise: dict[str, Any] = {}
    if isinstance(snapshot.posterior, FlowedGaussian):
        say("codes are where model/posterior=flow takes the mean: they come without log_var")
    elif isinstance(snapshot.posterior, Codes):
        say("the points of a mixture are their own codes: they come without log_var")
    else:
        noise = {"log_var": diagonal(snapshot.posterior, "jensen.encode").log_var.cpu().numpy()}

    def content(file: IO[bytes]) -> None:
        np.savez(
            file,
            codes=snapshot.posterior.mean.cpu().numpy(),
            **noise,
            factors=snapshot.factors.cpu().numpy(),
            names=np.array(snapshot.names, dtype=str),
            prior=np.array(kind(snapshot.prior)),
        )

    write(Path(out), content)
    say(f"{len(snapshot.z):,} codes of {snapshot.z.shape[1]} latents in {out}")
    return {}


@program("encode")
def main(cfg: DictConfig) -> None:
    threads.take()
    if cfg.run is None:
        raise InputError("run is not set: expected run=FOLDER, the folder of a run")
    check_path("run", cfg.run)
    out = target("out", cfg.out, ".npz")
    encode = {"encode": lambda snapshot: write_codes(snapshot, out)}
    on_run(Path(str(cfg.run)), cfg.split, cfg.checkpoint, encode, cfg.trust, cfg.download)


if __name__ == "__main__":
    main()
