"""Kills small runs (SIGKILL) at random moments, starts them again, and compares them with runs that
were not killed.

    scripts/faults [N] [SEED] [CASE ...]      N kills, over the cases in turn

A run is `jensen.launch.training.train` in a process forked from this one, which has imported everything; or,
in the case of that name, the whole command `python -m jensen.train`, which may die while it starts.
Of two ranks one is killed, or both. Two kills in five wait until a checkpoint is being written.
"""

import multiprocessing
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import torch
from hydra import compose, initialize_config_dir
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from resume import differences
from tiny import TINY

from jensen.launch.training import train
from jensen.run.conf import conf_folder

OVERRIDES = (
    *(
        *TINY,
        "trainer.accelerator=cpu",
        "trainer.max_steps=40",
        "trainer.val_check_interval=15",
        "trainer.log_every_n_steps=2",
    ),
    *(
        "callbacks=[checkpoint,diagnose]",
        "diagnostics=[decomposition,samples,codes]",
        "callbacks.last.seconds=0",
        "callbacks.last.share=1e9",
    ),
    "+trainer.enable_progress_bar=false",
    *(
        "+schedule@algorithm.lr_scale=linear",
        "algorithm.lr_scale.steps=30",
        "algorithm.lr_scale.end=0.1",
    ),
)
EM = (
    *(
        "algorithm=em",
        "data=blobs",
        "data.size=600",
        "data.validation=60",
        "data.batch_size=128",
        "model.components=4",
    ),
    *(
        "trainer.accelerator=cpu",
        "trainer.max_steps=40",
        "algorithm.tolerance=0",
        "trainer.log_every_n_steps=1",
    ),
    *("callbacks=[checkpoint,diagnose]", "callbacks.last.seconds=0", "callbacks.last.share=1e9"),
    "+trainer.enable_progress_bar=false",
)
SENSES = (
    "data=incomplete",
    "data.of.size=300",
    "data.of.validation=60",
    "model=multimodal",
    "model.encoders.each.hidden=[16]",
    "model.fusion=mixture",
)
MIXTURE = ("model/prior=mixture", "model.prior.components=4", "model.prior.warmup=5")
CASES = {
    "plain": (),
    "mixture prior": MIXTURE,
    "vamp prior": ("model/prior=vamp", "model.prior.pseudo_inputs=5"),
    "flows": (
        *("model/prior=flow", "model/posterior=flow", "diagnostics=[samples,codes]"),
        *("data=chain", "model/likelihood=made", "model.likelihood.hidden=[8]"),
    ),
    "diffusion": (
        *("model/prior=diffusion", "model.prior.steps=5", "diagnostics=[samples,codes]"),
        *("model/likelihood=pixelcnn", "model.likelihood.channels=4", "model.likelihood.layers=1"),
    ),
    "control": ("objective=control", "objective.target=5", "model/likelihood=optimal_normal"),
    "factor": ("objective=factor", "objective.hidden=[8]"),
    "accumulation": ("trainer.accumulate_grad_batches=3", *MIXTURE),
    "two workers": ("data.workers=2",),
    "64-true": ("trainer.precision=64-true", *MIXTURE),
    "EM": ("trainer.check_val_every_n_epoch=7", "model.components=9", "model.max_iter=0"),
    "EM 64-true": ("trainer.check_val_every_n_epoch=7", "trainer.precision=64-true"),
    "stepwise EM": (
        "algorithm=stepwise_em",
        "trainer.check_val_every_n_epoch=null",
        "trainer.val_check_interval=15",
    ),
    "senses": (),
    "two ranks": ("trainer=ddp", "trainer.devices=2", *MIXTURE),
    "the command": (),
}


def overrides(case: str) -> tuple[str, ...]:
    if case == "senses":
        return (*SENSES, *OVERRIDES[len(TINY) :], "data.batch_size=12", "latent_dim=3")
    return (*(EM if "EM" in case else OVERRIDES), *CASES[case])


PATIENCE = 600.0
ALONE = 10.0
"""Seconds that a run has to end, and a rank that lost the other, before it is killed too, as a
launcher would.
"""

Process = multiprocessing.Process | subprocess.Popen


