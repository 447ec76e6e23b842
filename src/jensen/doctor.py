"""Closed-form truth against this machine: `python -m jensen.doctor`, in about a minute.

`torchrun --nproc-per-node 2 -m jensen.doctor` does the same on two ranks that share the work. Every
check compares what jensen computes, or trains, here with a number that is known without it.
"""

if __name__ == "__main__":
    from jensen.base import signals
    from jensen.launch import early

    early.take_no_options("doctor", __doc__)
    signals.end_at_interrupt()

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hydra import compose, initialize_config_dir

from jensen.base.errors import InputError
from jensen.diagnostics.probabilistic_pca import best_evidence
from jensen.diagnostics.water_filling import optimum
from jensen.launch import known
from jensen.launch.known import Check
from jensen.launch.training import train
from jensen.run.conf import conf_folder
from jensen.run.words import say

VARIANCES = (4.0, 2.0, 1.0, 0.5, 0.25)


def training() -> Iterator[Check]:
    """Linear models, trained through `jensen.train` from initial weights to their closed-form
    optimum.
    """
    best = optimum(VARIANCES, beta=2.0, noise=0.2)
    got = _trained("experiment=water_filling", "objective.beta=2")
    yield Check("linear beta-VAE, rate", best.rate, got["water_filling/rate"], 3e-3)
    error = got["water_filling/squared_error"]
    yield Check("linear beta-VAE, squared error", best.squared_error, error, 3e-3)
    yield Check("linear beta-VAE, active latents", best.active, got["water_filling/active"], 0)
    # On a geometric series the least eigenvalues would give the same evidence.
    uneven = (5.0, 3.0, 1.0, 0.5, 0.1)
    evidence = best_evidence(uneven, 3)
    got = _trained("experiment=probabilistic_pca", f"data.variances={[*uneven]}")
    for name in ("evidence", "elbo"):
        yield Check(f"probabilistic PCA, {name}", evidence, got[f"probabilistic_pca/{name}"], 1e-3)


def _trained(*overrides: str) -> dict[str, float]:
    """The last scalars of a run."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    spread = (
        ["trainer=ddp", f"trainer.devices={ranks}", "trainer.accelerator=cpu"] if ranks > 1 else []
    )
    with (
        initialize_config_dir(str(conf_folder()), version_base="1.3"),
        tempfile.TemporaryDirectory() as folder,
    ):
        cfg = compose(
            "train",
            [*overrides, *spread, "callbacks=[diagnose]", "+trainer.enable_progress_bar=false"],
        )
        return train(cfg, Path(folder))


CHECKS: tuple[Callable[[], Iterator[Check]], ...] = (
    known.densities,
    known.rendering,
    training,
    known.two_points,
    known.linear_gaussian,
    known.bent,
    known.extremes,
)


def main() -> None:
    start = time.perf_counter()
    failed = 0
    say(f"{'check':48} {'expected':>14} {'got':>14} {'tolerance':>10}   pass")
    for checks in CHECKS:
        for check in checks():
            failed += not check.passed
            verdict = "yes" if check.passed else "NO"
            say(
                f"{check.name:48} {check.expected:14.6f} {check.got:14.6f} {check.tolerance:10.1g}"
                f"   {verdict}"
            )
    say(
        f"{'all passed' if not failed else f'{failed} FAILED'} in"
        f" {time.perf_counter() - start:.0f} s"
    )
    sys.exit(failed > 0)


if __name__ == "__main__":
    signals.unwind_at_interrupt()
    try:
        main()
    except InputError as error:  # as of an environment that calls this process another rank
        sys.exit(str(error))
