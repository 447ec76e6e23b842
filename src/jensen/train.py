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
from omegaconf import DictConfig

from jensen.base import signals
from jensen.base.errors import check_choice
from jensen.launch import naming
from jensen.launch.console import program
from jensen.run import record
from jensen.run.folder import open_run
from jensen.run.summary import brief, summary
from jensen.run.words import say


@program("train")
def main(cfg: DictConfig) -> float | None:
    if cfg.maximise is not None:
        check_choice("maximise", str(cfg.maximise).split("/")[0], ("val", "test", *cfg.diagnostics))
    swept = HydraConfig.get().mode == RunMode.MULTIRUN
    if HydraConfig.get().runtime.choices.get("hydra/sweeper") == "maximise" and not swept:
        say("hydra/sweeper=maximise chooses nothing in one run; -m in front has Optuna choose many")
    folder = Path(HydraConfig.get().runtime.output_dir)
    with open_run(folder, cfg) as this:
        if (results := this.found()) is None:
            with signals.importing():
                from jensen.launch import threads, training
            threads.take()
            results = training.fit(this)
    for line in brief(folder, results) if swept else summary(folder, cfg, results):
        say(line)
    return record.maximised(cfg.maximise, results) if results else None


naming.register()
if __name__ == "__main__":
    main()
