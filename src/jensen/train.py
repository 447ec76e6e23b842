"""Trains what the configuration describes: `python -m jensen.train [overrides]`."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning import Trainer, seed_everything

from jensen.core.errors import InputError
from jensen.program import program, quieten, say


def train(cfg: DictConfig, folder: Path) -> dict[str, float]:
    """Fits `cfg.algorithm` to `cfg.data` and leaves the run in `folder`; a run that is there already is continued.

    Returns `val/...` and the diagnostics' scalars of the last step and, where the data have a test split that was not
    validated on, `test/...`.
    """
    quieten()
    seed_everything(cfg.seed, verbose=False)  # the initial weights; every other draw names its own key
    data = instantiate(cfg.data)
    algorithm = instantiate(cfg.algorithm)
    logger = instantiate(cfg.logger, save_dir=folder)
    callbacks = [*instantiate(cfg.callbacks).values()]
    trainer: Trainer = instantiate(cfg.trainer, default_root_dir=folder, logger=logger, callbacks=callbacks)
    refuse_ranks_in_sweep(trainer)

    last = folder / "checkpoints" / "last.ckpt"
    say(f"{'continuing' if last.exists() else 'training'} in {folder}")
    trainer.fit(algorithm, data, ckpt_path=last if last.exists() else None, weights_only=True)
    results = dict(trainer.callback_metrics)
    if data.validation and "test" in data.splits:
        trainer.test(algorithm, data, verbose=False, weights_only=True)
        results |= trainer.callback_metrics
    return {name: float(value) for name, value in results.items() if not name.startswith("train/")}


def refuse_ranks_in_sweep(trainer: Trainer) -> None:
    """A process that starts its own ranks repeats its whole command line in each, and so the sweep."""
    if trainer.strategy.launcher is not None and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise InputError(
            "trainer.strategy starts ranks of its own, and in a sweep each would repeat the whole sweep: start the ranks by"
            " SLURM or torchrun, or sweep with trainer.devices=1"
        )


@program("train")
def main(cfg: DictConfig) -> None:
    folder = Path(HydraConfig.get().runtime.output_dir)
    results = train(cfg, folder)
    for name in (name for name in results if name.startswith(("val/", "test/"))):
        say(f"{name:16} {results[name]:10.3f} nats per example")
    say(f"tensorboard --logdir {folder}")


if __name__ == "__main__":
    main()
