"""SLURM: the jobs of a sweep, through hydra-submitit-launcher, and the tasks of a job, as the ranks
that a trainer expects.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobStatus
from hydra.types import TaskFunction
from lightning_fabric.plugins.environments import (
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning import Trainer

from jensen.base.errors import InputError
from jensen.launch.job import Job
from jensen.launch.sweep import Sweep
from jensen.run.folder import first_line


def launch(sweep: Sweep, jobs: Sequence[Job], task: TaskFunction, settings: dict[str, Any]) -> None:
    """Submits an array of jobs and waits for it. Each looks at its folder again when it starts.

    Raises:
        InputError: hydra-submitit-launcher is not installed; the ranks that SLURM starts are not
            those that a job wants.
    """
    try:
        from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
    except ImportError as error:
        raise InputError(
            f"hydra/launcher=slurm needs a package that is not installed ({error}): expected"
            " hydra-submitit-launcher; pip install 'jensen[slurm]'"
        ) from error
    for job in jobs:
        for name, key in (("tasks_per_node", "devices"), ("nodes", "num_nodes")):
            if isinstance(wanted := job.cfg.trainer[key], int) and settings[name] != wanted:
                raise InputError(
                    f"hydra.launcher.{name} is {settings[name]} and trainer.{key} is {wanted}:"
                    " expected the same number, since SLURM starts the ranks; set one to the other"
                )
    if not jobs:
        return
    # Until the first step a signal waits: submitit's own start takes seconds, in which it would end
    # the job.
    submitit = SlurmLauncher(**settings, srun_args=[sys.executable, "-m", "jensen.base.signals"])
    submitit.setup(hydra_context=sweep.context, task_function=task, config=sweep.config)
    try:
        for job, done in zip(
            jobs, submitit.launch([job.placed for job in jobs], initial_job_idx=0), strict=True
        ):
            if done.status == JobStatus.FAILED:
                job.problem = first_line(done._return_value)
    except RuntimeError as error:  # submitit's: it could not submit, or a job ended without a word
        if not type(error).__module__.startswith("submitit"):
            raise
        for job in jobs:
            job.problem = f"SLURM: {first_line(error)}"


def check_tasks() -> None:
    """Raises: InputError: the job's tasks are not counted by node, so that no task knows its
    place.
    """
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if _starts_ranks() and tasks != "1" and "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise InputError(
            f"this SLURM job has --ntasks={tasks}: expected --ntasks-per-node, the ranks of a"
            " node; submit it so"
        )


def check_ranks(trainer: Trainer) -> None:
    """Raises: InputError: the trainer's ranks are others than the job's tasks."""
    if not _starts_ranks():
        alone = isinstance(
            getattr(trainer.strategy, "cluster_environment", None), LightningEnvironment
        )
        if trainer.num_nodes > 1 and alone and "NODE_RANK" not in os.environ:
            raise InputError(
                f"trainer.num_nodes is {trainer.num_nodes} but nothing says which of them this is:"
                " expected srun or torchrun, or NODE_RANK, MASTER_ADDR and MASTER_PORT in the"
                " environment; or set trainer.num_nodes=1"
            )
        return
    ranks = {"nodes": trainer.num_nodes, "ntasks-per-node": trainer.num_devices}
    nodes = int(os.environ["SLURM_NNODES"])
    devices = int(os.environ["SLURM_NTASKS"]) // nodes
    if ranks != {"nodes": nodes, "ntasks-per-node": devices}:
        options = " ".join(f"--{option}={count}" for option, count in ranks.items())
        raise InputError(
            f"trainer.num_nodes is {trainer.num_nodes} and trainer.devices {trainer.num_devices}"
            f" but this SLURM job has {nodes} nodes with {devices} tasks each: expected one task a"
            f" rank; submit with {options}, or set trainer.num_nodes={nodes}"
            f" trainer.devices={devices}"
        )
    if nodes * devices > 1 and "SLURM_STEP_ID" not in os.environ:
        raise InputError(
            f"this SLURM job has {nodes * devices} tasks but only one was started: expected srun"
            " before python, as in scripts/slurm/train.sbatch"
        )


def _starts_ranks() -> bool:
    """Tell whether Lightning takes the job's tasks for its ranks: under torchrun, and in an
    interactive shell, it does not.
    """
    return (
        "SLURM_NNODES" in os.environ
        and SLURMEnvironment.detect()
        and not TorchElasticEnvironment.detect()
    )
