"""Whether the tasks of a SLURM job are the ranks that the trainer expects, before they wait for one another."""

import os

from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning import Trainer

from jensen.base.errors import InputError


def check_tasks() -> None:
    """Raises: InputError: the job's tasks are not counted by node, so that no task knows its place."""
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if _starts_ranks() and tasks != "1" and "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise InputError(f"this SLURM job has --ntasks={tasks}: expected --ntasks-per-node, the ranks of a node; submit it so")


def check_ranks(trainer: Trainer) -> None:
    """Raises: InputError: the trainer's ranks are others than the job's tasks."""
    if not _starts_ranks():
        alone = isinstance(getattr(trainer.strategy, "cluster_environment", None), LightningEnvironment)
        if trainer.num_nodes > 1 and alone and "NODE_RANK" not in os.environ:
            raise InputError(
                f"trainer.num_nodes is {trainer.num_nodes} but nothing says which of them this is: expected srun or torchrun,"
                " or NODE_RANK, MASTER_ADDR and MASTER_PORT in the environment; or set trainer.num_nodes=1"
            )
        return
    ranks = {"nodes": trainer.num_nodes, "ntasks-per-node": trainer.num_devices}
    nodes = int(os.environ["SLURM_NNODES"])
    devices = int(os.environ["SLURM_NTASKS"]) // nodes
    if ranks != {"nodes": nodes, "ntasks-per-node": devices}:
        options = " ".join(f"--{option}={count}" for option, count in ranks.items())
        raise InputError(
            f"trainer.num_nodes is {trainer.num_nodes} and trainer.devices {trainer.num_devices} but this SLURM job has {nodes}"
            f" nodes with {devices} tasks each: expected one task a rank; submit with {options}, or set"
            f" trainer.num_nodes={nodes} trainer.devices={devices}"
        )
    if nodes * devices > 1 and "SLURM_STEP_ID" not in os.environ:
        raise InputError(
            f"this SLURM job has {nodes * devices} tasks but only one was started: expected srun before python, as in"
            " scripts/slurm/train.sbatch"
        )


def _starts_ranks() -> bool:
    """Whether Lightning takes the job's tasks for its ranks: under torchrun, and in an interactive shell, it does not."""
    return "SLURM_NNODES" in os.environ and SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
