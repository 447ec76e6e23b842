"""One entry a run in TensorBoard's HPARAMS, what it was asked for and what came of it, and its whole
configuration in TEXT.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard.summary import hparams

from jensen.callbacks import sinks
from jensen.callbacks.diagnose import others, writers

TOLD = ("data", "model", "objective", "experiment", "algorithm")
"""Groups that say what was trained."""
UNTOLD = ("diagnostics", "callbacks")

TICKED = 5
"""Columns that TensorBoard ticks if there are as many."""


class HParams(Callback):
    """Settings, written at the start; the metrics are scalars that the run writes anyway.

    The settings are `settings`, which every run has, and what the run's folder says it was started
    with (`.hydra`): the chosen files and the overrides, under their whole keys. The table of a
    sweep has what is swept; that of a run alone starts with what was overridden, and the seed. A
    continued run has its entry already. Other loggers get the settings as theirs.

    Args:
        settings: by dotted key or nested; null is left out.
        metrics: names of columns to the tag of the scalar.
        diagnostics: names of those that are run; metrics of others are left out.
    """

    def __init__(
        self, settings: Mapping[str, Any], metrics: Mapping[str, str], diagnostics: list[str]
    ) -> None:
        self.settings = settings
        self.metrics = {
            name: tag for name, tag in metrics.items() if tag.split("/")[0] in ("val", *diagnostics)
        }

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step:
            return
        folder = Path(trainer.default_root_dir)
        chosen, asked = started_with(folder)
        entry = {**dict(_flat(self.settings)), **chosen, **asked}
        experiment, *session = hparams(entry, dict.fromkeys(self.metrics.values(), math.nan))
        configuration = configuration_of(folder)
        for logger in others(trainer):
            sinks.settings(logger, entry, configuration)
        for writer in writers(trainer):
            for summary in (
                self._arranged(experiment, swept(folder), {"seed", *asked}),
                *session,
            ):
                writer.file_writer.add_summary(summary)
            if configuration:
                writer.add_text("configuration", indent(configuration, " " * 4))

    def _arranged(self, experiment: Any, swept: set[str], asked: set[str]) -> Any:
        """The summary of the table's columns. TensorBoard ticks those that are said to differ, and
        others until there are five: of a sweep it gets no others. Metrics go by their names.
        """
        plugin = experiment.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(plugin.content)
        infos = content.experiment.hparam_infos
        for info in infos:
            info.differs = info.name in (swept or asked)
        differ = [info for info in infos if info.differs]
        if swept and 0 < len(differ) < TICKED:
            del infos[:]
            infos.extend(differ)
        names = {tag: name for name, tag in self.metrics.items()}
        for metric in content.experiment.metric_infos:
            metric.display_name = names[metric.name.tag]
        plugin.content = content.SerializeToString()
        return experiment


def _flat(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float | str]]:
    """Whatever has a `_target_`, with its class, under its own key."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        elif key == "_target_":
            yield before[:-1], str(value).rsplit(".", 1)[-1]
        elif value is not None:
            yield f"{before}{key}", entry_of(value)


def entry_of(value: Any) -> float | str:
    """A number if it is one, so that columns sort."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def configuration_of(folder: Path) -> str:
    """The YAML of the run in `folder`; empty where there is none."""
    try:
        return (folder / ".hydra" / "config.yaml").read_text()
    except OSError:
        return ""


def started_with(folder: Path) -> tuple[dict[str, str], dict[str, float | str]]:
    """The choices of groups and the overrides of the run in `folder`; nothing for one that no
    command started.
    """
    try:
        hydra = yaml.safe_load((folder / ".hydra" / "hydra.yaml").read_text())["hydra"]
    except OSError:
        return {}, {}
    choices = hydra["runtime"]["choices"]
    chosen = {
        group: str(choice)
        for group, choice in choices.items()
        if choice and group.split("/")[0] in TOLD
    }
    pairs = (
        override.lstrip("+").split("=", 1)
        for override in hydra["overrides"]["task"]
        if "=" in override
    )
    asked = {key: entry_of(value) for key, value in pairs if key not in (*choices, *UNTOLD)}
    return chosen, asked


def swept(folder: Path) -> set[str]:
    """The keys that the sweep of the run in `folder` goes over; empty for a run alone."""
    try:
        return set(json.loads((folder.parent / "sweep.json").read_text()).get("swept", ()))
    except (OSError, ValueError, AttributeError, TypeError):
        return set()
