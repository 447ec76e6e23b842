"""Loggers of others, with their own packages: numbers, pictures, histograms, texts and tables arrive,
and a run goes on as itself.
"""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from tiny import TINY

from jensen.base.errors import InputError
from jensen.callbacks import sinks
from jensen.diagnostics.snapshot import Embedding, Film
from jensen.launch import loggers
from jensen.launch.training import train

RUN = (
    *(*TINY, "trainer.accelerator=cpu", "trainer.max_steps=4", "trainer.val_check_interval=2"),
    *("trainer.log_every_n_steps=2", "callbacks=[checkpoint,diagnose,hparams]"),
    "diagnostics=[rate,reconstructions]",
)
RESULTS = {
    "number": torch.tensor(0.5),
    "histogram": torch.arange(5.0),
    "picture": torch.zeros(3, 4, 4),
    "film": Film(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), 0.1),
    "text": "a *word*",
    "table": Embedding(torch.zeros(2, 3), ("shape",), [["square"], ["heart"]], None),
    "detail": np.zeros((2, 2)),
}

needs = {
    package: pytest.mark.skipif(
        find_spec(package) is None,
        reason=f"{package} is absent: pip install 'jensen[{package}]' to test its logger",
    )
    for package in ("wandb", "mlflow")
}


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_logger_whose_package_is_absent_names_the_extra(
    configure, tmp_path, monkeypatch, package
):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    words = (
        f"logger.{package} needs the package {package}, which is not installed: expected it; pip"
    )
    with pytest.raises(InputError, match=words) as caught:
        loggers.make(configure(f"logger={package}"), tmp_path)
    assert str(caught.value).endswith(f"pip install 'jensen[{package}]'")
    assert not list(tmp_path.iterdir())


@needs["mlflow"]
@pytest.mark.slow  # its package takes seconds to import
@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_all_but_histograms_and_a_run_goes_on_as_itself(
    configure, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    words = (*RUN, "logger=[mlflow]")
    train(configure(*words, "trainer.max_steps=2"), tmp_path)
    said = capsys.readouterr().out
    assert said.count("logger is MLFlowLogger, which keeps no histograms: they are left out") == 1
    train(configure(*words), tmp_path)
    run_id = json.loads((tmp_path / "loggers.json").read_text())["MLFlowLogger"]
    (logger,) = loggers.make(configure(*words), tmp_path)
    assert logger.run_id == run_id
    client = logger.experiment
    run = client.get_run(run_id)
    assert run.info.run_name == tmp_path.name
    assert float(run.data.params["data.batch_size"]) == 12
    history = client.get_metric_history(run_id, "val/elbo")
    assert [each.step for each in history] == [2, 4]
    assert {"train/loss", "rate/active_units"} <= run.data.metrics.keys()
    sinks.write(logger, "all", RESULTS, 7)
    artifacts = {
        artifact.path
        for folder in (
            "",
            "all/picture",
            "all/text",
            "all/film",
            "all/table",
            "reconstructions/images",
        )
        for artifact in client.list_artifacts(run_id, folder)
    }
    assert "configuration.yaml" in artifacts
    pictures = ("picture/00000007.png", "text/00000007.md", "film/00000007.gif")
    assert {f"all/{name}" for name in pictures} <= artifacts
    table = client.download_artifacts(run_id, "all/table/00000007.tsv")
    with open(table) as file:  # noqa: PTH123
        assert file.readlines()[:2] == ["z0\tz1\tz2\tshape\n", "0.0\t0.0\t0.0\tsquare\n"]
    assert not client.list_artifacts(run_id, "all/histogram")


@needs["wandb"]
@pytest.mark.slow  # its package takes seconds to import
@pytest.mark.filterwarnings("ignore")
def test_wandb_has_all_offline_and_a_run_goes_on_as_itself(configure, tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    words = (*RUN, "logger=[wandb]", "logger.wandb.offline=true", "+callbacks=lr_monitor")
    train(configure(*words, "trainer.max_steps=2"), tmp_path)
    first = json.loads((tmp_path / "loggers.json").read_text())["WandbLogger"]
    (logger,) = loggers.make(configure(*words), tmp_path)
    assert (logger.version, logger.experiment.name) == (first, tmp_path.name)
    logged = {}
    monkeypatch.setattr(logger.experiment, "log", logged.update)
    sinks.write(logger, "all", RESULTS, 7)
    assert logged.keys() - {"trainer/global_step"} == {
        f"all/{name}" for name in RESULTS if name != "detail"
    }
    assert logged["all/number"] == 0.5
    assert isinstance(logged["all/histogram"], wandb.Histogram)
    assert isinstance(logged["all/picture"][0], wandb.Image)
    assert isinstance(logged["all/film"], wandb.Video)
    assert logged["all/table"].columns == ["z0", "z1", "z2", "shape"]
    assert logged["all/text"].data == [["a *word*"]]
    wandb.finish()
    (stored, *_) = sorted(tmp_path.glob("wandb/offline-run-*"))
    pictures = [path.name for path in stored.rglob("*.png")]
    assert any(name.startswith("images_2") for name in pictures) or pictures


def test_what_no_logger_keeps_is_said_once(configure, tmp_path):
    made = {
        names: loggers.unkept(loggers.make(configure(f"logger={names}"), tmp_path / "run"))
        for names in ("[tensorboard]", "[csv]", "[tensorboard,csv]", "none")
    }
    assert made["[tensorboard]"] == made["[tensorboard,csv]"] == ""
    assert made["[csv]"].startswith("logger is CSV, which keeps no pictures, histograms and texts")
    assert made["none"].startswith("there is no logger: numbers and pictures of the training")
