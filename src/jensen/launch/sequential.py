"""Jobs in this process, one after the other."""

from collections.abc import Sequence

from hydra.core.utils import JobStatus, configure_log, run_job
from hydra.types import TaskFunction
from hydra.utils import instantiate
from omegaconf import open_dict

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
    for trainer in {str(job.cfg.trainer): job.cfg.trainer for job in jobs}.values():
        refuse_ranks(
            instantiate(
                trainer, logger=False, enable_checkpointing=False, enable_progress_bar=False
            )
        )
    for number, job in enumerate(jobs):
        say(f"[{number + 1}/{len(jobs)}] {job.folder.name}")
        config = sweep.context.config_loader.load_sweep_config(sweep.config, job.placed)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        done = run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", sweep.context)
        configure_log(sweep.config.hydra.hydra_logging, sweep.config.hydra.verbose)
        if done.status == JobStatus.FAILED:
            job.problem = first_line(done._return_value)
