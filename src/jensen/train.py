"""Trains what the configuration describes: `python -m jensen.train [overrides]`."""

import sys
from pathlib import Path

if __name__ == "__main__" and not {"-m", "--multirun"} & {*sys.argv}:
    import atexit

    from jensen.core import signals

    signals.listen()  # the imports below take seconds, and a signal in them must not be lost
    atexit.register(signals.ignore)

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning import seed_everything

from jensen import naming, record, settings, tether
from jensen.attempt import attempt
from jensen.core.errors import check_choice
from jensen.program import program, quieten, say
from jensen.run import resume_from
from jensen.trainer import make


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
        trainer = make(cfg, folder)
        checkpoint = resume_from(folder)
        say(f"{'continuing' if checkpoint else 'training'} in {folder}")
        trainer.fit(algorithm, data, ckpt_path=checkpoint, weights_only=True)
        if "val/elbo" not in trainer.callback_metrics:  # it was killed after its last step
            loggers, trainer.loggers = trainer.loggers, []  # that step is logged
            trainer.validate(algorithm, data, verbose=False)
            trainer.loggers = loggers
        metrics, step = dict(trainer.callback_metrics), trainer.global_step
        scores = record.of_training(cfg, trainer, folder)
        if data.validation and "test" in data.splits:
            trainer.test(algorithm, data, verbose=False, weights_only=True)
            metrics |= trainer.callback_metrics
        results = {name: float(value) for name, value in metrics.items() if not name.startswith("train/")}
        this.finish(step, results, scores)
    return results


@program("train")
def main(cfg: DictConfig) -> float | None:
    if cfg.maximise is not None:
        check_choice("maximise", str(cfg.maximise).split("/")[0], ("val", "test", *cfg.diagnostics))
    folder = Path(HydraConfig.get().runtime.output_dir)
    results = train(cfg, folder)
    for name in (name for name in results if name.startswith(("val/", "test/"))):
        say(f"{name:16} {results[name]:10.3f} nats per example")
    say(f"tensorboard --logdir {folder}")
    return record.maximised(cfg, results)


naming.register()
if __name__ == "__main__":
    tether.hold()
    main()