def start(case: str, folder: Path, log: TextIO) -> list[Process]:
    """The processes of a run, its ranks, just begun."""
    if case == "the command":
        line = [sys.executable, "-m", "jensen.train", *overrides(case), f"hydra.run.dir={folder}"]
        return [subprocess.Popen(line, stdout=log, stderr=log)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = range(2 if case == "two ranks" else 1)
    fork = multiprocessing.get_context("fork")
    processes = [
        fork.Process(target=_train, args=(case, folder, log, rank, len(ranks), port))
        for rank in ranks
    ]
    for process in processes:
        process.start()
    return processes


def _train(case: str, folder: Path, log: TextIO, rank: int, world: int, port: int) -> None:
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    warnings.simplefilter("ignore")
    if world > 1:
        rendezvous = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "LOCAL_RANK": rank,
            "NODE_RANK": 0,
            "WORLD_SIZE": world,
        }
        os.environ.update({name: str(value) for name, value in rendezvous.items()})
        rank_zero_only.rank = rank
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        cfg = compose("train", [*overrides(case)])
    train(cfg, folder)


def wait(process: Process, seconds: float) -> int | None:
    """The exit status; None if it goes on for so many seconds."""
    if isinstance(process, subprocess.Popen):
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
    process.join(seconds)
    return process.exitcode


def finish(case: str, folder: Path, log: TextIO) -> float:
    """Lets a run end by itself; the seconds it took."""
    begin = time.monotonic()
    statuses = [wait(process, PATIENCE) for process in start(case, folder, log)]
    if any(status != 0 for status in statuses):  # None: it goes on, and would be compared amid it
        raise RuntimeError(f"{case} in {folder} ended with {statuses}: see {log.name}")
    return time.monotonic() - begin


def kill(case: str, folder: Path, log: TextIO, seconds: float, chance: random.Random) -> bool:
    """Starts a run and kills it at a random moment of so many seconds; False if it had ended by
    then.
    """
    processes = start(case, folder, log)
    if chance.random() < 0.4:
        sightings = chance.randrange(1, 6)
        deadline = time.monotonic() + seconds
        while sightings and time.monotonic() < deadline:
            sightings -= any((folder / "checkpoints").glob(".*.partial"))
            time.sleep(0.0003)
    else:
        time.sleep(chance.uniform(0, 0.7 * seconds))  # what is left takes less than the whole
    victims = processes if chance.random() < 0.5 else [chance.choice(processes)]
    killed = [process.pid for process in victims if wait(process, 0) is None]
    for process in victims:
        process.kill()
    for process in processes:
        if wait(process, ALONE) is None:
            process.kill()
            wait(process, PATIENCE)
    return bool(killed)


def compare(
    case: str,
    whole: Path,
    folder: Path,
    kills: int,
    seconds: float,
    log: TextIO,
    chance: random.Random,
) -> tuple[int, list[str]]:
    """Of a run that is killed so often, or until it ends: the number of kills, and what differs
    from the run in `whole`.
    """
    done = 0
    while done < kills and kill(case, folder, log, seconds, chance):
        done += 1
    finish(case, folder, log)
    return done, differences(whole, folder)


def main(arguments: Sequence[str]) -> int:
    kills, seed = (int(given) for given in (*arguments, *("40", "0")[len(arguments) :])[:2])
    cases = [*arguments[2:]] or [*CASES]
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    base = Path(tempfile.mkdtemp(prefix="jensen-faults-"))
    chance = random.Random(seed)
    counts = dict.fromkeys(cases, 0)
    runs = 0
    failed = 0
    with (base / "log.txt").open("a") as log:
        seconds = {case: finish(case, base / case / "whole", log) for case in cases}
        while sum(counts.values()) < kills:
            case = cases[runs % len(cases)]
            folder = base / case / str(runs)
            many = min(chance.randrange(2, 8), kills - sum(counts.values()))
            done, found = compare(
                case, folder.parent / "whole", folder, many, seconds[case], log, chance
            )
            print(
                f"{case}: {done} kills,"
                f" {f'{len(found)} differences: {found[:3]}' if found else 'equal'}",
                flush=True,
            )
            counts[case] += done
            runs += 1
            failed += bool(found)
            if not found:
                shutil.rmtree(folder)
    print(", ".join(f"{case} {count}" for case, count in counts.items()))
    print(
        f"{sum(counts.values())} kills, {runs} runs, {runs - failed} equal to an uninterrupted one"
        f" bit for bit, {failed} not"
    )
    if failed:
        print(f"what they left is in {base}")
    else:
        shutil.rmtree(base)
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
