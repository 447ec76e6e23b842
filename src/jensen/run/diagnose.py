"""Diagnostics on a split of a finished run's data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pytorch_lightning import Trainer

from jensen.base.errors import check_choice, check_flag
from jensen.base.memory import Fitting
from jensen.base.ranks import alone, processes
from jensen.callbacks.diagnose import Diagnose
from jensen.data.downloads import downloads
from jensen.data.module import DataModule
from jensen.diagnostics.snapshot import Diagnostic
from jensen.run.folder import incomplete
from jensen.run.load import is_double, restored
from jensen.run.reading import configuration
from jensen.run.record import get_json
from jensen.run.trust import build
from jensen.run.words import quieten, say

SPLITS = ("validation", "test", "train")


def on_run(
    run: Path,
    split: str,
    checkpoint: str,
    diagnostics: Mapping[str, Diagnostic],
    trust: str | Sequence[str] = (),
    download: bool = False,
    label: str = "",
) -> dict[str, Any]:
    """Encodes a split of the run's data once and runs the diagnostics on it; what they were run on.

    Nothing is written but the cache of the data.

    Args:
        trust: modules of yours that the run is made of (`trust.build`).
        download: whether data may be fetched where the run's configuration says so and they are
            missing.
        label: stands before what is said of its progress.
    """
    check_choice("split", split, SPLITS)
    check_flag("download", download)
    with alone():
        return _on_run(run, split, checkpoint, diagnostics, trust, download, label)


def _on_run(
    run: Path,
    split: str,
    checkpoint: str,
    diagnostics: Mapping[str, Diagnostic],
    trust: str | Sequence[str],
    download: bool,
    label: str,
) -> dict[str, Any]:
    quieten()
    algorithm, step = restored(run, checkpoint, trust)
    ended = get_json(run.expanduser() / "finished.json").get("step", step)
    if checkpoint == "last" and ended != step:
        say(
            f"{run}/finished.json says step {ended} and last.ckpt holds step {step}: the command"
            " that trained it mends that"
        )
    cfg = configuration(run)
    if why := incomplete(run.expanduser()):
        most = OmegaConf.select(cfg, "trainer.max_steps")
        of = f" of {most}" if isinstance(most, int) and most > 0 else ""
        say(f"{run}: {checkpoint}.ckpt holds step {step}{of}, {why}")
    data = build(cfg, "data", DataModule, trust)
    # How data are served is this machine's, and not the folder's, to say.
    data.workers = 0
    data.device = "auto"
    data.evaluated = split
    with downloads(download), Fitting("data of the run"):
        data.prepare_data()
        data.show(1)
    trainer = Trainer(
        accelerator="auto",
        devices=1,
        precision="64-true" if is_double(cfg) else "32-true",
        logger=False,
        callbacks=[
            Diagnose(
                diagnostics,
                on_encoded=lambda count, seconds: say(
                    f"{label}encoded {count:,} examples in {seconds:.1f} s"
                ),
            )
        ],
        enable_checkpointing=False,
        enable_progress_bar=False,  # of several runs in a row it would not say which
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    if (
        processes()[1] > 1
    ):  # it waits for all ranks there, of which this may be the only one that asks
        trainer._data_connector.prepare_data = lambda: None  # type: ignore[method-assign]  # done above
    trainer.validate(algorithm, data, verbose=False)
    bound = {
        name.removeprefix("val/"): float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("val/")
    }
    return {"run": str(run), "checkpoint": checkpoint, "step": step, "split": split, "bound": bound}
