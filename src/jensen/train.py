"""Train a model and leave a run, which the same command continues: `python -m jensen.train`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    import atexit

    from jensen.base import signals
    from jensen.launch import early, parent

    early.answer("train")
    parent.hold()  # the imports below take seconds, in which the sweep that started this may end
    signals.end_at_interrupt()
    if not {"-m", "--multirun"} & {*sys.argv}:
        signals.listen()  # the imports below take seconds, and a signal in them must not be lost
        atexit.register(signals.ignore)

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning import seed_everything
from torch.nn import Module

from jensen.base.errors import check_choice
from jensen.base.memory import keep_freed
from jensen.callbacks.end import End, TimeUpError
from jensen.callbacks.events import go_after
from jensen.launch import naming, settings
from jensen.launch.console import program
from jensen.launch.trainer import check_end, make, validate_again
from jensen.run import record
from jensen.run.after import begin_after
from jensen.run.folder import open_run, stopping
from jensen.run.load import resume_from
from jensen.run.summary import brief, summary
from jensen.run.words import quieten, say


def train(cfg: DictConfig, folder: Path, model: Module | None = None) -> dict[str, float]:
    """Fits `cfg.algorithm` to `cfg.data` and leaves the run in `folder`; a run that is there
    already is continued.

    Returns `val/...` and the diagnostics' scalars of the last step and, where the data have a test
    split that was not validated on, `test/...`: of a run that is finished already, as it wrote them
    down; of one that `trainer.max_time` has stopped before its end, nothing. A `model` that is
    given is trained in the place of the one that `cfg` would make.
    """
    quieten()
    keep_freed()
    with open_run(folder, cfg) as this:
        settings.check(cfg)
        seed_everything(
            cfg.seed, verbose=False
        )  # the initial weights; every other draw names its own key
        data = instantiate(cfg.data)
        algorithm = instantiate(cfg.algorithm)
        if model is not None:
            algorithm.model = model
        if (results := this.begin(data)) is not None:
            say(f"{folder} is finished: nothing to do")
            return results
        checkpoint, set_back = resume_from(folder)
        begin_after(algorithm, cfg, begun=checkpoint is not None)
        go_after(folder)

        def begin() -> None:
            this.claim()
            set_back()

        end = End(stopping(cfg), this.goes_on, begin)
        trainer = make(cfg, folder, end)
        say(f"{'continuing' if checkpoint else 'training'} in {folder}")
        try:
            trainer.fit(algorithm, data, ckpt_path=checkpoint, weights_only=True)
        except TimeUpError as up:
            say(str(up))
            return {}
        check_end(trainer, end)
        metrics = dict(trainer.callback_metrics)
        step = trainer.global_step
        validated = end.validated == step
        if validated and "val/elbo" not in metrics:  # it was killed after its last validation
            metrics = validate_again(trainer, algorithm, data)
        scores = record.of_training(cfg, trainer, folder)
        if data.source.validation and "test" in data.source.splits:
            trainer.test(algorithm, data, verbose=False, weights_only=True)
            metrics |= trainer.callback_metrics
        results = {
            name: float(value) for name, value in metrics.items() if not name.startswith("train/")
        }
        found = record.found(trainer, validated)
        this.finish(step, end.reason, results, scores, end.epochs, validated, *found)
    return results


@program("train")
def main(cfg: DictConfig) -> float | None:
    if cfg.maximise is not None:
        check_choice("maximise", str(cfg.maximise).split("/")[0], ("val", "test", *cfg.diagnostics))
    folder = Path(HydraConfig.get().runtime.output_dir)
    results = train(cfg, folder)
    swept = HydraConfig.get().mode == RunMode.MULTIRUN
    for line in brief(folder, results) if swept else summary(folder, cfg, results):
        say(line)
    return record.maximised(cfg.maximise, results) if results else None


naming.register()
if __name__ == "__main__":
    main()
