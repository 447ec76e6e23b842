"""The runs of the study, as overrides of `jensen.train` and `jensen.evaluate`."""

from collections.abc import Sequence
from typing import NamedTuple

from jensen.run.compose import compose

VERSION = 1
"""Of this list: numbers of another one do not stand in one table with these."""


class Swept(NamedTuple):
    """An objective and the key of its strength. words: its other overrides."""

    key: str
    strengths: tuple[int, ...]
    words: tuple[str, ...]


OBJECTIVES = {
    "beta": Swept("objective.beta", (1, 2, 4, 8, 16), ("objective=beta",)),
    "beta_tcvae": Swept("objective.tc", (2, 4, 6, 8, 10), ("objective=beta_tcvae",)),
    "factor": Swept("objective.gamma", (10, 20, 35, 50, 100), ("objective=factor",)),
    "dip_ii": Swept(
        "objective.off_diagonal",
        (1, 2, 5, 10, 20),
        ("objective=dip_ii", "objective.diagonal=${objective.off_diagonal}"),
    ),
    "capacity": Swept("objective.capacity.end", (5, 10, 15, 20, 25), ("objective=capacity",)),
    "beta_factorised": Swept(
        "objective.beta", (1, 2, 4, 8, 16), ("objective=beta", "model/prior=factorised")
    ),
}


class Size(NamedTuple):
    """words: the overrides of all its runs. rounds: seeds that are trained together, in order.
    at_once: sweeps side by side. threads: of each.
    """

    words: tuple[str, ...]
    rounds: tuple[tuple[int, ...], ...]
    at_once: int
    threads: int


_LEAN = (
    "diagnostics=[]",  # all that is looked at is computed once, of the last checkpoint
    "callbacks.best=null",
    "hydra/launcher=stacked",
)
SIZES = {
    "cpu": Size(
        (
            *_LEAN,
            "data=sprites",
            "data.factors=[shape,scale,posX,posY]",
            "data.validation=8192",
            "model=mlp",
            "latent_dim=10",
            "optimizer.lr=1e-3",
            "trainer.max_steps=2000",
            "trainer.val_check_interval=2000",
            "trainer.log_every_n_steps=100",
        ),
        ((0,), (1,), (2,)),
        at_once=2,
        threads=1,
    ),
    "gpu": Size(
        (
            *_LEAN,
            "data=sprites",
            "data.validation=8192",
            "model=conv",
            "latent_dim=10",
            "optimizer.lr=1e-3",
            "trainer.max_steps=10000",
            "trainer.val_check_interval=10000",
            "trainer.log_every_n_steps=250",
        ),
        ((0,), (1,), (2,)),
        at_once=7,
        threads=2,
    ),
    "full": Size(
        (*_LEAN, "experiment=locatello2019", "trainer.val_check_interval=300000"),
        tuple((seed,) for seed in range(50)),
        at_once=1,
        threads=4,
    ),
}

SCORES = (
    "diagnostics=[rate,decomposition,estimator_audit,mig_exact,mig_hist20,mig_sup,infomec,factor_vae,"
    "sap_r2,modularity]",
    "diagnostics.estimator_audit.sizes=[64]",
    "diagnostics.estimator_audit.batches=100",
    "+diagnostics.mig_exact.samples=2500",
)
"""What is computed first of the held-out set of each run."""

TREES = (
    "diagnostics=[dci_boost20]",
    "+diagnostics.dci_boost20.jobs=1",
    "+diagnostics.dci_boost20.train=2500",
    "+diagnostics.dci_boost20.test=2500",
)
"""What takes longer than all of these, and comes last."""


def sweep(
    name: str, size: Size, seeds: tuple[int, ...], folder: str, given: Sequence[str] = ()
) -> list[str]:
    """The overrides of one objective's sweep over its strengths and some seeds; those that are given
    stand in the place of the plan's.
    """
    swept = OBJECTIVES[name]
    last = swept.key.rpartition(".")[2]
    place = f"{last}_${{{swept.key}}}_seed_${{seed}}"
    own = {word.partition("=")[0] for word in given}
    kept = [word for word in (*size.words, *swept.words) if word.partition("=")[0] not in own]
    return [
        *kept,
        *given,
        f"{swept.key}={','.join(map(str, swept.strengths))}",
        f"seed={','.join(map(str, seeds))}",
        f"hydra.sweep.dir={folder}",
        f"hydra.sweep.subdir={place}",
    ]


def check(name: str, size: Size, seeds: tuple[int, ...], given: Sequence[str]) -> None:
    """Compose the first run of that sweep.

    Raises:
        InputError: an override that is given cannot be taken.
    """
    swept = OBJECTIVES[name]
    varied = ("hydra.", "hydra/", "seed=", f"{swept.key}=")
    kept = [word for word in sweep(name, size, seeds, "", given) if not word.startswith(varied)]
    compose("train", [*kept, f"{swept.key}={swept.strengths[0]}", f"seed={seeds[0]}"])


def folder(name: str, seeds: tuple[int, ...]) -> str:
    """The folder of that sweep, below that of all."""
    return f"{name}/seeds_{'_'.join(map(str, seeds))}"


def runs(name: str, seeds: tuple[int, ...]) -> list[str]:
    """The folders of its runs, in that."""
    swept = OBJECTIVES[name]
    last = swept.key.rpartition(".")[2]
    return [f"{last}_{each}_seed_{seed}" for each in swept.strengths for seed in seeds]
