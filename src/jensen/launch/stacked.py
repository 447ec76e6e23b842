"""Jobs that differ in numbers alone as one program, in this process."""

from collections.abc import Sequence

from hydra.core.utils import configure_log
from hydra.types import TaskFunction

from jensen.base.errors import InputError, check_choice, check_count
from jensen.launch.job import Job
from jensen.launch.sweep import Sweep
from jensen.run.words import quieten, say


def launch(
    sweep: Sweep,
    jobs: Sequence[Job],
    task: TaskFunction,
    members: str | int = "auto",
    convolutions: str = "branches",
) -> None:
    """Raises:
    InputError: several ranks, or another algorithm, before anything is trained.
    """
    check_count("hydra.launcher.members", members, other="auto")
    check_choice("hydra.launcher.convolutions", convolutions, ("branches", "grouped"))
    if jobs:
        _train(sweep, jobs, task, members, convolutions)


def _train(
    sweep: Sweep, jobs: Sequence[Job], task: TaskFunction, members: str | int, convolutions: str
) -> None:
    from jensen.base.ranks import world  # these imports take seconds
    from jensen.data.source import shared
    from jensen.launch import groups, sequential
    from jensen.launch.together import Together

    quieten()
    trainers = sequential.trainers(jobs)
    if world()[1] > 1 or any(trainer.world_size > 1 for trainer in trainers.values()):
        raise InputError(
            "hydra/launcher=stacked trains several models on one device, and trainer.devices asks"
            " for several ranks: expected trainer.devices=1, or hydra/launcher=subprocess"
        )
    planned = groups.plan(jobs, trainers, members)
    for group in planned:
        say(group.said())
    begun = 0
    for group in planned:
        if not group.why:
            say(f"[{begun + 1}-{begun + len(group.jobs)}/{len(jobs)}] together")
            with shared():
                Together(sweep, group.jobs, begun, task, convolutions).run()
        for number, job in enumerate(group.jobs if group.why else ()):
            say(f"[{begun + number + 1}/{len(jobs)}] {job.folder.name}")
            sequential.do(sweep, job, begun + number, task)
        configure_log(sweep.config.hydra.hydra_logging, sweep.config.hydra.verbose)
        begun += len(group.jobs)
