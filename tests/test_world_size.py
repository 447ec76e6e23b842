"""One, two and four processes with the same global batch give the same numbers: losses, bound,
decomposition, scores, weights.

At one draw an example, numbers that agree in 10 digits are of the same draws: each rank has those
of its examples, none has another's. The 61 held-out examples are shared out unevenly, so a rank
that repeated one to fill up would show.
"""

import json
from itertools import product

import pytest
from cases import slow
from hydra import compose, initialize_config_dir
from ranks import together
from runs import weights
from tiny import TINY
from torch.utils.tensorboard import SummaryWriter

from jensen.launch.training import train
from jensen.run.conf import conf_folder

BOUND = {"32-true": 1e-6, "64-true": 1e-10}
"""The largest relative difference, by precision: of a number, or of a tensor of weights in norm.

Not of each weight, in float32: Adam makes of a first gradient a step of its sign, and of one that is
0 but for rounding whatever the rounding says. Of 2,048 weights of a diffusion that are told nothing
at step 0, one's first gradient was 1.04e-9, where 2.1e-4 is common, and rounded by 8e-12: .8 % of it.
So it moved by 3.6e-7 more on 4 ranks than on 1. Of N weights the least gradient is about a Nth of the
others, so such single differences grow with N, and the norm's do not. In float64 both are 1e-14.
"""

# Terms that compare the examples of a minibatch across ranks, and diagnostics of each kind.
RUN = (
    *TINY, "data.validation=61", "trainer.accelerator=cpu", "trainer.log_every_n_steps=2", "trainer.max_steps=8",
    "trainer.val_check_interval=4", "objective=beta_tcvae", "diagnostics=[rate,decomposition,mig_hist20,sap_r2,modularity]",
)  # fmt: skip


# Several senses, of which some are missing, draws that go through their subsets, a condition, latents of one's own,
# and steps of the encoder alone.
SENSES = (
    "data=incomplete", "data.of.size=300", "data.of.validation=61", "data.batch_size=12", "data.of.common=0.5",
    "+data.of.noise.touch=2.0", "+data.of.modalities.touch=[1]",
    "data.of.x_shape=[3]", "data.of.condition=[touch]", "model.latent_private={see: 1}", "algorithm.encoder_steps=2",
    "model=multimodal", "model.encoders.each.hidden=[8]", "model.fusion=subsets", "model.reconstruct=given", "latent_dim=2",
    "objective.beta=1", "+objective.samples=3", "trainer.accelerator=cpu", "trainer.log_every_n_steps=2", "trainer.max_steps=8",
    "trainer.val_check_interval=4", "diagnostics=[rate,decomposition,modalities]", "diagnostics.modalities.samples=4",
)  # fmt: skip
# What is learned of flows, diffusions and decoders that hear what they have said.
LEARNED = (
    *TINY, "data.validation=61", "trainer.accelerator=cpu", "trainer.log_every_n_steps=2",
    "trainer.max_steps=8", "trainer.val_check_interval=4", "diagnostics=[rate]",
)  # fmt: skip
FLOWS = (
    *LEARNED, "data=chain", "model/posterior=flow", "model.posterior.hidden=[16]", "model/prior=flow", "model.prior.hidden=[16]",
    "model/likelihood=made", "model.likelihood.hidden=[16]", "objective=importance",
    "objective.samples=2",
)  # fmt: skip
DIFFUSION = (
    *LEARNED, "objective.beta=1", "model/prior=diffusion", "model.prior.hidden=[16]", "model/likelihood=pixelcnn",
    "model.likelihood.channels=4", "model.likelihood.layers=2",
)  # fmt: skip
RUNS = {"": RUN, " senses": SENSES, " flows": FLOWS, " diffusion": DIFFUSION}


# Another minibatch, with scores of all kinds, and objectives whose terms compare examples or divide
# by small numbers.
WIDE = (
    *TINY, "data.validation=61", "data.batch_size=66", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1",
    "trainer.max_steps=4", "trainer.val_check_interval=4",
)  # fmt: skip
WIDE_RUNS = {
    " tcvae": (
        *WIDE,
        "objective=beta_tcvae",
        "diagnostics=[rate,decomposition,evidence,mig_hist20,mig_exact,infomec,factor_vae,sap_r2,modularity,explicitness,"
        "dci,dcimig,jemmig,mig_sup,irs]",
        "diagnostics.evidence.samples=4",
    ),
    " mmd": (*WIDE, "objective=mmd", "diagnostics=[rate]"),
    " importance": (*WIDE, "objective=importance", "diagnostics=[rate]"),
}
HOLDS = {
    "beta_effective": (0.03, 1e-9),  # a quotient of small differences of large numbers
    "effective_samples": (
        1e-4,
        1e-12,
    ),  # of weights exp(log w), whose log w is of order 100 and rounded
    "mmd": (1e-5, 1e-12),
    "mig_, infomec, factor_vae, sap_r2, modularity, explicitness, dci, jemmig, irs": (
        1e-2,
        1e-10,
    ),  # they count: in steps
    "log_p_se, evidence/gap": (1e-5, 1e-12),  # spreads and differences of numbers of order 1,000
    "the rest": (1e-6, 1e-10),
}
"""What holds on several ranks: the largest difference in float32 and in float64, by words in a
tag.
"""


