"""Jobs of SLURM's, through hydra-submitit-launcher."""

import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobStatus
from hydra.types import TaskFunction

from jensen.attempt import first_line
from jensen.base.errors import InputError
from jensen.launch.sweep import Job, Sweep


def launch(sweep: Sweep, jobs: Sequence[Job], task: TaskFunction, settings: dict[str, Any]) -> None:
    """Submits an array of jobs and waits for it. Each looks at its folder again when it starts.

    Raises:
        InputError: hydra-submitit-launcher is not installed; the ranks that SLURM starts are not those that a job wants.
    """
    try:
        from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
    except ImportError as error:
        raise InputError(
            f"hydra/launcher=slurm needs a package that is not installed ({error}): expected hydra-submitit-launcher; pip"
            " install 'jensen[slurm]'"
        ) from error
    for job in jobs:
        for name, key in (("tasks_per_node", "devices"), ("nodes", "num_nodes")):
            if isinstance(wanted := job.cfg.trainer[key], int) and settings[name] != wanted:
                raise InputError(
                    f"hydra.launcher.{name} is {settings[name]} and trainer.{key} is {wanted}: expected the same number,"
                    " since SLURM starts the ranks; set one to the other"
                )
    if not jobs:
        return
    # Until the first step a signal waits: submitit's own start takes seconds, in which it would end the job.
    submitit = SlurmLauncher(**settings, srun_args=[sys.executable, "-m", "jensen.base.signals"])
    submitit.setup(hydra_context=sweep.context, task_function=task, config=sweep.config)
    try:
        for job, done in zip(jobs, submitit.launch([job.placed for job in jobs], initial_job_idx=0), strict=True):
            if done.status == JobStatus.FAILED:
                job.problem = first_line(done._return_value)
    except RuntimeError as error:  # submitit's: it could not submit, or a job ended without a word
        if not type(error).__module__.startswith("submitit"):
            raise
        for job in jobs:
            job.problem = f"SLURM: {first_line(error)}"
