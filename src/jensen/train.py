"""Trains what the configuration describes: `python -m jensen.train [overrides]`."""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not {"-m", "--multirun"} & {*sys.argv}:
    from jensen.core import signals

    signals.listen()  # the imports below take seconds, and a signal in them must not be lost

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, Trainer, seed_everything

from jensen import elastic, naming, settings, slurm, tether
from jensen.attempt import attempt
from jensen.callbacks.diagnose import Diagnose
from jensen.core.errors import InputError, check_choice
from jensen.program import program, quieten, say
from jensen.record import numbers
from jensen.run import resume_from


def train(cfg: DictConfig, folder: Path) -> dict[str, float]:
    """Fits `cfg.algorithm` to `cfg.data` and leaves the run in `folder`; a run that is there already is continued.

    Returns `val/...` and the diagnostics' scalars of the last step and, where the data have a test split that was not
    validated on, `test/...`: of a run that is finished already, as it wrote them down.
    """
    quieten()
    with attempt(folder, cfg) as this:
        settings.check(cfg)
        seed_everything(cfg.seed, verbose=False)  # the initial weights; every other draw names its own key
        data = instantiate(cfg.data)
        algorithm = instantiate(cfg.algorithm)
        if (results := this.begin(data)) is not None:
            say(f"{folder} is finished: nothing to do")
            return results
        logger = instantiate(cfg.logger, save_dir=folder)
        callbacks = [*instantiate(cfg.callbacks).values()]
        slurm.check_tasks()
        elastic.join()
        trainer: Trainer = instantiate(cfg.trainer, default_root_dir=folder, logger=logger, callbacks=callbacks)
        slurm.check_ranks(trainer)
        check_precision(trainer, cfg.trainer.precision)
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            refuse_ranks(trainer)

        checkpoint = resume_from(folder)
        say(f"{'continuing' if checkpoint else 'training'} in {folder}")
        trainer.fit(algorithm, data, ckpt_path=checkpoint, weights_only=True)
        if "val/elbo" not in trainer.callback_metrics:  # it was killed after its last step
            loggers, trainer.loggers = trainer.loggers, []  # that step is logged
            trainer.validate(algorithm, data, verbose=False)
            trainer.loggers = loggers
        metrics, step = dict(trainer.callback_metrics), trainer.global_step
        scores = scored(cfg, trainer, callbacks, folder)
        if data.validation and "test" in data.splits:
            trainer.test(algorithm, data, verbose=False, weights_only=True)
            metrics |= trainer.callback_metrics
        results = {name: float(value) for name, value in metrics.items() if not name.startswith("train/")}
        this.finish(step, results, scores)
    return results


def scored(cfg: DictConfig, trainer: Trainer, callbacks: Sequence[Callback], folder: Path) -> dict[str, Any]:
    """What jensen.evaluate would write of the last validation."""
    chosen: Any = OmegaConf.to_container(cfg.diagnostics, resolve=True)
    results = {
        name: found for callback in callbacks if isinstance(callback, Diagnose) for name, found in callback.results.items()
    }
    return {
        "run": str(folder),
        "checkpoint": "last",
        "step": trainer.global_step,
        "split": "validation",
        "bound": {
            name.removeprefix("val/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/")
        },
        "version": version("jensen"),
        "diagnostics": {name: {"settings": chosen.get(name)} | numbers(found) for name, found in results.items()},
    }


def check_precision(trainer: Trainer, asked: str) -> None:
    """Where an accelerator cannot do what was asked, Lightning does something else and warns."""
    if asked == "16-mixed" != trainer.precision:
        raise InputError(
            f"trainer.precision is {asked} but the {trainer.strategy.root_device.type} would compute in {trainer.precision}:"
            f" expected trainer.precision={trainer.precision}, 32-true, or a GPU"
        )


def refuse_ranks(trainer: Trainer) -> None:
    """A process that starts its own ranks repeats its whole command line in each, and so the sweep."""
    environment = getattr(trainer.strategy, "cluster_environment", None)  # SLURM and torchrun have started the ranks
    if trainer.strategy.launcher is None or (environment and environment.creates_processes_externally):
        return
    raise InputError(
        "trainer.strategy starts ranks of its own, and in a sweep each would repeat the whole sweep: expected"
        " hydra/launcher=subprocess, or ranks that SLURM or torchrun start, or trainer.devices=1"
    )


@program("train")
def main(cfg: DictConfig) -> float | None:
    if cfg.maximise is not None:
        check_choice("maximise", str(cfg.maximise).split("/")[0], ("val", "test", *cfg.diagnostics))
    folder = Path(HydraConfig.get().runtime.output_dir)
    results = train(cfg, folder)
    for name in (name for name in results if name.startswith(("val/", "test/"))):
        say(f"{name:16} {results[name]:10.3f} nats per example")
    say(f"tensorboard --logdir {folder}")
    return maximised(cfg, results)


def maximised(cfg: DictConfig, results: dict[str, float]) -> float | None:
    """The result that a sweeper is to raise; None where `maximise` names none."""
    if cfg.maximise is None:
        return None
    check_choice("maximise", cfg.maximise, [*results])
    return results[cfg.maximise]


naming.register()
if __name__ == "__main__":
    tether.hold()
    main()
