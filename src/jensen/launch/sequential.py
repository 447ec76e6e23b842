"""Jobs in this process, one after the other."""

from collections.abc import Sequence

from hydra.core.utils import JobStatus, configure_log, run_job
from hydra.types import TaskFunction
from hydra.utils import instantiate
from omegaconf import open_dict
from pytorch_lightning import Trainer

from jensen.launch.job import Job
from jensen.launch.sweep import Sweep
from jensen.launch.trainer import refuse_ranks
from jensen.run.folder import first_line
from jensen.run.words import quieten, say


def launch(sweep: Sweep, jobs: Sequence[Job], task: TaskFunction) -> None:
    """Raises:
    InputError: a trainer would start ranks of its own, each of which would repeat the sweep.
    """
    quieten()
    trainers(jobs)
    for number, job in enumerate(jobs):
        say(f"[{number + 1}/{len(jobs)}] {job.folder.name}")
        do(sweep, job, number, task)
        configure_log(sweep.config.hydra.hydra_logging, sweep.config.hydra.verbose)


def trainers(jobs: Sequence[Job]) -> dict[str, Trainer]:
    """A trainer of each kind that the jobs configure, by its configuration.

    Raises:
        InputError: one would start ranks of its own.
    """
    found = {str(job.cfg.trainer): job.cfg.trainer for job in jobs}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    made = {key: instantiate(cfg, **quiet) for key, cfg in found.items()}
    for trainer in made.values():
        refuse_ranks(trainer)
    return made


def do(sweep: Sweep, job: Job, number: int, task: TaskFunction) -> None:
    """Do a job as Hydra does one of a sweep."""
    config = sweep.context.config_loader.load_sweep_config(sweep.config, job.placed)
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    done = run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", sweep.context)
    if done.status == JobStatus.FAILED:
        job.problem = first_line(done._return_value)