OWN = {
    "": ("sap_r2/sap_r2 8", "decomposition/total_correlation 8"),
    " senses": ("val/rate_see 8", "modalities/cross_hear 8", "decomposition/total_correlation 8"),
    " flows": ("train/effective_samples 6", "val/rate 8"),
    " diffusion": ("train/rate_monte_carlo 6", "val/rate 8"),
}
"""Tags that such a run has among others."""


def process(rank, world, folder, runs, precisions=tuple(BOUND)):
    """One rank's runs, and what they logged."""
    logged = {}
    # In event files they would be float32.
    SummaryWriter.add_scalar = lambda _, tag, value, step, *__, **___: logged.update(
        {f"{tag} {step}": float(value)}
    )
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        for name, overrides in runs.items():
            for precision in precisions:
                ranks = (
                    "trainer=ddp",
                    f"trainer.devices={world}",
                    f"trainer.precision={precision}",
                    "callbacks=[checkpoint,diagnose]",
                )
                logged.clear()
                run = folder / f"{world} {precision}{name}"
                train(compose("train", [*overrides, *ranks]), run)
                if rank == 0:
                    (run / "logged.json").write_text(json.dumps(logged))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`folder(name, precision, world)` is that of the run on so many processes, made once."""
    folder = tmp_path_factory.mktemp("worlds")

    def holding(name, precision, world):
        made = folder / f"{world} {precision}{name}"
        if not made.exists():
            together(world, process, world, folder, {name: RUNS[name]}, (precision,))
        return made

    return holding


def difference(one, other):
    """Relative to the larger, or to 1 where both are small."""
    return abs(one - other) / max(1.0, abs(one), abs(other))


QUICK = [("", "64-true"), (" senses", "32-true")]


@pytest.mark.parametrize("world", [2, slow(4)])
@pytest.mark.parametrize(
    ("name", "precision"),
    [case if case in QUICK else slow(*case) for case in product(RUNS, BOUND)],
)
def test_more_ranks_change_no_number(folder, world, precision, name):
    alone, shared = (folder(name, precision, count) for count in (1, world))
    one, other = (json.loads((run / "logged.json").read_text()) for run in (alone, shared))
    assert one.keys() == other.keys()
    assert {"train/loss 0", "train/elbo 6", "val/loss 8", *OWN[name]} <= one.keys()
    # beta_effective is a quotient of small differences of large numbers, which are compared
    # themselves.
    worst = {
        key: difference(value, other[key])
        for key, value in one.items()
        if "beta_effective" not in key
    }
    before = weights(alone)
    after = weights(shared)
    worst |= {
        f"weights {key}": (
            (before[key].double() - after[key].double()).norm()
            / before[key].double().norm().clamp(min=1e-30)
        ).item()
        for key in before
    }
    largest = max(worst, key=worst.get)
    print(
        f"{world} ranks, {precision}: {len(worst)} numbers, the largest difference"
        f" {worst[largest]:.1e} in {largest}"
    )
    assert worst[largest] < BOUND[precision]


@pytest.mark.slow
def test_what_holds_of_each_quantity_on_two_ranks(tmp_path):
    """The README's table, printed: a difference in the last bit of a code is one in a score, more
    or less of one.
    """
    for world in (1, 2):
        together(world, process, world, tmp_path, WIDE_RUNS)
    worst = {kind: [0.0] * len(BOUND) for kind in HOLDS}
    where = {}
    for place, precision in enumerate(BOUND):
        for name in WIDE_RUNS:
            one, other = (
                json.loads((tmp_path / f"{world} {precision}{name}" / "logged.json").read_text())
                for world in (1, 2)
            )
            assert one.keys() == other.keys()
            for key, value in one.items():
                found = difference(value, other[key])
                kind = kind_of(key)
                if found >= worst[kind][place]:
                    worst[kind][place] = found
                    where[kind, place] = f"{key}{name}"
    print("\n| tags | float32 | float64 |\n|---|---|---|")
    for kind, found in worst.items():
        print(f"| `{kind}` | {found[0]:.0e} | {found[1]:.0e} |")
    print(where)
    assert all(
        found[place] <= HOLDS[kind][place] for kind, found in worst.items() for place in range(2)
    ), worst


def kind_of(key):
    """The row of the table that a tag is in."""
    return next(
        (kind for kind in HOLDS if any(word in key for word in kind.split(", "))), "the rest"
    )
