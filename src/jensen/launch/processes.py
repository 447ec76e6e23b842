"""Jobs as processes of their own, so many at a time, each with its share of the GPUs."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from omegaconf import DictConfig, OmegaConf

from jensen.base import signals
from jensen.base.errors import InputError, check_count
from jensen.base.files import within
from jensen.launch.console import quoted
from jensen.launch.job import Job
from jensen.launch.parent import ENDS_WITH_PARENT
from jensen.launch.server import MODULE, Forked, can_fork
from jensen.launch.sweep import Sweep
from jensen.launch.threads import cores
from jensen.run import peers
from jensen.run.words import say

GRACE = 60.0
"""Seconds in which a job that is asked to stop may save itself."""
_LOOK = 0.1
STOPPED = {peers.LOST, *(128 + number for number in signals.ASKING | {signal.SIGKILL})}
"""Statuses of a job that nothing was wrong with."""
Slot = tuple[str, ...] | None
"""GPUs of one job; None sets none."""
Process = subprocess.Popen[bytes] | Forked


def launch(
    sweep: Sweep, jobs: Sequence[Job], n_jobs: int | None, devices: str | Sequence[int | str]
) -> None:
    """Raises:
    InputError: more jobs at a time than the GPUs serve.
    """
    if jobs:
        free = slots(visible(jobs, devices), width(jobs[0].cfg), n_jobs)
        run(jobs, free, common(sweep.config))


def visible(jobs: Sequence[Job], devices: str | Sequence[int | str]) -> list[str]:
    """The GPUs to share out, by what CUDA_VISIBLE_DEVICES calls them."""
    listed = isinstance(devices, Sequence) and not isinstance(devices, str) and len(devices) > 0
    if devices != "auto" and not (listed and all(map(_is_device, devices))):
        raise InputError(
            f"hydra.launcher.devices is {devices}: expected auto, or a list such as [0,1]"
        )
    if any(job.cfg.trainer.accelerator == "cpu" for job in jobs):
        return []
    if devices != "auto":
        return [str(device) for device in devices]
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        named.split(",") if named else [str(device) for device in range(torch.cuda.device_count())]
    )


def _is_device(device: object) -> bool:
    """A number or a name, as CUDA_VISIBLE_DEVICES takes them."""
    return (isinstance(device, int) and not isinstance(device, bool) and device >= 0) or (
        isinstance(device, str) and device != ""
    )


def width(cfg: DictConfig) -> int:
    """Number of GPUs that a job takes; 0 is all there are."""
    wanted = cfg.trainer.devices
    if wanted in ("auto", -1, "-1"):
        return 0
    if isinstance(wanted, str) and "," in wanted:
        return len(wanted.strip(",").split(","))
    return int(wanted) if isinstance(wanted, int | str) else len(wanted)


def slots(gpus: Sequence[str], each: int, n_jobs: int | None) -> list[Slot]:
    """One for each job that runs at a time.

    Raises:
        InputError: n_jobs is no count, or more than the GPUs serve.
    """
    if n_jobs is not None:
        check_count("hydra.launcher.n_jobs", n_jobs)
    if not gpus:
        return [None] * (n_jobs or 1)
    each = each or len(gpus)
    shares: list[Slot] = [
        tuple(gpus[start : start + each]) for start in range(0, len(gpus) - each + 1, each)
    ]
    if (n_jobs or 1) > len(shares):
        raise InputError(
            f"hydra.launcher.n_jobs is {n_jobs or 1} and a job takes {each} of {len(gpus)} GPUs:"
            " expected at most"
            f" {len(shares)}; lower it, or name a GPU more than once in hydra.launcher.devices"
        )
    return shares[:n_jobs]


def common(config: DictConfig) -> list[str]:
    """The part of a job's command line that is Hydra's: what the sweep was given, less what is
    about sweeping.
    """
    given: Any = OmegaConf.to_container(config.hydra.overrides.hydra)  # as they were written
    kept = [
        override
        for override in given
        if not override.lstrip("+~").startswith(
            ("hydra/launcher", "hydra/sweeper", "hydra/job_logging")
        )
        and not override.lstrip("+~").startswith(
            ("hydra.launcher", "hydra.sweep", "hydra.mode", "hydra.run")
        )
    ]
    folders = [
        source.path
        for source in config.hydra.runtime.config_sources
        if source.provider == "command-line"
    ]
    flags = [
        "--config-name",
        config.hydra.job.config_name,
        *(word for path in folders for word in ("--config-dir", path)),
    ]
    return [
        *flags,
        *kept,
        "hydra/job_logging=stdout",
    ]  # Hydra's parser takes no flag after an override


def run(jobs: Sequence[Job], slots: Sequence[Slot], arguments: Sequence[str]) -> None:
    """Until all have ended. Whatever ends this ends them, by a signal after which a run saves
    itself and can continue.
    """
    waiting = deque(jobs)
    free = deque(slots)
    running: dict[int, tuple[Job, Slot, Process]] = {}
    try:
        with interruptible():
            while waiting or running:
                while waiting and free:
                    job = waiting.popleft()
                    slot = free.popleft()
                    process = start(job, slot, arguments, at_once=len(slots))
                    running[process.pid] = job, slot, process
                    gpus = f" on GPU {', '.join(slot)}" if slot else ""
                    say(
                        f"[{len(jobs) - len(waiting)}/{len(jobs)}] {job.folder.name}{gpus},"
                        f" process {process.pid}"
                    )
                time.sleep(_LOOK)
                for pid, (job, slot, process) in [*running.items()]:
                    if process.poll() is not None:
                        del running[pid]
                        end(process)
                        free.append(slot)
                        if process.returncode:
                            job.stopped = process.returncode < 0 or process.returncode in STOPPED
                            job.problem = f"ended with status {process.returncode}, see {log(job)}"
    finally:
        stop([process for _, _, process in running.values()])


def log(job: Job) -> Path:
    return job.folder / "train.log"


def start(job: Job, slot: Slot, arguments: Sequence[str], at_once: int) -> Process:
    """`python -m jensen.train`, without -m of its own, as the leader of a group that ranks it
    starts belong to; forked where that can be.
    """
    environment = os.environ | {ENDS_WITH_PARENT: "1", "PYTHONUNBUFFERED": "1"}
    if slot is not None:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(slot)
    if at_once > 1:  # or each would take all cores, with threads or with processes of joblib
        share = str(max(1, cores() // at_once))
        environment.setdefault("OMP_NUM_THREADS", share)
        environment.setdefault("LOKY_MAX_CPU_COUNT", share)
    words = [*arguments, *job.overrides, f"hydra.run.dir={quoted(job.folder)}"]
    job.folder.mkdir(parents=True, exist_ok=True)
    within(job.folder, log(job))
    if can_fork():
        return Forked(words, environment, log(job))
    with log(job).open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", MODULE, *words],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            process_group=0,
        )


def stop(processes: Sequence[Process]) -> None:
    """Asks all groups to stop, and after a while does not ask."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    if processes:
        say(f"stopping {len(processes)} jobs, which save themselves first")
    patience = time.monotonic() + GRACE
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, patience - time.monotonic()))
    for process in processes:
        end(process)


def end(process: Process) -> None:
    """Leave none of the ranks whose leader is gone."""
    _signal(process, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def _signal(process: Process, number: signal.Signals) -> None:
    """Signal the group, or the process if it has just been forked and leads none yet."""
    alive = process.poll() is None
    with suppress(ProcessLookupError):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            if alive:
                os.kill(process.pid, number)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end a sweep as Ctrl-C does."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in signals.ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
