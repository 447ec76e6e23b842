"""A run of gradient or EM, from its configuration to its end."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning import seed_everything
from torch.nn import Module

from jensen.base.memory import keep_freed
from jensen.callbacks.end import End, TimeUpError
from jensen.callbacks.events import go_after
from jensen.launch import settings
from jensen.launch.trainer import check_end, make, validate_again
from jensen.run import results as records
from jensen.run.after import begin_after
from jensen.run.folder import RunFolder, open_run, stopping
from jensen.run.load import resume_from
from jensen.run.words import quieten, say


def train(cfg: DictConfig, folder: Path, model: Module | None = None) -> dict[str, float]:
    """Fits `cfg.algorithm` to `cfg.data` and leaves the run in `folder`; a run that is there
    already is continued.

    Returns `val/...` and the diagnostics' scalars of the last step and, where the data have a test
    split that was not validated on, `test/...`: of a run that is finished already, as it wrote them
    down; of one that `trainer.max_time` has stopped before its end, nothing. A `model` that is
    given is trained in the place of the one that `cfg` would make.
    """
    with open_run(folder, cfg) as this:
        return fit(this, model)


def fit(this: RunFolder, model: Module | None = None) -> dict[str, float]:
    """Do as `train`, in a folder that is held."""
    cfg = this.cfg
    folder = this.folder
    quieten()
    keep_freed()
    settings.check(cfg)
    # The initial weights; every other draw names its own key.
    seed_everything(cfg.seed, verbose=False)
    data = instantiate(cfg.data)
    algorithm = instantiate(cfg.algorithm)
    if model is not None:
        algorithm.model = model
    if (results := this.begin(data)) is not None:
        return results
    checkpoint, set_back = resume_from(folder)
    begin_after(algorithm, cfg, begun=checkpoint is not None)
    go_after(folder)

    def begin() -> None:
        this.claim()
        set_back()

    end = End(stopping(cfg), this.goes_on, begin)
    trainer = make(cfg, folder, end)
    this.started = lambda: getattr(trainer.strategy.launcher, "procs", ())
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
    scores = records.of_training(cfg, trainer, folder)
    if data.source.validation and "test" in data.source.splits:
        trainer.test(algorithm, data, verbose=False, weights_only=True)
        metrics |= trainer.callback_metrics
    results = {
        name: float(value) for name, value in metrics.items() if not name.startswith("train/")
    }
    found = records.found(trainer, validated)
    this.finish(step, end.reason, results, scores, end.epochs, validated, *found)
    trainer.strategy.barrier()  # what rank zero has written is there for all of them
    return results
